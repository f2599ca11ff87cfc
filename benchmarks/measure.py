"""One case in one process: build, warm up, repeat, and say so in lines of JSON.

The process prints ``{"ready": ...}`` when it is built, one line for each repetition, and a last
one with its peak memory. With ``--wait`` it waits for a line of input before each repetition, so
that two processes can take turns.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from benchmarks.cases import CASES, Case
from benchmarks.floor import matmul_rate, timed
from benchmarks.workloads import OPT_125M, Document, Shapes, encode

LONG, SHORT = 20, 2
"""New tokens of a generation; the difference gives the time of one token."""

Part = Callable[[], Any]


class Side(Protocol):
    """A model with random weights and what is measured of it."""

    def train_batch(self, documents: list[Document], case: Case) -> Any:
        """Collate documents as this project's data code does."""
        ...

    def train_step(self, batch: Any) -> float:
        """Forward, loss, backward, clipping, optimiser; returns the loss."""
        ...

    def prompt_batch(self, documents: list[Document]) -> Any:
        """Collate prompts as this project's evaluation does."""
        ...

    def generate(self, batch: Any, beams: int, new_tokens: int) -> Tensor:
        """Complete prompts by exactly so many tokens, (B, new)."""
        ...

    def save(self, folder: Path) -> int:
        """Save the model's own weights; returns their bytes on disk."""
        ...

    def flops(self, case: Case, documents: list[Document]) -> dict[str, int]:
        """FLOPs that each part of a repetition needs; empty where it is not known."""
        ...


class Saved:
    """Saves into a folder that is thrown away, and remembers the bytes."""

    def __init__(self, side: Side) -> None:
        self.side = side
        self.bytes: int | None = None

    def __call__(self) -> None:
        """Save once."""
        with tempfile.TemporaryDirectory() as folder:
            self.bytes = self.side.save(Path(folder))


def generation(side: Side, batch: Any, beams: int, new_tokens: int) -> Part:
    """A generation that must have the length asked for."""

    def run() -> None:
        made = side.generate(batch, beams, new_tokens).shape[1]
        if made != new_tokens:
            raise ValueError(f"{made} new tokens instead of {new_tokens}: not the same work")

    return run


def parts_of(side: Side, case: Case, documents: list[Document]) -> dict[str, Part]:
    """What one repetition of a case consists of."""
    if case.kind == "checkpoint":
        return {"save": Saved(side)}
    if case.kind == "generate":
        prompts = side.prompt_batch(documents)
        lengths = {"long": LONG, "short": SHORT}
        return {
            part: generation(side, prompts, case.beams, new_tokens)
            for part, new_tokens in lengths.items()
        }
    batch = side.train_batch(documents, case)
    return {"step": lambda: side.train_step(batch)}


def documents_of(case: Case, shapes: Shapes) -> list[Document]:
    """The encoded documents of a case."""
    return encode(case.documents, shapes.vocabulary, open_query=case.kind == "generate")


def warm_up(side: Side, case: Case, shapes: Shapes) -> None:
    """Run a small case of the same kind, so that gradients and optimiser state exist."""
    documents = encode(((8,),), shapes.vocabulary, open_query=case.kind == "generate")
    if case.kind == "train":
        side.train_step(side.train_batch(documents, case))
    elif case.kind == "generate":
        side.generate(side.prompt_batch(documents), case.beams, SHORT)


def repetition(parts: dict[str, Part], precision: str) -> dict[str, Any]:
    """Run every part once, and measure the machine's rate beside it."""
    return {
        "rate": matmul_rate(precision)._asdict(),
        "parts": {name: timed(part)._asdict() for name, part in parts.items()},
    }


def peak_bytes() -> int:
    """Most memory that this process ever held."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def say(**line: Any) -> None:
    """Print one line of JSON at once."""
    print(json.dumps(line), flush=True)


def arguments() -> argparse.Namespace:
    """Read the command line of a side."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("case", choices=CASES, metavar="CASE", help="a name in benchmarks/cases.py")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3, help="at most so many with --wait")
    parser.add_argument("--wait", action="store_true", help="for a line before each repetition")
    return parser.parse_args()


def run(make_side: Callable[[Case, Shapes], Side], packages: tuple[str, ...]) -> None:
    """Measure the case of the command line.

    Args:
        make_side: Builds the model.
        packages: Whose versions are told.
    """
    chosen = arguments()
    torch.set_num_threads(chosen.threads)
    torch.manual_seed(0)
    case = CASES[chosen.case]
    side = make_side(case, OPT_125M)
    documents = documents_of(case, OPT_125M)
    parts = parts_of(side, case, documents)
    warm_up(side, case, OPT_125M)
    say(
        ready=case.name,
        flops=side.flops(case, documents),
        versions={package: version(package) for package in packages},
        capability=torch.backends.cpu.get_cpu_capability(),
        processors=os.cpu_count(),
    )
    for _ in range(chosen.repeats):
        if chosen.wait and not sys.stdin.readline():
            break
        say(**repetition(parts, case.precision))
    saved = parts.get("save")
    say(
        peak_bytes=peak_bytes(),
        checkpoint_bytes=saved.bytes if isinstance(saved, Saved) else None,
    )
