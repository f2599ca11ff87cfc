"""Pairs as img2dataset writes them, and damaged copies."""

import json

import pytest
import tiny

from miniflamingo.data.dropped import Dropped
from miniflamingo.data.layouts.choose import to_document
from miniflamingo.data.source import SourceConfig
from miniflamingo.document import Video

PICTURE = tiny.encoded(tiny.picture(0))


@pytest.mark.parametrize("ending", ["jpg", "jpeg", "png", "webp", "JPG"])
def test_a_pair(read, ending):
    picture = tiny.encoded(
        tiny.picture(0), {"jpg": "JPEG", "jpeg": "JPEG"}.get(ending.lower(), ending)
    )
    document = to_document(read({ending: picture, "txt": "zwei Kätzchen".encode()}))
    (chunk,) = document.chunks
    assert document.key == "000"
    assert (chunk.image, chunk.text) == (picture, "zwei Kätzchen")


def test_what_img2dataset_writes_beside_a_pair_is_kept(read):
    facts = {
        "caption": "a cat", "url": "https://example.org/cat.jpg", "key": "000", "status": "success",
        "error_message": None, "width": 16, "height": 16, "original_width": 640,
        "original_height": 640, "exif": "{}", "sha256": "00",
    }  # fmt: skip
    document = to_document(read(tiny.pair("a cat", 0) | {"json": json.dumps(facts).encode()}))
    assert document.meta == facts
    assert document.num_media == 1


def test_a_clip_with_its_text(read):
    document = to_document(
        read({"mp4": b"clip", "txt": b"moving"}), SourceConfig([], 1, max_frames=3)
    )
    assert document.chunks[0].image == Video(b"clip", 3)


@pytest.mark.parametrize(
    ("files", "reason", "message"),
    [
        ({"png": PICTURE}, "bad_layout", r"holds \['png'\] .* expected a picture or clip with txt"),
        ({"txt": b"a"}, "bad_layout", r"holds \['txt'\]"),
        ({"mp3": b"a", "txt": b"a"}, "bad_layout", r"holds \['mp3', 'txt'\]"),
        ({"png": PICTURE, "txt": b"\xff"}, "bad_text", "its text is not UTF-8"),
        ({"png": PICTURE, "txt": b""}, "no_text", "its txt holds 0 bytes and no text"),
        ({"png": PICTURE, "txt": b" \n\x00\x00"}, "no_text", "holds 4 bytes and no text"),
        ({"png": PICTURE, "txt": b"a" * 1_000_001}, "text_too_large", "1,000,001 characters"),
        ({"png": PICTURE, "txt": b"a", "json": b"{nope"}, "bad_json", "does not parse"),
    ],
)  # fmt: skip
def test_a_damaged_pair_is_dropped_by_name(read, files, reason, message):
    with pytest.raises(Dropped, match=rf"sample '000' of .*a\.tar: .*{message}") as error:
        to_document(read(files))
    assert error.value.reason == reason


def test_a_source_of_pairs_takes_nothing_else(read):
    sample = read(tiny.interleaved(["a"], 0))
    with pytest.raises(
        Dropped, match=r"expected a picture \(.*\) or clip \(.*\) with txt"
    ) as error:
        to_document(sample, SourceConfig([], 1, layout="pairs"))
    assert error.value.reason == "bad_layout"


@pytest.mark.parametrize(
    ("size", "changes", "reason"),
    [
        ((16, 16), {"min_image_bytes": 100_000}, "image_too_small"),
        ((15, 64), {"min_image_side": 16}, "image_too_small"),
        ((16, 64), {"max_image_aspect": 3}, "image_too_narrow"),
        ((64, 16), {"max_image_aspect": 3}, "image_too_narrow"),
        ((16, 48), {"max_image_aspect": 3, "min_image_side": 16, "min_image_bytes": 20}, None),
    ],
)
def test_pictures_that_the_source_does_not_want(read, size, changes, reason):
    picture = tiny.encoded(tiny.picture(0).resize(size))
    sample = read({"png": picture, "txt": b"a"})
    if reason is None:
        assert to_document(sample, SourceConfig([], 1, **changes)).num_media == 1
        return
    (field,) = changes
    with pytest.raises(Dropped, match=field) as error:
        to_document(sample, SourceConfig([], 1, **changes))
    assert error.value.reason == reason


def test_a_header_that_says_nothing_is_a_broken_picture(read):
    sample = read({"png": b"<html>404</html>", "txt": b"a"})
    with pytest.raises(Dropped, match="cannot read a picture's header") as error:
        to_document(sample, SourceConfig([], 1, min_image_side=64))
    assert error.value.reason == "image_broken"
