"""From tar files to documents."""

import json
import re

import pytest
import tiny

from miniflamingo.data.shards import BadSample, find_shards, read_samples, to_document
from miniflamingo.data.stream import usable_document


def one(tmp_path, files, key="000"):
    """The only sample of a shard with these files."""
    (sample,) = read_samples([str(tiny.write_shard(tmp_path / "a.tar", {key: files}))])
    return sample


@pytest.mark.parametrize("ending", ["jpg", "jpeg", "png", "webp"])
def test_a_pair(tmp_path, ending):
    picture = tiny.encoded(tiny.picture(0), {"jpg": "JPEG"}.get(ending, ending))
    document = to_document(one(tmp_path, {ending: picture, "txt": "zwei Kätzchen".encode()}))
    (chunk,) = document.chunks
    assert document.key == "000"
    assert (chunk.image, chunk.text) == (picture, "zwei Kätzchen")


def test_a_pair_with_facts(tmp_path):
    facts = {"objects": ["cat"], "background": "red"}
    document = to_document(
        one(tmp_path, tiny.pair("a cat", 0) | {"json": json.dumps(facts).encode()})
    )
    assert document.meta == facts
    assert document.num_media == 1


def test_an_interleaved_document(tmp_path):
    first, second, third = (tiny.encoded(tiny.picture(i)) for i in range(3))
    entries = [
        {"text": "before any picture"},
        {"image": "0.png", "text": "one"},
        {"image": ["1.png", "2.png"], "text": "a clip"},
        {"image": "0.png"},
    ]
    described = json.dumps({"chunks": entries, "style": 7}).encode()
    files = {"0.png": first, "1.png": second, "2.png": third, "json": described}
    document = to_document(one(tmp_path, files))
    assert [chunk.frames for chunk in document.chunks] == [
        (), (first,), (second, third), (first,)
    ]  # fmt: skip
    assert [chunk.text for chunk in document.chunks] == [
        "before any picture", "one", "a clip", None
    ]  # fmt: skip
    assert document.meta == {"style": 7}
    assert document.num_media == 3


PICTURE = tiny.encoded(tiny.picture(0))


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"json": b"{nope"}, "sample '000': its json does not parse"),
        ({"json": b"\xff\xfe"}, "sample '000': its json does not parse"),
        ({"json": b'{"chunks": [{"image": "3.png", "text": "a"}]}'},
         "names the picture '3.png', which is not in the shard"),
        ({"json": b'{"chunks": ["a", "b"]}'}, "its json holds .chunks. that are no list"),
        ({"json": b'{"chunks": 3}'}, "sample '000': its json holds .chunks. that are no list"),
        ({"json": b'{"chunks": [{"text": 5}]}'}, "sample '000': the text 5 in its json is no text"),
        ({"json": b'[1, 2]'}, "sample '000': its json is a list"),
        ({"png": PICTURE}, r"sample '000' holds \['png'\]; expected a picture"),
        ({"txt": b"a"}, r"holds \['txt'\]"),
        ({"mp3": b"a", "txt": b"a"}, r"holds \['mp3', 'txt'\]"),
        ({"json": b'{"chunks": []}'}, "'000' has no chunks"),
        ({"json": b'{"chunks": [{"text": null}, {"text": "a"}]}'}, "chunk 0 of 2 has no text"),
        ({"png": PICTURE, "txt": b"\xff"}, "decode"),
        ({"png": PICTURE[:60], "txt": b"a"}, "cannot read the picture"),
    ],
)  # fmt: skip
def test_a_bad_sample_is_refused_by_name_and_skipped(tmp_path, caplog, files, message):
    sample = one(tmp_path, files)
    if "cannot read" not in message:
        with pytest.raises(ValueError, match=message):
            to_document(sample)
    assert usable_document(sample) is None
    assert re.search(message, caplog.text)
    assert "skipped 000" in caplog.text
    assert "a.tar" in caplog.text


def test_bad_samples_are_told_from_our_own_mistakes():
    assert issubclass(BadSample, ValueError)


def test_globs_and_ranges_are_expanded_in_order(tmp_path):
    for name in ("b1", "a2", "a1", "c0"):
        tiny.write_shard(tmp_path / f"{name}.tar", {"0": tiny.pair("a", 0)})
    names = [f"{tmp_path}/{name}.tar" for name in ("a1", "a2", "b1")]
    assert find_shards([f"{tmp_path}/a*.tar", f"{tmp_path}/b1.tar"]) == names
    assert find_shards(f"{tmp_path}/a{{1..2}}.tar") == names[:2]
    urls = [f"https://example.org/{i:02}.tar" for i in range(3)]
    assert find_shards("https://example.org/{00..02}.tar") == urls


def test_no_shards_at_a_path(tmp_path):
    tiny.write_shard(tmp_path / "0.tar", {"0": tiny.pair("a", 0)})
    missing = f"{tmp_path}/1.tar"
    with pytest.raises(ValueError, match=re.escape(f"no shards at '{missing}'")):
        find_shards(f"{tmp_path}/{{0..1}}.tar")
