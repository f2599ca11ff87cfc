"""The exported folder: everything but the frozen weights, which it names and fingerprints.

No pickle is written or read.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from miniflamingo.errors import UserError
from miniflamingo.files import read_json, whole_file, write_whole
from miniflamingo.model.config import MiniFlamingoConfig
from miniflamingo.model.fingerprint import (
    VERSION,
    differing_settings,
    fingerprint,
    fingerprint_like,
)
from miniflamingo.model.gather import whole

log = logging.getLogger(__name__)

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
FROZEN = ("language", "vision")
"""The parts whose weights an export names and fingerprints, but does not hold."""


def is_own_weight(name: str) -> bool:
    """Tell the model's own weights (new, saved, trained) from those of the frozen parts.

    Args:
        name: Key of ``MiniFlamingo.state_dict()``.
    """
    if name.startswith("vision."):
        return False
    return ".xattn." in name if name.startswith("language.") else True


def own_state_dict(model: nn.Module) -> dict[str, Tensor]:
    """Weights of a MiniFlamingo that are its own: everything but the frozen parts."""
    return {name: value for name, value in model.state_dict().items() if is_own_weight(name)}


def frozen_weights(model: nn.Module) -> dict[str, dict[str, Tensor]]:
    """Weights of the frozen language model and image encoder, by part and name."""
    frozen = {n: value for n, value in model.state_dict().items() if not is_own_weight(n)}
    return {
        part: {n: value for n, value in frozen.items() if n.startswith(f"{part}.")}
        for part in FROZEN
    }


def fingerprints(model: nn.Module) -> dict[str, str]:
    """Fingerprints of the frozen language model and image encoder."""
    return {part: fingerprint(weights) for part, weights in frozen_weights(model).items()}


def model_card(config: MiniFlamingoConfig, trained: int) -> str:
    """A short README for the exported folder.

    Args:
        config: Of the model.
        trained: How many values the folder holds.
    """
    vision = config.vision
    return (
        "# A MiniFlamingo\n\n"
        f"Trained weights ({trained:,} values) that let the frozen language model "
        f"`{config.language}` read pictures through the frozen image encoder "
        f"`{vision.name}` ({vision.pretrained or 'weights in that folder'}).\n"
        "The frozen weights are not in this folder: they are loaded from those names, and their "
        "fingerprints are checked. Their licences are their own.\n\n"
        "```python\n"
        "from miniflamingo import MiniFlamingo, MiniFlamingoProcessor\n\n"
        'model = MiniFlamingo.from_pretrained("this/folder")\n'
        'processor = MiniFlamingoProcessor.from_pretrained("this/folder")\n'
        "```\n"
    )


def save(model: PreTrainedModel, folder: str | Path, is_main_process: bool) -> None:
    """Write configuration, own weights and card.

    Args:
        model: A MiniFlamingo.
        folder: Made if missing; its files are replaced.
        is_main_process: Whether this process writes, or takes part in gathering weights alone.
    """
    assert isinstance(model.config, MiniFlamingoConfig)
    weights = {name: whole(t).cpu().contiguous() for name, t in own_state_dict(model).items()}
    if not is_main_process:
        return
    path = Path(folder)
    path.mkdir(parents=True, exist_ok=True)
    if model.config.fingerprints is None:
        model.config.fingerprints = fingerprints(model)
    model.config.save_pretrained(path)
    with whole_file(path / WEIGHTS_FILE) as unfinished:
        save_file(weights, unfinished, metadata={"format": "pt"})
    trained = sum(value.numel() for value in weights.values())
    write_whole(path / "README.md", model_card(model.config, trained))


def read_config(folder: str | Path) -> MiniFlamingoConfig:
    """Read the configuration of an exported folder.

    Raises:
        UserError: If the folder is no export of a MiniFlamingo.
    """
    path = Path(folder)
    missing = [name for name in (CONFIG_FILE, WEIGHTS_FILE) if not (path / name).is_file()]
    if missing:
        raise UserError(
            f"{folder} is not an exported MiniFlamingo: {', '.join(missing)} is missing. "
            "Give the folder that training exported, runs/NAME/model."
        )
    found = read_json(path / CONFIG_FILE).get("model_type")
    if found != MiniFlamingoConfig.model_type:
        raise UserError(
            f"{path / CONFIG_FILE} describes a model of type {found!r}, "
            f"expected {MiniFlamingoConfig.model_type!r}."
        )
    config = MiniFlamingoConfig.from_pretrained(path)
    lacking = [part for part in FROZEN if not (config.fingerprints or {}).get(part)]
    if lacking:
        raise UserError(
            f"{path / CONFIG_FILE} has no fingerprints of the frozen {' and '.join(lacking)} "
            "model, so nothing tells whether they are those that it was trained with. Put the file "
            "there that training exported."
        )
    return config


def check_frozen_parts(
    model: PreTrainedModel, trained_with: MiniFlamingoConfig, folder: str | Path
) -> None:
    """Make sure the frozen parts are the ones that the model was trained with.

    Args:
        model: A MiniFlamingo, built by the names in its configuration.
        trained_with: The configuration as the folder has it.
        folder: For messages.

    Raises:
        UserError: If one is not, by its weights or by how it computes.
    """
    assert isinstance(model.config, MiniFlamingoConfig)
    config, known = model.config, trained_with.fingerprints or {}
    names = {"language": config.language, "vision": config.vision.name}
    for part, weights in frozen_weights(model).items():
        found = fingerprint_like(known[part], weights)
        if found != known[part]:
            raise another_part(
                part, names[part], folder, f"fingerprint {found[:12]}, expected {known[part][:12]}"
            )
    settings = {
        "language": (plain(trained_with.text_config), plain(config.text_config)),
        "vision": (trained_with.vision_tower or {}, config.vision_tower or {}),
    }
    for part, (before, now) in settings.items():
        if differing := differing_settings(before, now):
            raise another_part(part, names[part], folder, "; ".join(differing))
    if not all(known[part].startswith(VERSION) for part in FROZEN):
        log.warning(
            "%s was exported by an older version, whose fingerprints are of a few values of each "
            "weight; save_pretrained writes new ones.",
            folder,
        )
        config.fingerprints = known | fingerprints(model)


def plain(config: Any) -> dict[str, Any]:
    """A language model's configuration as plain values; none for none."""
    if config is None:
        return {}
    return config if isinstance(config, dict) else config.to_dict()


def another_part(part: str, name: str, folder: str | Path, difference: str) -> UserError:
    """The error of a frozen part that is not the one that a model was trained with."""
    return UserError(
        f"the frozen {part} model at {name!r} is not the one that {folder} was trained with "
        f"({difference}). Put the original there, or name its place in "
        f"{Path(folder) / CONFIG_FILE}."
    )


def load_own_weights(model: nn.Module, file: Path) -> None:
    """Load exactly the weights that are the model's own.

    Raises:
        UserError: Listing missing, unexpected and misshapen weights.
    """
    found, expected = load_file(file), own_state_dict(model)
    lines = [f"missing: {name}" for name in sorted(expected.keys() - found.keys())]
    lines += [f"unexpected: {name}" for name in sorted(found.keys() - expected.keys())]
    lines += [
        f"shape of {name}: found {tuple(found[name].shape)}, expected {tuple(expected[name].shape)}"
        for name in sorted(expected.keys() & found.keys())
        if found[name].shape != expected[name].shape
    ]
    if lines:
        raise UserError(f"{file} does not fit its config.json:\n  " + "\n  ".join(lines))
    model.load_state_dict(found, strict=False)
