"""Putting gated layers into a frozen language model."""

from __future__ import annotations

import pickle
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.masking_utils import create_causal_mask

from miniflamingo.errors import UserError
from miniflamingo.model.config import XattnConfig
from miniflamingo.model.gated_xattn import FusedDecoderLayer, GatedCrossAttention
from miniflamingo.model.quantisation import quantisation
from miniflamingo.tokens import check_folder

LAYER_PATHS = {
    "cohere": "model.layers",
    "gemma2": "model.layers",
    "gemma3_text": "model.layers",
    "gpt2": "transformer.h",
    "gpt_neox": "gpt_neox.layers",
    "granite": "model.layers",
    "llama": "model.layers",
    "mistral": "model.layers",
    "olmo2": "model.layers",
    "opt": "model.decoder.layers",
    "phi": "model.layers",
    "phi3": "model.layers",
    "qwen2": "model.layers",
    "qwen3": "model.layers",
    "smollm3": "model.layers",
    "stablelm": "model.layers",
}
"""Families whose layers receive unknown keywords, and where their layers stand."""


def check_family(config: PreTrainedConfig) -> None:
    """Refuse a language model that would drop the media keyword on the way to its layers.

    Raises:
        UserError: If the family is not known to pass keywords on.
    """
    if config.model_type not in LAYER_PATHS:
        raise UserError(
            f"language models of the family {config.model_type!r} cannot be used: their layers are "
            "not known to receive the media keyword (gptj, bloom, mpt and falcon drop it in "
            f"silence). Supported families: {', '.join(sorted(LAYER_PATHS))}."
        )


def load_language(name: str, dtype: str | torch.dtype, bits: int | None = None) -> PreTrainedModel:
    """Load a causal language model to be frozen.

    Args:
        name: Folder or hub name.
        dtype: Precision of its weights, ``auto`` for that of the checkpoint.
        bits: Of the weights of its layers' matrices where they are quantised; ``quantisation``.

    Raises:
        UserError: If nothing is there, the family cannot take media, it cannot be quantised, or
            its weight file is a pickle that holds more than weights.
    """
    check_folder(name)
    try:
        config = AutoConfig.from_pretrained(name, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read the configuration of language={name!r}: {error}") from error
    check_family(config)
    options: dict[str, Any] = {}
    if bits is not None:
        compute = (config.dtype or torch.float32) if dtype == "auto" else dtype
        options = {"quantization_config": quantisation(bits, compute), "device_map": {"": "cpu"}}
    try:
        return AutoModelForCausalLM.from_pretrained(
            name, dtype=dtype, trust_remote_code=False, **options
        )
    except pickle.UnpicklingError as error:
        raise UserError(
            f"language={name!r}: its weight file is a pickle that holds more than weights, or is "
            "damaged; it was not loaded, because a pickle can run any code. Give a model with "
            "model.safetensors."
        ) from error


def decoder_layers(language: PreTrainedModel) -> nn.ModuleList:
    """The layers of a language model from the bottom up.

    Raises:
        UserError: If the family is not supported.
    """
    check_family(language.config)
    layers = language.get_submodule(LAYER_PATHS[language.config.model_type])
    assert isinstance(layers, nn.ModuleList)
    return layers


def gated_layers(num_layers: int, config: XattnConfig) -> range:
    """Indices of the layers that get a gated block.

    Raises:
        UserError: If there would be none.
    """
    places = range(config.first, num_layers, config.every)
    if not places:
        raise UserError(
            f"xattn.first={config.first} leaves no layer to put a gated block before: "
            f"the language model has {num_layers} layers, counted from 0."
        )
    return places


def insert_gated_layers(language: PreTrainedModel, config: XattnConfig) -> int:
    """Wrap every n-th layer with a new gated block, in place.

    Args:
        language: Frozen causal language model of a supported family.
        config: Where and how.

    Returns:
        The number of gated layers.
    """
    layers = decoder_layers(language)
    places = gated_layers(len(layers), config)
    for index, place in enumerate(places):
        xattn = GatedCrossAttention(language.config.hidden_size, config)
        layers[place] = FusedDecoderLayer(layers[place], xattn, index)
    return len(places)


def packed_mask(language: PreTrainedModel, embeds: Tensor, position_ids: Tensor) -> Tensor | None:
    """The attention mask of packed rows for a family that does not make it from the positions.

    All supported families do, but for OPT, which keeps them from its mask.

    Args:
        language: Causal language model.
        embeds: (B, L, D) input embeddings.
        position_ids: (B, L) long, 0 where a document starts.

    Returns:
        (B, 1, L, L), or None if the family needs none.

    Raises:
        UserError: If the family's attention kernel takes no mask.
    """
    if language.config.model_type != "opt":
        return None
    kernel = str(language.config._attn_implementation)
    if "flash" in kernel and (position_ids == 0).sum() > len(position_ids):
        raise UserError(
            f"OPT cannot keep packed documents apart with language_attention={kernel!r}; use sdpa."
        )
    return create_causal_mask(
        config=language.config,
        inputs_embeds=embeds,
        attention_mask=None,
        past_key_values=None,
        position_ids=position_ids,
    )


def learned_positions(language: PreTrainedModel) -> int | None:
    """Count the positions that a language model has learned, beyond which it reads nothing.

    Args:
        language: Causal language model.

    Returns:
        The size of its table (GPT-2, OPT); None if it computes positions, as rotary ones are.
    """
    base = language.base_model
    base = getattr(base, "decoder", base)  # OPT's is one further in
    has_table = any(hasattr(base, name) for name in ("wpe", "embed_positions"))
    return int(language.config.max_position_embeddings) if has_table else None


def scale_logits(logits: Tensor, config: PreTrainedConfig) -> Tensor:
    """Apply what some families do to their logits after the head (granite, cohere, gemma2)."""
    if (divisor := getattr(config, "logits_scaling", None)) is not None:
        logits = logits / divisor
    if (factor := getattr(config, "logit_scale", None)) is not None:
        logits = logits * factor
    if (cap := getattr(config, "final_logit_softcapping", None)) is not None:
        logits = torch.tanh(logits / cap) * cap
    return logits
