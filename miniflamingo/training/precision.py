"""Is bfloat16 any good on this processor?"""

from __future__ import annotations

import statistics
import time

import torch


def product_time(dtype: torch.dtype, size: int = 512) -> float:
    """Median seconds of a few products of two square matrices on the CPU."""
    matrix = torch.randn(size, size).to(dtype)
    times = []
    for _ in range(4):
        start = time.perf_counter()
        torch.mm(matrix, matrix)
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])  # the first one wakes threads up


def bfloat16_warning(slow: float = 2.0) -> str | None:
    """Measure whether this CPU only emulates bfloat16, and say what to do then.

    Args:
        slow: How many times slower than float32 is worth a word.

    Returns:
        None where bfloat16 is fast enough.
    """
    slowdown = product_time(torch.bfloat16) / product_time(torch.float32)
    if slowdown < slow:
        return None
    return (
        f"this CPU multiplies bfloat16 matrices {slowdown:.0f} times slower than float32 ones. "
        "Train in float32: --trainer.precision 32-true --model.language_dtype float32 "
        "--model.vision.dtype float32"
    )
