"""Frames of clips that are really encoded."""

import io
import struct

import av
import numpy as np
import pytest
import tiny
from PIL import Image

from miniflamingo import Chunk, Document
from miniflamingo.data.dropped import Dropped
from miniflamingo.data.video import evenly, read_clip
from miniflamingo.document import Video


def levels(frames):
    return [round(np.array(frame).mean() / 8) for frame in frames]


CLIP = tiny.clip(20)
CODECS = [("mp4", "mpeg4"), ("mp4", "libx264"), ("webm", "libvpx")]


@pytest.mark.parametrize(("count", "most"), [(10, 3), (3, 10), (8, 8), (10_001, 1), (7, 5)])
def test_frames_are_taken_evenly(count, most):
    places = evenly(count, most)
    assert len(places) == min(count, most)
    assert places == sorted(set(places))
    assert places[0] >= 0
    assert places[-1] < count
    gaps = np.diff([-places[0] - 1, *places, 2 * count - places[-1] - 1])  # mirrored at both ends
    assert gaps.max() - gaps.min() <= 1


@pytest.mark.parametrize(("ending", "codec"), CODECS)
def test_frames_of_a_clip(ending, codec):
    content = tiny.clip(20, ending=ending, codec=codec)
    frames = read_clip(Video(content, max_frames=4))
    assert levels(frames) == [2, 7, 12, 17]
    assert {(frame.mode, frame.size) for frame in frames} == {("RGB", (32, 24))}
    assert levels(read_clip(Video(content, max_frames=100))) == list(range(20))


def test_a_clip_may_be_a_file(tmp_path):
    path = tmp_path / "clip.mp4"
    path.write_bytes(CLIP)
    assert levels(read_clip(Video(path, 2))) == levels(read_clip(Video(str(path), 2))) == [5, 15]


def test_a_clip_is_turned_upright():
    """As phones write portraits: frames lie on their side, a matrix in the file says so."""
    content = tiny.clip(1, (64, 32), marked=True)
    upright, turned = [
        struct.pack(">9i", *matrix)
        for matrix in (
            (1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30),
            (0, 1 << 16, 0, -1 << 16, 0, 0, 32 << 16, 0, 1 << 30),
        )
    ]
    track = content.index(upright, content.index(b"tkhd"))
    content = content[:track] + turned + content[track + len(turned) :]
    (frame,) = read_clip(Video(content))
    assert frame.size == (32, 64)
    corners = [frame.getpixel(place) for place in ((2, 2), (29, 2), (2, 61), (29, 61))]
    assert [sum(pixel) > 600 for pixel in corners] == [False, True, False, False]


def test_large_frames_are_shrunk():
    assert read_clip(Video(tiny.clip(1, (128, 64))), least_side=16)[0].size == (64, 32)


def test_the_processor_takes_a_clip_as_it_is(processor):
    batch = processor.batch([Document([Chunk(Video(CLIP, 3), "moving")])])
    assert batch.pixels.shape == (1, 3, 3, 16, 16)
    assert batch.pixels[0, 0].mean() < batch.pixels[0, 1].mean() < batch.pixels[0, 2].mean()


def frames_or_reason(content):
    try:
        return len(read_clip(Video(content, 4)))
    except Dropped as error:
        return error.reason


def test_a_clip_that_breaks_off_gives_what_it_has_or_is_named(tmp_path):
    """Wherever it is cut: its index stands at the end, or in front, as streaming wants it."""
    in_front = tiny.clip(20, path=tmp_path / "clip.mp4", options={"movflags": "faststart"})
    assert in_front.index(b"moov") < in_front.index(b"mdat")
    found = {
        frames_or_reason(content[:length])
        for content in (CLIP, in_front)
        for length in range(0, len(content), 97)
    }
    assert found - {1, 2, 3} == {"clip_broken", 4}


def test_a_title_in_an_old_encoding_is_no_damage():
    assert CLIP.count(b"Lavf") == 1  # in its metadata, which is read as text
    titled = CLIP.replace(b"Lavf", "Café".encode("latin-1"))
    assert frames_or_reason(titled) == frames_or_reason(CLIP) == 4


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cannot read the clip <bytes>"),
        (b"no clip", "cannot read the clip <bytes>"),
        (CLIP[: len(CLIP) // 2], "no video stream .* or was cut before its index"),
    ],
)
def test_a_broken_clip(content, message):
    with pytest.raises(Dropped, match=message) as error:
        read_clip(Video(content))
    assert error.value.reason == "clip_broken"


def test_a_missing_clip(tmp_path):
    with pytest.raises(Dropped, match=r"cannot read the clip .*nope\.mp4"):
        read_clip(Video(tmp_path / "nope.mp4"))


def test_sound_alone_is_no_clip():
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=8000)
        stream.layout = "mono"
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        silence.sample_rate = 8000
        container.mux(stream.encode(silence))
        container.mux(stream.encode())
    with pytest.raises(Dropped, match="has no video stream"):
        read_clip(Video(file.getvalue()))


def test_a_clip_without_end(monkeypatch):
    monkeypatch.setattr("miniflamingo.data.video.MOST_FRAMES", 19)
    with pytest.raises(Dropped, match="more than 19 frames") as error:
        read_clip(Video(CLIP))
    assert error.value.reason == "clip_too_long"


def test_frames_too_large(monkeypatch):
    monkeypatch.setattr("miniflamingo.data.images.MOST_PIXELS", 32 * 24 - 1)
    with pytest.raises(Dropped, match="has 32 x 24 pixels") as error:
        read_clip(Video(CLIP))
    assert error.value.reason == "image_too_large"


def test_pillow_pictures_of_a_clip_are_plain():
    assert isinstance(read_clip(Video(CLIP, 1))[0], Image.Image)


@pytest.mark.parametrize(
    "text",
    [
        b"ffconcat version 1.0\nfile private.png\n",
        b"#EXTM3U\n#EXTINF:1,\nprivate.png\n#EXT-X-ENDLIST\n",
        b"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\n"
        b"m=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
    ],
    ids=["concat", "hls", "sdp"],
)
@pytest.mark.parametrize("as_file", [False, True])
def test_a_clip_that_names_files_or_sockets_opens_none(tmp_path, monkeypatch, text, as_file):
    monkeypatch.chdir(tmp_path)
    tiny.picture(0, 80).save("private.png")
    path = tmp_path / "clip.mp4"
    path.write_bytes(text)
    with pytest.raises(Dropped) as caught:
        read_clip(Video(path if as_file else text, 1))
    assert caught.value.reason == "clip_broken"


def test_a_frame_is_shrunk_before_the_next_is_decoded():
    frames = read_clip(Video(CLIP, 3), least_side=4)
    assert [frame.size for frame in frames] == [(11, 8)] * 3
