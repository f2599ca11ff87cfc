"""The processes that share an evaluation, one for each device."""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import timedelta
from typing import NamedTuple, TypeVar

import torch
import torch.distributed as dist

T = TypeVar("T")

LONGEST_WAIT = timedelta(hours=12)
"""A rank waits for the others at the end of each cell. If one dies, torchrun ends them all."""


class Ranks(NamedTuple):
    """This process among those that share the queries.

    Attributes:
        rank: From 0.
        size: How many there are.
    """

    rank: int = 0
    size: int = 1

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """Every ``size``-th item: together the ranks hold each exactly once, none twice."""
        return items[self.rank :: self.size]

    def gather(self, mine: Sequence[T]) -> list[T]:
        """Put the shares of all ranks together again in the order they were given."""
        if self.size == 1:
            return list(mine)
        parts: list[Sequence[T]] = [[]] * self.size
        dist.all_gather_object(parts, mine)
        total = sum(len(part) for part in parts)
        return [parts[place % self.size][place // self.size] for place in range(total)]

    def agree(self, value: T) -> T:
        """Rank 0's value, on every rank."""
        if self.size == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values)
        return values[0]


ALONE = Ranks()


def join() -> Ranks:
    """Join the other processes if ``torchrun`` (or anything that sets its variables) started us.

    Only predictions travel between ranks, as Python objects, so gloo serves for every device.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size > 1 and not dist.is_initialized():
        dist.init_process_group("gloo", timeout=LONGEST_WAIT)
    return Ranks(dist.get_rank(), size) if size > 1 else ALONE


def leave() -> None:
    """Let the other ranks go; what follows, such as the report, is one rank's alone."""
    if dist.is_initialized():
        dist.destroy_process_group()


def device_of_rank() -> torch.device:
    """The GPU of this process, or the CPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
