"""Sources of patch features need the image encoder that made them."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from miniflamingo.data.features_manifest import MadeBy, encoders_of
from miniflamingo.data.shards import find_shards
from miniflamingo.model.config import VisionConfig
from miniflamingo.model.fingerprint import encoder_fingerprint
from miniflamingo.model.vision import FrozenVision, load_vision


def check_features(data: Namespace, vision: FrozenVision) -> None:
    """Compare the encoder of a recipe with those that the manifests of its shards name.

    Stages, size and published weights are compared by name. A folder or file may hold anything, so
    where one is named the encoder is loaded, it alone, and its fingerprint compared.

    Args:
        data: The ``data`` section.
        vision: Of the recipe; its weights are not read.

    Raises:
        UserError: Naming source, manifest, the encoder found and the one expected.
    """
    loaded = None
    sources = {f"data.sources.{name}": source for name, source in data.sources.items()}
    for key, source in {**sources, "data.validation": data.validation}.items():
        for made in encoders_of(find_shards(source.urls), source.timeout):
            if difference := named_difference(made, vision):
                raise another_encoder(key, made, vision.config, difference)
            if is_published(made.vision) and is_published(asdict(vision.config)):
                continue
            loaded = loaded or load_vision(vision.config)
            mine = encoder_fingerprint(loaded, made.fingerprint)
            if mine != made.fingerprint:
                weights = f"fingerprint {made.fingerprint[:12]} instead of {mine[:12]}"
                raise another_encoder(key, made, vision.config, weights)


def is_published(vision: dict[str, Any]) -> bool:
    """Whether name and weights are words of open_clip's, behind which nothing ever changes.

    Args:
        vision: Fields of ``VisionConfig``.
    """
    elsewhere = vision["name"].startswith(("local-dir:", "hf-hub:"))
    return not elsewhere and not Path(vision["pretrained"] or "").is_file()


def named_difference(made: MadeBy, vision: FrozenVision) -> str | None:
    """What tells two encoders apart without their weights, in words; None if nothing does."""
    before, now = made.vision, asdict(vision.config)
    compared = [("stages", before["stages"], now["stages"])]
    size = made.preprocessing["size"]
    compared.append(("size", [size, size] if isinstance(size, int) else size, [*vision.size]))
    if is_published(before) and is_published(now):
        names = [vision["name"].replace("/", "-") for vision in (before, now)]  # ViT-B/32 is taken
        compared += [("name", *names), ("weights", before["pretrained"], now["pretrained"])]
    different = [f"{name} {old} instead of {new}" for name, old, new in compared if old != new]
    return ", ".join(different) or None


def another_encoder(key: str, made: MadeBy, found: VisionConfig, difference: str) -> ValueError:
    """Features and model do not belong together."""
    expected = {name: value for name, value in made.vision.items() if name != "dtype"}
    settings = {name: value for name, value in asdict(found).items() if name != "dtype"}
    return ValueError(
        f"{key} holds patch features of another image encoder than model.vision ({difference}): "
        f"{made.file} names {expected}, model.vision is {settings}. Set model.vision to the "
        "encoder of the features, or encode the shards again with `python -m data_prep.features`."
    )
