"""The exported folder: everything but the frozen weights, which it names and fingerprints.

No pickle is written or read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from miniflamingo.errors import UserError
from miniflamingo.files import read_json, whole_file, write_whole
from miniflamingo.model.config import MiniFlamingoConfig
from miniflamingo.model.gather import whole
from miniflamingo.model.vision import FrozenVision

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
SAMPLED = 256
"""Values of each tensor that enter a fingerprint: enough to tell models apart, fast at any size."""


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


@torch.no_grad()
def fingerprint(weights: Mapping[str, Tensor], beside: str = "") -> str:
    """Hash names, shapes and a sample of the values of a frozen part.

    Values are compared in bfloat16, so that a model loaded in another precision is the same model.

    Args:
        weights: By name.
        beside: Text to hash with them.
    """
    digest = hashlib.sha256(beside.encode())
    for name, tensor in sorted(weights.items()):
        flat = tensor.detach().flatten()
        sample = flat[:: max(1, len(flat) // SAMPLED)].to(torch.bfloat16).float().cpu()
        digest.update(f"{name} {tuple(tensor.shape)}".encode())
        digest.update(sample.numpy().tobytes())
    return digest.hexdigest()


def encoder_fingerprint(vision: FrozenVision) -> str:
    """Fingerprint of all that patch features follow from: weights, stages and preprocessing."""
    settings = {"stages": vision.config.stages, "preprocessing": vision.preprocessing}
    return fingerprint(vision.state_dict(), json.dumps(settings, sort_keys=True))


def fingerprints(model: nn.Module) -> dict[str, str]:
    """Fingerprints of the frozen language model and image encoder."""
    frozen = {n: value for n, value in model.state_dict().items() if not is_own_weight(n)}
    return {
        part: fingerprint({n: value for n, value in frozen.items() if n.startswith(f"{part}.")})
        for part in ("language", "vision")
    }


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
    return MiniFlamingoConfig.from_pretrained(path)


def check_fingerprints(model: PreTrainedModel, folder: str | Path) -> None:
    """Make sure the frozen parts are the ones that the model was trained with.

    Raises:
        UserError: If one is not.
    """
    assert isinstance(model.config, MiniFlamingoConfig)
    config = model.config
    for part, found in fingerprints(model).items():
        expected = (config.fingerprints or {}).get(part)
        if found != expected:
            name = config.language if part == "language" else config.vision.name
            raise UserError(
                f"the frozen {part} model at {name!r} is not the one that {folder} was trained "
                f"with (fingerprint {found[:12]}, expected {str(expected)[:12]}). "
                f"Put the original there, or name its place in {Path(folder) / CONFIG_FILE}."
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
