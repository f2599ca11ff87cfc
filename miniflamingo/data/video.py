"""Frames of encoded clips."""

from __future__ import annotations

import io
from pathlib import Path
from typing import IO

import av
from av.container import InputContainer
from av.error import FFmpegError
from PIL import Image

from miniflamingo.data.dropped import Dropped
from miniflamingo.data.images import check_size, shrink
from miniflamingo.document import Video

CLIP_ENDINGS = ("mp4", "webm", "mkv", "mov")

FORMATS = "mov,mp4,matroska,webm"
"""The containers of ``CLIP_ENDINGS``, by FFmpeg's names. Playlists would open other files."""

MOST_FRAMES = 10_000
"""Of one clip: more than five minutes. All frames up to the last one taken are decoded."""


def evenly(count: int, most: int) -> list[int]:
    """Choose at most ``most`` of ``count`` places, each the middle of an equal part.

    >>> evenly(10, 3)
    [1, 5, 8]
    >>> evenly(2, 3)
    [0, 1]
    """
    if count <= most:
        return list(range(count))
    return [(2 * place + 1) * count // (2 * most) for place in range(most)]


def read_clip(video: Video, least_side: int | None = None) -> list[Image.Image]:
    """Decode some frames of a clip, evenly over its length.

    Args:
        video: The clip, and how many frames to take.
        least_side: See ``load_image``.

    Returns:
        At least one and at most ``video.max_frames`` pictures, RGB and upright.

    Raises:
        Dropped: ``clip_broken``, ``clip_too_long``, or ``image_too_large`` for the frames.
    """
    name = "<bytes>" if isinstance(video.source, bytes) else str(video.source)
    try:
        wanted = evenly(_count_frames(video, name), video.max_frames)
        frames = _decode(video, wanted, name, least_side)
    except (FFmpegError, OSError) as error:
        raise Dropped("clip_broken", f"cannot read the clip {name}: {error}") from error
    if not frames:
        raise Dropped("clip_broken", f"the clip {name} holds no frame that decodes.")
    return frames


def _bytes_of(video: Video) -> IO[bytes]:
    """Open the clip here, so that FFmpeg needs no protocol: neither files nor sockets."""
    if isinstance(video.source, bytes):
        return io.BytesIO(video.source)
    return Path(video.source).open("rb")


def _open(file: IO[bytes]) -> InputContainer:
    # A title in an old encoding, which is read along with the rest, is no reason to stop.
    return av.open(
        file,
        "r",
        metadata_errors="replace",
        container_options={"format_whitelist": FORMATS, "protocol_whitelist": "none"},
    )


def _stream(container: InputContainer, name: str) -> av.VideoStream:
    streams = container.streams.video
    if not streams or streams[0].codec_context is None:
        raise Dropped(
            "clip_broken",
            f"the clip {name} has no video stream that decodes, or was cut before its index.",
        )
    context = streams[0].codec_context
    if context.width and context.height:  # else the frames will tell
        check_size((context.width, context.height), name)
    context.thread_count = 1  # reading processes share the cores already
    return streams[0]


def _count_frames(video: Video, name: str) -> int:
    """Count packets, one a frame: cheap, and headers need not tell the truth."""
    with _bytes_of(video) as file, _open(file) as container:
        stream = _stream(container, name)
        count = 0
        for packet in container.demux(stream):
            count += packet.size > 0
            if count > MOST_FRAMES:
                raise Dropped(
                    "clip_too_long",
                    f"the clip {name} has more than {MOST_FRAMES:,} frames; cut it when writing "
                    "shards.",
                )
    return count


def _decode(
    video: Video, wanted: list[int], name: str, least_side: int | None
) -> list[Image.Image]:
    """Decode the wanted frames, each shrunk before the next: whole ones could fill the memory."""
    frames: list[Image.Image] = []
    if not wanted:
        return frames
    with _bytes_of(video) as file, _open(file) as container:
        stream = _stream(container, name)
        for place, frame in enumerate(container.decode(stream)):
            if place == wanted[len(frames)]:
                check_size((frame.width, frame.height), name)
                image = frame.to_image()
                if least_side is not None:
                    image = shrink(image, least_side)
                frames.append(image.rotate(frame.rotation, expand=True))
            if len(frames) == len(wanted):
                break
    return frames
