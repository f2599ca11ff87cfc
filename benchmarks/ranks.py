"""A training step on 1, 2 and 4 CPU ranks, and what it sends: ``python -m benchmarks.ranks``.

Bytes are those that the loopback device counts, so nothing of the code is asked what it meant to
send. Ranks of one machine share its cores: times say nothing about a cluster, bytes do, and the
processor's seconds of a rank say what sharing costs beside the step itself.
"""

from __future__ import annotations

import argparse
import os
import re
import socket
import statistics
import time
from pathlib import Path
from typing import NamedTuple

import rich.console
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.multiprocessing.spawn import spawn
from torch.nn.parallel import DistributedDataParallel

from benchmarks import measure
from benchmarks.cases import CASES
from benchmarks.compare import to_rich
from benchmarks.ours import Ours
from benchmarks.report import Table, number, to_markdown
from benchmarks.scaling import GRADIENT
from benchmarks.workloads import OPT_125M, VIT_B_32, Shapes
from miniflamingo.model.sharding import shard
from miniflamingo.training.optim import OptimConfig, make_optimizer

CASE = "train/pairs-as-they-come/every-4/fp32"
SMALL = Shapes(
    {
        "hidden_size": 256,
        "word_embed_proj_dim": 256,
        "ffn_dim": 1024,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
    },
    VIT_B_32
    | {
        "embed_dim": 128,
        "vision_cfg": {"image_size": 64, "layers": 2, "width": 128, "patch_size": 16},
    },
    OPT_125M.vocabulary,
    latents=16,
    depth=2,
    heads=4,
)
"""Small, so that four ranks fit on two cores."""


class Measured(NamedTuple):
    """One way of sharing a step.

    Attributes:
        strategy: ``DDP`` or ``FSDP2``.
        ranks: How many.
        seconds: Of a step, the median.
        processor: Seconds that the first rank computed and copied in a step, the median.
        sent: Bytes a step of all ranks together.
        expected: The same on paper, see ``benchmarks.scaling``.
    """

    strategy: str
    ranks: int
    seconds: float
    processor: float
    sent: float
    expected: float


def loopback_bytes() -> int:
    """Bytes that the loopback device has sent since the machine started."""
    lines = Path("/proc/net/dev").read_text()
    found = re.search(r"^ *lo:(?: *\d+){8} *(\d+)", lines, re.MULTILINE)
    assert found is not None
    return int(found[1])


def expected_bytes(strategy: str, ranks: int, trained: int, everything: int) -> float:
    """What all ranks of a step should send together.

    Args:
        strategy: ``DDP`` all-reduces gradients; ``FSDP2`` gathers all weights twice and scatters
            gradients.
        ranks: How many.
        trained: Bytes of gradients.
        everything: Bytes of all weights.
    """
    if strategy == "DDP":
        return 2 * (ranks - 1) * trained
    return (ranks - 1) * (2 * everything + trained)


def free_port() -> int:
    """A port that nothing listens at."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def run_rank(rank: int, strategy: str, ranks: int, port: int, steps: int, out: str) -> None:
    """Train some steps as one of the ranks; the first writes what it saw."""
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=ranks)
    torch.manual_seed(0)
    case = CASES[CASE]
    side = Ours(case, SMALL)
    batch = side.train_batch(measure.documents_of(case, SMALL), case)
    weights = list(side.model.parameters())
    trained = sum(GRADIENT * weight.numel() for weight in weights if weight.requires_grad)
    everything = sum(weight.numel() * weight.element_size() for weight in weights)
    model: nn.Module = side.model
    if strategy == "FSDP2":
        shard(side.model, init_device_mesh("cpu", (ranks,)))
    elif ranks > 1:
        model = DistributedDataParallel(side.model)
    optimizer, _ = make_optimizer(side.model, OptimConfig(), steps)
    times, processor, sent = [], [], []
    for _ in range(1 + steps):
        dist.barrier()
        before, start, busy = loopback_bytes(), time.perf_counter(), time.process_time()
        model(**batch._asdict()).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        processor.append(time.process_time() - busy)
        dist.barrier()
        times.append(time.perf_counter() - start)
        sent.append(loopback_bytes() - before)
    if rank == 0:
        medians = (statistics.median(each[1:]) for each in (times, processor, sent))
        torch.save((*medians, trained, everything), out)
    dist.destroy_process_group()


def measure_ranks(strategy: str, ranks: int, steps: int, folder: Path) -> Measured:
    """Run all ranks and read what the first one saw."""
    out = folder / f"{strategy}-{ranks}.pt"
    spawn(run_rank, (strategy, ranks, free_port(), steps, str(out)), nprocs=ranks)
    seconds, processor, sent, trained, everything = torch.load(out, weights_only=True)
    expected = expected_bytes(strategy, ranks, trained, everything)
    return Measured(strategy, ranks, seconds, processor, sent, expected)


def to_table(measured: list[Measured]) -> Table:
    """For people."""
    rows = [
        (
            f"{each.strategy}, {each.ranks}",
            number(each.seconds),
            number(each.processor),
            number(each.sent / 1e6),
            number(each.expected / 1e6),
        )
        for each in measured
    ]
    heads = (
        "strategy, ranks",
        "step, s",
        "processor of a rank, s",
        "sent by all, MB",
        "on paper, MB",
    )
    return Table(f"A step on CPU ranks, {CASE}", heads, rows)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"))
    chosen = parser.parse_args()
    chosen.out.mkdir(parents=True, exist_ok=True)
    ways = [("DDP", 1), ("DDP", 2), ("DDP", 4), ("FSDP2", 2), ("FSDP2", 4)]
    console, measured = rich.console.Console(), []
    for way in ways:
        measured.append(measure_ranks(*way, chosen.steps, chosen.out))
        console.print(str(measured[-1]))
    table = to_table(measured)
    console.print(to_rich(table) if console.is_terminal else to_markdown(table))


if __name__ == "__main__":
    main()
