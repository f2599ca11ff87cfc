"""Encode the pictures of shards once, with the frozen image encoder of a recipe.

Run ``python -m data_prep.features --help``.

Shapes: F frames, C channels, H x W pixels, V patches per frame, E vision width.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from data_prep.command import run_command
from data_prep.jobs import Converted, Job, Part, Rows, describe, run_job
from data_prep.reading import ShardSamples, count_samples
from data_prep.recipes import read_encoder
from data_prep.samples import to_json
from data_prep.shards import Sample
from data_prep.workers import Ray
from miniflamingo.data.dropped import Dropped
from miniflamingo.data.images import clip_to_pixels
from miniflamingo.data.layouts.choose import to_document
from miniflamingo.data.patches import PATCHES_ENDING, write_patches
from miniflamingo.data.prepare import decode_document
from miniflamingo.data.processor import least_side, picture_transform
from miniflamingo.data.shards import find_shards
from miniflamingo.data.source import SourceConfig
from miniflamingo.document import Document, Patches
from miniflamingo.model.config import VisionConfig
from miniflamingo.model.fingerprint import encoder_fingerprint
from miniflamingo.model.vision import FrozenVision, load_vision

Stored = Literal["bfloat16", "float16"]


class Encoder:
    """A frozen image encoder with its preprocessing and its fingerprint."""

    def __init__(self, vision: FrozenVision, device: str) -> None:
        """Move an encoder to where it will compute.

        Args:
            vision: The encoder.
            device: A torch device.
        """
        self.fingerprint = encoder_fingerprint(vision)
        self.vision = vision.to(device)
        self.device = device
        self.transform = picture_transform(vision.preprocessing)
        self.least_side = least_side(vision.preprocessing)

    def encode(self, clips: list[Tensor], dtype: torch.dtype) -> list[Tensor]:
        """Encode clips of different lengths together.

        Args:
            clips: Each (F, C, H, W).
            dtype: To store patches in.

        Returns:
            (F, V, E) for each.
        """
        frames = torch.cat(clips).unsqueeze(1)  # each frame a media item of its own
        patches = self.vision(frames.to(self.device)).squeeze(1).to("cpu", dtype)
        return [each.clone() for each in patches.split([len(clip) for clip in clips])]


def load_encoder(vision: VisionConfig, device: str) -> Encoder:
    """Load an encoder, once in each process."""
    return _load_encoder(json.dumps(asdict(vision)), device)


@cache
def _load_encoder(vision: str, device: str) -> Encoder:
    return Encoder(load_vision(VisionConfig(**json.loads(vision))), device)


@dataclass(frozen=True)
class ToPatches:
    """Encodes the samples of a shard, a batch of pictures at a time.

    Attributes:
        vision: The encoder.
        source: How its samples are read.
        dtype: To store patches in.
        batch_size: Pictures at a time.
        device: Where to compute.
    """

    vision: VisionConfig
    source: SourceConfig
    dtype: Stored
    batch_size: int
    device: str

    def __call__(self, name: str, rows: Rows) -> Converted:
        """Give each sample as an interleaved document of patch features, under its own key."""
        encoder = load_encoder(self.vision, self.device)
        waiting: list[Document] = []
        for row in rows:
            if isinstance(row, Dropped):
                yield row
                continue
            try:
                document = to_document(row, self.source)
                waiting.append(decode_document(document, self.source, encoder.least_side))
            except Dropped as error:
                yield error
                continue
            if sum(len(c.frames) for each in waiting for c in each.chunks) >= self.batch_size:
                yield from self._encode(encoder, waiting)
                waiting = []
        yield from self._encode(encoder, waiting)

    def _encode(self, encoder: Encoder, documents: list[Document]) -> Iterator[Sample]:
        clips = [
            clip_to_pixels(chunk.frames, encoder.transform, len(chunk.frames))
            for document in documents
            for chunk in document.chunks
            if chunk.frames
        ]
        patches = iter(encoder.encode(clips, getattr(torch, self.dtype)) if clips else [])
        for document in documents:
            chunks: list[dict[str, Any]] = []
            files: dict[str, bytes] = {}
            for place, chunk in enumerate(document.chunks):
                image = {}
                if chunk.frames:
                    name = f"{place}.{PATCHES_ENDING}"
                    files[name] = write_patches(Patches(next(patches), encoder.fingerprint))
                    image = {"image": name}
                chunks.append({**image, "text": chunk.text})
            content = to_json({**document.meta, "chunks": chunks})
            yield {"__key__": document.key, "json": content, **files}


def features(
    recipe: Path,
    source: str,
    out: Path,
    dtype: Stored = "bfloat16",
    batch_size: int = 64,
    device: str | None = None,
    workers: int = 1,
    ray: Ray | None = None,
) -> None:
    """Encode the pictures of a source once, so that training need not.

    Writes one shard of patch features for each shard of the source. Name them in data.sources in
    their place; the loss is that of the pictures up to the rounding of --dtype, and a model with
    another encoder, other stages or other preprocessing refuses them. Filters on single pictures
    (min_image_bytes, min_similarity, ...) act here, windows and placement when training reads.

    Args:
        recipe: A YAML that miniflamingo fit takes; model.vision is the encoder.
        source: Which of its data.sources, or validation.
        out: Folder of the shards.
        dtype: To store patches in.
        batch_size: Pictures to encode at a time.
        device: cuda, cpu, ...; cuda if there is one. On Ray each shard that is being encoded has a
            GPU of its own: with 8 of them, --ray local --workers 8.
        workers: Local processes; CPUs for --ray local.
        ray: auto runs on the Ray cluster of this machine, local on one started here.
    """
    vision, reading = read_encoder(recipe, source)
    shards = find_shards(reading.urls)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    encoder = load_encoder(vision, device)
    about = {
        "layout": "interleaved",
        "encoder": {
            "fingerprint": encoder.fingerprint,
            "vision": asdict(vision),
            "preprocessing": encoder.vision.preprocessing,
            "dtype": dtype,
        },
    }
    read = {n: value for n, value in asdict(reading).items() if n not in ("batch_size", "pack")}
    job = Job(
        "features",
        {"source": read, "shards": shards, "encoder": encoder.fingerprint, "dtype": dtype},
        [
            Part(f"{number:06d}", ShardSamples(url, count_samples(url)))
            for number, url in enumerate(shards)
        ],
        ToPatches(vision, reading, dtype, batch_size, device),
        f"{reading.urls}",
        "that of the pictures",
        about,
        gpus=1 if device == "cuda" else 0,
    )
    print(describe(run_job(job, out, workers, ray), out))


if __name__ == "__main__":
    run_command(features)
