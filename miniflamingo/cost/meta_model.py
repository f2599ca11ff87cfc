"""A model without its weights: all shapes, no memory, from configuration files alone."""

from __future__ import annotations

import copy
from pathlib import Path

import open_clip
import torch
from huggingface_hub import hf_hub_download
from open_clip.factory import parse_model_name
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from miniflamingo.errors import UserError
from miniflamingo.model.config import MiniFlamingoConfig, VisionConfig
from miniflamingo.model.flamingo import MiniFlamingo
from miniflamingo.model.language import check_family
from miniflamingo.model.vision import FrozenVision
from miniflamingo.tokens import check_folder


def read_language_config(name: str) -> PreTrainedConfig:
    """Read the configuration of a language model.

    Args:
        name: Folder or hub name.

    Raises:
        UserError: If nothing is there, or the family cannot take media.
    """
    check_folder(name)
    try:
        config = AutoConfig.from_pretrained(name, trust_remote_code=False)
    except (OSError, ValueError) as error:
        first_line = str(error).splitlines()[0]
        raise UserError(
            f"cannot read the configuration of language={name!r}: {first_line}"
        ) from error
    check_family(config)
    return config


def outline_language(config: PreTrainedConfig, dtype: str) -> PreTrainedModel:
    """Build a language model on the meta device.

    Args:
        config: Of the language model.
        dtype: Of its weights. ``auto`` takes what its configuration says, float32 if it is silent.

    Raises:
        UserError: If torch has no such dtype.
    """
    named = config.dtype or torch.float32 if dtype == "auto" else getattr(torch, dtype, None)
    if not isinstance(named, torch.dtype):
        raise UserError(f"language_dtype={dtype!r} is not auto, float32, bfloat16 or float16.")
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config, dtype=named)


def check_weights(config: VisionConfig) -> None:
    """Make sure that open_clip would find weights for a built-in model, without asking for them.

    Raises:
        UserError: If it would not.
    """
    schema, name = parse_model_name(config.name)
    tags = open_clip.list_pretrained_tags_by_model(name)
    weights = config.pretrained
    if schema is None and weights not in tags and not Path(weights or "").is_file():
        raise UserError(
            f"open_clip has no weights vision.pretrained={weights!r} for "
            f"vision.name={config.name!r}; it has {', '.join(tags) or 'none for that name'}."
        )


def outline_vision(config: VisionConfig) -> FrozenVision:
    """Build an image encoder on the meta device.

    Args:
        config: As ``load_vision`` takes it.

    Raises:
        UserError: If open_clip knows no such model, or no weights for it.
    """
    check_weights(config)
    schema, name = parse_model_name(config.name)
    try:
        if schema == "hf-hub":  # open_clip would fetch the weights along with the configuration
            file = hf_hub_download(name, "open_clip_config.json")
            name = str(Path(file).parent)
        model = open_clip.create_model(
            f"local-dir:{name}" if schema else name,
            load_weights=False,
            pretrained_text=False,
            force_image_size=config.image_size,
            device="meta",
        )
    except (RuntimeError, OSError) as error:
        raise UserError(f"open_clip cannot build vision.name={config.name!r}: {error}") from error
    return FrozenVision(config, model.get_submodule("visual"))


def outline(config: MiniFlamingoConfig, dtype: str = "auto") -> MiniFlamingo:
    """Build a model on the meta device.

    Args:
        config: As ``MiniFlamingo.build`` takes it. The two token ids play no role.
        dtype: Of the frozen language model's weights.

    Raises:
        UserError: If the configuration of a frozen part cannot be found or used.
    """
    language = outline_language(read_language_config(config.language), dtype)
    with torch.device("meta"):
        vision = outline_vision(config.vision)
        config.text_config = copy.deepcopy(language.config)
        return MiniFlamingo(config, language, vision)
