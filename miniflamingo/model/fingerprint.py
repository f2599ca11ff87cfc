"""Is it the same frozen model? Hashes of weights, and configurations compared value by value.

A hash of a configuration would change whenever a library adds a setting to it, so configurations
are kept and compared where both sides have a say.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from miniflamingo.model.config import VisionConfig
from miniflamingo.model.vision import FrozenVision, open_clip_settings

VERSION = "v2-"
"""What fingerprints of all values begin with; those of older versions sampled some."""

SAMPLED = 256
"""Values of each tensor that entered a fingerprint of an older version."""

AT_ONCE = 2**24
"""Values that are converted together: 64 MB of float32."""

NOT_ARITHMETIC = {
    "_attn_implementation",
    "_name_or_path",
    "architectures",
    "bos_token_id",
    "dtype",
    "eos_token_id",
    "id2label",
    "label2id",
    "name_or_path",
    "output_attentions",
    "output_hidden_states",
    "pad_token_id",
    "problem_type",
    "quantization_config",
    "return_dict",
    "torch_dtype",
    "transformers_version",
    "use_cache",
}
"""What a language model's configuration says beside how it computes."""


@torch.no_grad()
def fingerprint(weights: Mapping[str, Tensor], beside: str = "") -> str:
    """Hash names, shapes and all values of a frozen part.

    Values are compared in bfloat16, so that a model loaded in another precision is the same model.

    Args:
        weights: By name.
        beside: Text to hash with them.
    """
    digest = hashlib.sha256(beside.encode())
    for name, tensor in sorted(weights.items()):
        digest.update(f"{name} {tuple(tensor.shape)}".encode())
        for part in tensor.detach().flatten().split(AT_ONCE):
            digest.update(part.to(torch.bfloat16).cpu().contiguous().view(torch.uint8).numpy().data)
    return VERSION + digest.hexdigest()


@torch.no_grad()
def sampled_fingerprint(weights: Mapping[str, Tensor], beside: str = "") -> str:
    """As older versions made it: of at least 256 values of each tensor, at equal distances.

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


def fingerprint_like(known: str, weights: Mapping[str, Tensor], beside: str = "") -> str:
    """Hash weights in the way in which a known fingerprint was made, so that they compare."""
    scheme = fingerprint if known.startswith(VERSION) else sampled_fingerprint
    return scheme(weights, beside)


def encoder_fingerprint(vision: FrozenVision, known: str = VERSION) -> str:
    """Fingerprint of all that patch features follow from: weights, stages and preprocessing.

    Args:
        vision: The image encoder.
        known: A fingerprint that it is to be compared with, and made as.
    """
    settings: dict[str, Any] = {
        "stages": vision.config.stages,
        "preprocessing": vision.preprocessing,
    }
    return fingerprint_like(known, vision.state_dict(), json.dumps(settings, sort_keys=True))


def tower_settings(config: VisionConfig) -> dict[str, Any]:
    """The shape and arithmetic of an image tower, as open_clip's own configuration has them.

    Args:
        config: Which open_clip model.

    Returns:
        Empty for a model that open_clip does not describe.
    """
    described = open_clip_settings(config.name)
    names = described.keys() & {"vision_cfg", "quick_gelu", "embed_dim"}
    return {name: described[name] for name in sorted(names)}


def differing_settings(
    before: Mapping[str, Any], now: Mapping[str, Any], within: str = ""
) -> list[str]:
    """Name the settings that two configurations both have, with other values.

    Args:
        before: As it was when the model was trained.
        now: As it is.
        within: Name of the section that these are of, for the message.

    Returns:
        ``NAME: NOW, trained with BEFORE`` for each, in order of name.
    """
    found = []
    for name in sorted(before.keys() & now.keys() - NOT_ARITHMETIC):
        one, other = (json.loads(json.dumps(each[name], default=str)) for each in (before, now))
        if isinstance(one, dict) and isinstance(other, dict):
            found += differing_settings(one, other, f"{within}{name}.")
        elif one != other:
            found.append(f"{within}{name}: {other}, trained with {one}")
    return found
