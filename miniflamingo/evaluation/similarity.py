"""CLIP features of pictures, kept on disk.

Shapes: P pictures, E width of CLIP's joint space.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from safetensors.torch import load_file, save_file
from torch import Tensor

from miniflamingo.data.images import UnreadableImage, load_image
from miniflamingo.evaluation.example import Example
from miniflamingo.files import whole_file
from miniflamingo.generation.reader import picture_id
from miniflamingo.model.config import VisionConfig
from miniflamingo.model.vision import create_model

PICTURES_AT_ONCE = 64
DECODERS = 4
"""Threads that decode pictures: Pillow decodes outside Python's lock."""


def file_stamp(example: Example) -> str:
    """What changes when a picture does: its bytes' hash, or its file's place, size and time."""
    if isinstance(example.image, bytes):
        return picture_id(example.image)
    stat = Path(str(example.image)).stat()
    return f"{example.image} {stat.st_size} {stat.st_mtime_ns}"


def check_pictures(
    examples: Sequence[Example], progress: Callable[[int], object] = lambda done: None
) -> None:
    """Decode every picture once, so that a broken one is told before hours of work.

    Raises:
        UnreadableImage: Naming the file and the id of the first that does not decode.
    """

    def check(example: Example) -> None:
        try:
            load_image(example.image)
        except UnreadableImage as error:
            raise UnreadableImage(
                error.reason, f"{example.file}: {example.key!r}: {error}"
            ) from error

    with ThreadPoolExecutor(DECODERS) as pool:
        for _ in pool.map(check, examples):
            progress(1)


@torch.no_grad()
def clip_features(
    config: VisionConfig,
    encoder: str,
    examples: Sequence[Example],
    folder: Path,
    device: torch.device,
    progress: Callable[[int], object] = lambda done: None,
) -> dict[str, Tensor]:
    """Features of pictures in CLIP's joint space, read from disk if they were computed before.

    The joint space is what CLIP was trained to compare pictures in; patch features, which the
    resampler reads, were not. So the whole open_clip model is loaded by the name in the
    configuration, for this alone.

    Args:
        config: Of the Flamingo's image encoder.
        encoder: Its fingerprint.
        examples: One for each distinct picture.
        folder: Keeps the features, one file for each encoder and set of pictures.
        device: To compute on.
        progress: Called with the number of pictures done.

    Returns:
        ``picture_id`` -> (E,) of unit length in fp32.

    Raises:
        UnreadableImage: If a picture does not decode.
    """
    stamps = [file_stamp(each) for each in examples]
    settings = [encoder, config.image_size, sorted(stamps)]
    name = hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:32]
    file = folder / f"{name}.safetensors"
    if file.is_file():
        progress(len(examples))
        return load_file(file)
    model: Any = create_model(config).to(device).eval()
    transform: Any = image_transform_v2(PreprocessCfg(**model.visual.preprocess_cfg), False)
    features: dict[str, Tensor] = {}
    with ThreadPoolExecutor(DECODERS) as pool:
        for start in range(0, len(examples), PICTURES_AT_ONCE):
            part = examples[start : start + PICTURES_AT_ONCE]
            pixels = list(pool.map(lambda each: transform(load_image(each.image)), part))
            found = model.encode_image(torch.stack(pixels).to(device), normalize=True)
            for each, vector in zip(part, found.float().cpu(), strict=True):
                features[picture_id(each.image)] = vector.clone()
            progress(len(part))
    folder.mkdir(parents=True, exist_ok=True)
    with whole_file(file) as unfinished:
        save_file(features, unfinished)
    return features
