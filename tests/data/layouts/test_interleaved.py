"""Our own interleaved documents, and damaged copies."""

import json

import pytest
import tiny

from miniflamingo.data.dropped import Dropped
from miniflamingo.data.layouts.choose import to_document
from miniflamingo.data.source import SourceConfig
from miniflamingo.document import Video

PICTURES = [tiny.encoded(tiny.picture(i)) for i in range(12)]


def described(*chunks, **more):
    return json.dumps({"chunks": chunks, **more}).encode()


def test_an_interleaved_document(read):
    entries = [
        {"text": "before any picture"},
        {"image": "0.png", "text": "one"},
        {"image": ["1.png", "2.png"], "text": "a clip"},
        {"image": "0.png"},
    ]
    files = {f"{i}.png": PICTURES[i] for i in range(3)}
    document = to_document(read({"json": described(*entries, style=7), **files}))
    first, second, third = PICTURES[:3]
    assert [chunk.frames for chunk in document.chunks] == [
        (), (first,), (second, third), (first,)
    ]  # fmt: skip
    assert [chunk.text for chunk in document.chunks] == [
        "before any picture", "one", "a clip", None
    ]  # fmt: skip
    assert document.meta == {"style": 7}
    assert document.num_media == 3


def test_clips_as_files_and_as_numbered_frames(read):
    files = {f"0.{i}.png": PICTURES[i] for i in range(12)}  # 0.10 stands after 0.9
    chunks = [{"image": "0", "text": "frames"}, {"image": "1.mp4", "text": "a clip"}]
    document = to_document(
        read({"json": described(*chunks), **files, "1.mp4": b"clip"}),
        SourceConfig([], 1, max_frames=5),
    )
    assert document.chunks[0].frames == tuple(PICTURES)
    assert document.chunks[1].image == Video(b"clip", 5)


def test_names_may_be_in_capitals(read):
    document = to_document(
        read({"json": described({"image": "0.PNG", "text": "a"}), "0.PNG": b"x"})
    )
    assert document.chunks[0].image == b"x"


@pytest.mark.parametrize(
    ("content", "reason", "message"),
    [
        (b"{nope", "bad_json", "its json does not parse"),
        (b"\xff\xfe", "bad_json", "its json does not parse"),
        (b"[1, 2]", "bad_json", "its json is a list"),
        (b"[" * 100_000, "bad_json", "its json does not parse"),
        (b'{"chunks":' + b'{"a":' * 100_000, "bad_json", "its json does not parse"),
        (b'{"chunks": ' + b"9" * 5000 + b"}", "bad_json", "its json does not parse"),
        (described("a", "b"), "bad_json", "its json holds .chunks. that are no list of objects"),
        (b'{"chunks": 3}', "bad_json", "its json's .chunks. is a int; expected a list"),
        (described({"text": 5}), "bad_json", "the text 5 in its json is no text"),
        (described({"image": [], "text": "a"}), "bad_json", "an .image. that is an empty list"),
        (described(), "bad_json", "'000' has no chunks"),
        (described({}, {"text": "a"}), "bad_json", "chunk 0 of 2 has no text"),
        (described({"image": "3.png"}), "missing_file", "names the picture '3.png', which is not"),
        (described({"image": {"a": 1}}), "missing_file", "names the picture {'a': 1}, which"),
        (described({"image": ["0.png", None]}), "missing_file", "names the picture None, which"),
        (described({"image": "x" * 999}), "missing_file", r"names the picture 'x{76}\.\.\., which"),
        (described({"text": "a" * 1_000_001}), "text_too_large", "1,000,001 characters"),
    ],
)
def test_a_damaged_document_is_dropped_by_name(read, content, reason, message):
    with pytest.raises(Dropped, match=rf"sample '000' of .*a\.tar: .*{message}") as error:
        to_document(read({"json": content, "0.png": PICTURES[0]}))
    assert error.value.reason == reason


def test_a_json_bomb_is_not_even_parsed(read, monkeypatch):
    monkeypatch.setattr("miniflamingo.data.layouts.members.MOST_JSON_BYTES", 100)
    with pytest.raises(Dropped, match="its json has 121 bytes; at most 100 are parsed") as error:
        to_document(read({"json": b'{"chunks": ' + b"[" * 54 + b"]" * 55 + b"}"}))
    assert error.value.reason == "json_too_large"


def test_of_a_name_that_stands_twice_the_last_counts(read):
    content = b'{"chunks": [{"text": "a"}], "chunks": [{"text": "b"}]}'
    assert to_document(read({"json": content})).chunks[0].text == "b"


@pytest.mark.parametrize("name", ["__key__", "__url__", "../../secret.png", "/etc/passwd", "json"])
def test_a_name_in_a_json_is_never_a_path(read, tmp_path, monkeypatch, name):
    secret = tmp_path / "secret.png"
    secret.write_bytes(PICTURES[0])
    monkeypatch.chdir(tmp_path)
    sample = read({"json": described({"image": name, "text": "a"})})
    sample["__key__"] = "secret.png"
    if name == "json":  # a file of the sample, if no picture
        assert to_document(sample).chunks[0].image == sample["json"]
        return
    with pytest.raises(Dropped, match="which is not in the shard") as error:
        to_document(sample)
    assert error.value.reason == "missing_file"


def test_keys_that_look_like_paths_are_only_names(read):
    sample = read(tiny.interleaved(["a"], 0), key="../../etc/passwd")
    assert to_document(sample).key == "../../etc/passwd"


def test_pictures_that_the_source_does_not_want_drop_the_document(read):
    sample = read(tiny.interleaved(["a", "b"], 0))
    with pytest.raises(Dropped, match="min_image_side is 64") as error:
        to_document(sample, SourceConfig([], 1, min_image_side=64))
    assert error.value.reason == "image_too_small"
