"""The arithmetic floor: the FLOPs that a result needs at the rate that this machine multiplies.

The rate is that of plain matrix products of the sizes that the models are made of, in the same
precision and process and with the same threads as the case. What is not matrix products
(normalisation, activations, memory traffic, the optimiser) is above the floor by design. Tokens of
a generation are read one by one, which memory limits and not arithmetic: no implementation comes
near the floor there.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F

SIZES = (  # rows, inputs, outputs
    (1024, 768, 3072),  # feed-forward of the language model and the gated blocks
    (1024, 3072, 768),
    (1024, 768, 768),  # attention's projections
    (1280, 768, 1024),  # keys and values of 20 pictures
    (1000, 768, 3072),  # 50 tokens of 20 pictures in the image encoder
)
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


class Timing(NamedTuple):
    """How long something took.

    Attributes:
        seconds: By the wall clock.
        cpu: Of all threads together: what the work costs where other jobs are on the cores.
    """

    seconds: float
    cpu: float


def timed(work: Callable[[], Any]) -> Timing:
    """Do something once by both clocks."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return Timing(time.perf_counter() - wall, time.process_time() - cpu)


@torch.no_grad()
def product_rate(size: tuple[int, int, int], dtype: torch.dtype, repeats: int) -> Timing:
    """FLOPs per second of one linear layer, by both clocks.

    Args:
        size: Rows, inputs, outputs.
        dtype: Of all of them.
        repeats: The median counts.
    """
    rows, inputs, outputs = size
    x, weight = torch.randn(rows, inputs, dtype=dtype), torch.randn(outputs, inputs, dtype=dtype)
    F.linear(x, weight)
    times = [timed(lambda: F.linear(x, weight)) for _ in range(repeats)]
    flops = 2 * rows * inputs * outputs
    return Timing(*(flops / statistics.median(clock) for clock in zip(*times, strict=True)))


def matmul_rate(precision: str, repeats: int = 2) -> Timing:
    """FLOPs per second of matrix products, median over sizes, by both clocks.

    Args:
        precision: ``fp32`` or ``bf16``.
        repeats: Of each size.
    """
    rates = [product_rate(size, DTYPES[precision], repeats) for size in SIZES]
    return Timing(*map(statistics.median, zip(*rates, strict=True)))
