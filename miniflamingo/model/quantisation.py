"""A frozen language model whose layers' matrices are kept in 8 or 4 bits.

Embeddings, norms and head keep their precision, and so does all that is new.
"""

from __future__ import annotations

import torch
from torch import nn
from transformers import BitsAndBytesConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D
from transformers.utils.import_utils import is_accelerate_available, is_bitsandbytes_available

from miniflamingo.errors import UserError

BLOCK = 64
"""Weights that share one float32 scale in NF4, bitsandbytes' default."""


def quantisation(bits: int, compute: str | torch.dtype) -> BitsAndBytesConfig:
    """What transformers loads a quantised model by.

    Args:
        bits: 8 for LLM.int8, whose products run in float16 and int8; 4 for NF4, whose weights are
            unpacked for every product.
        compute: Precision of the products with 4 bits.

    Raises:
        UserError: If there is no such kind, or bitsandbytes is not installed.

    Source: arXiv:2208.07339 and arXiv:2305.14314, by bitsandbytes.
    """
    if bits not in (4, 8):
        raise UserError(f"language_bits={bits} is neither 8 nor 4, nor left out.")
    if not (is_bitsandbytes_available() and is_accelerate_available()):
        raise UserError(
            f"language_bits={bits} needs bitsandbytes and accelerate: "
            'pip install "miniflamingo[quantised]".'
        )
    if bits == 8:
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=compute
    )


def saved_bytes(language: PreTrainedModel, bits: int | None) -> int:
    """How much smaller an outlined language model is with its layers' matrices quantised.

    Args:
        language: Not quantised itself, with or without gated layers.
        bits: As ``quantisation`` takes it, or None.
    """
    if bits is None:
        return 0
    saved = 0
    head = language.get_output_embeddings()
    for name, module in language.named_modules():
        if isinstance(module, nn.Linear | Conv1D) and module is not head and ".xattn." not in name:
            weight = module.weight
            scales = len(weight) if bits == 8 else weight.numel() / BLOCK
            saved += weight.nbytes - int(weight.numel() * bits / 8 + 4 * scales)
    return saved
