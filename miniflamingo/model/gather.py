"""Shares of sharded tensors, and whole ones again; other tensors pass through as they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor


def whole(tensor: Tensor) -> Tensor:
    """A tensor gathered from all ranks, which must all call this; any other as it is."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def share_like(value: Any, like: Tensor) -> Any:
    """This rank's share of a value that has the shape of a sharded tensor; any other as it is.

    Args:
        value: Whole, the same on every rank.
        like: Sharded or not.
    """
    if not isinstance(like, DTensor) or not isinstance(value, Tensor) or value.shape != like.shape:
        return value
    value = value.to(like.device)
    return distribute_tensor(value, like.device_mesh, like.placements, src_data_rank=None)


def whole_state(module: nn.Module) -> dict[str, Tensor]:
    """The module's state dict on the CPU, gathered from all ranks, which must all call this."""
    return {name: whole(value.detach()).cpu() for name, value in module.state_dict().items()}


@torch.no_grad()
def load_whole_state(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Load what ``whole_state`` gave, or a part of it, into a module that may be sharded.

    Args:
        module: Changed in place.
        state: Whole tensors, the same on every rank.
    """
    mine = module.state_dict()
    for name, value in state.items():
        mine[name].copy_(share_like(value, mine[name]))
