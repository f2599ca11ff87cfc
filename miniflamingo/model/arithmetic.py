"""What layers cost: plain counts that a layer's own file can give."""

from __future__ import annotations

from torch import nn
from transformers.pytorch_utils import Conv1D


def matrix_size(module: nn.Module, without: tuple[type[nn.Module], ...] = ()) -> int:
    """Multiply-adds of all linear layers in a module for one row of input.

    Args:
        module: Each of its linear layers is used once for each row.
        without: Types whose insides are left out.
    """
    if isinstance(module, without):
        return 0
    if isinstance(module, nn.Linear | Conv1D):  # GPT-2's Conv1D is a linear layer
        return module.weight.numel()
    return sum(matrix_size(child, without) for child in module.children())


def attention_flops(pairs: int, width: int) -> int:
    """Scores and weighted sums of attention.

    Args:
        pairs: How many (query, key) pairs are read.
        width: H*K, of all heads together.
    """
    return 2 * 2 * pairs * width
