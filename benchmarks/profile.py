"""Where the time of one training step or one decoding step goes: ``python -m benchmarks.profile``.

Operators are sorted by kind; beside the matrix products stands what the arithmetic needs at the
rate that this machine reaches in large products, and beside a decoding step what it takes to read
all weights from memory once.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import Counter
from collections.abc import Callable

import rich.console
import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks import measure
from benchmarks.cases import CASES, Precision
from benchmarks.compare import to_rich
from benchmarks.floor import matmul_rate
from benchmarks.ours import Ours
from benchmarks.report import Table, number
from benchmarks.workloads import OPT_125M

TRAIN = "train/interleaved/every-1/"
DECODE = "generate/32-shots/beam-1/batch-1/every-1/"
"""Cases without their precision."""

KINDS = {
    "matrix products": ("mm", "addmm", "bmm", "mv", "addmv", "mkldnn_convolution"),
    "attention": ("_scaled_dot_product",),
    "activations": ("gelu", "clamp_min", "threshold_backward", "relu", "square"),
    "layer norms": ("native_layer_norm",),
    "loss": ("_log_softmax", "nll_loss"),
    "optimiser and clipping": ("_fused_adamw_", "linalg_vector_norm", "_foreach"),
    "copies, gathers, caches": ("copy_", "cat", "index", "fill_", "gather", "clone", "_to_copy"),
}
"""Kind -> how the names of its operators begin."""


def kind_of(operator: str) -> str:
    """Sort an operator as the profiler names it."""
    name = operator.removeprefix("aten::")
    for kind, beginnings in KINDS.items():
        exact = kind == "matrix products"
        if name in beginnings if exact else name.startswith(beginnings):
            return kind
    return "everything else"


def seconds_by_kind(run: Callable[[], object]) -> Counter[str]:
    """Self time of all operators of a call, by kind."""
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        run()
    seconds: Counter[str] = Counter()
    for event in profiler.key_averages():
        seconds[kind_of(event.key)] += event.self_cpu_time_total / 1e6
    return seconds


def bandwidth(size: int = 2**26) -> float:
    """Bytes per second at which weights are read: a matrix times a vector."""
    matrix, vector = torch.randn(size // 4096, 4096), torch.randn(4096)
    times = []
    for _ in range(5):
        start = time.perf_counter()
        torch.mv(matrix, vector)
        times.append(time.perf_counter() - start)
    return 4 * size / statistics.median(times)


def train_table(precision: Precision) -> Table:
    """One training step."""
    case = CASES[TRAIN + precision]
    side = Ours(case, OPT_125M)
    documents = measure.documents_of(case, OPT_125M)
    batch = side.train_batch(documents, case)
    side.train_step(batch)
    floor = side.flops(case, documents)["step"] / matmul_rate(precision).seconds
    seconds = seconds_by_kind(lambda: side.train_step(batch))
    return to_table(f"Training step, {case.name}", seconds, floor)


def decode_table(precision: Precision, steps: int = 18) -> Table:
    """One decoding step: the difference of a long and a short generation, a token."""
    case = CASES[DECODE + precision]
    side = Ours(case, OPT_125M)
    batch = side.prompt_batch(measure.documents_of(case, OPT_125M))
    side.generate(batch, 1, 2)
    long = seconds_by_kind(lambda: side.generate(batch, 1, 2 + steps))
    long.subtract(seconds_by_kind(lambda: side.generate(batch, 1, 2)))
    a_token = Counter({kind: value / steps for kind, value in long.items()})
    # Every weight that a token passes is read once; embeddings and keys of media are not.
    model = side.model
    read = [
        parameter.numel() * parameter.element_size()
        for name, parameter in model.named_parameters()
        if name.startswith("language.") and "embed_positions" not in name
    ]
    return to_table(f"Decoding step, {case.name}", a_token, sum(read) / bandwidth())


def to_table(title: str, seconds: Counter[str], floor: float) -> Table:
    """Kinds by their time, the floor beside the matrix products that it is about."""
    total = sum(seconds.values())
    rows = [
        (
            kind,
            number(value * 1e3),
            f"{value / total:.1%}",
            number(floor * 1e3 if kind == "matrix products" else None),
        )
        for kind, value in seconds.most_common()
    ]
    rows.append(("all", number(total * 1e3), "100%", number(floor * 1e3)))
    return Table(title, ("kind", "time, ms", "share", "floor, ms"), rows)


def main() -> None:
    """Profile and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    torch.manual_seed(0)
    for table in (train_table(chosen.precision), decode_table(chosen.precision)):
        rich.console.Console().print(to_rich(table))


if __name__ == "__main__":
    main()
