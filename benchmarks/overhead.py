"""What Lightning costs: ``python -m benchmarks.overhead``.

A recipe's own module is trained on the same batches by its trainer, with everything that ``fit``
logs, and by a bare loop: forward, backward, clipping, optimiser, schedule. The two take turns, so
that a slower minute of the machine is nobody's fault.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import statistics
import tempfile
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import lightning as L
import torch
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from rich.console import Console
from torch import nn
from torch.utils.data import DataLoader

from miniflamingo.batch import Batch
from miniflamingo.cli.fit import FlamingoCLI
from miniflamingo.data.datamodule import InterleavedData
from miniflamingo.training.callbacks.non_finite import SkipNonFinite
from miniflamingo.training.callbacks.throughput import Throughput
from miniflamingo.training.callbacks.vitals import Vitals
from miniflamingo.training.module import FlamingoModule
from miniflamingo.training.optim import make_optimizer


class Loaded(FlamingoCLI):
    """Builds module and data of a recipe, and no trainer."""

    def instantiate_classes(self) -> None:
        """Keep what the parser makes."""
        built: Any = self.parser.instantiate_classes(self.config)
        self.model, self.datamodule = built.model, built.data


class Step(NamedTuple):
    """Of one step: seconds on the clock, and of processor time, which other jobs do not add to."""

    clock: float
    processor: float


def now() -> Step:
    """Both clocks."""
    return Step(time.perf_counter(), time.process_time())


def since(start: Step) -> Step:
    """Seconds from an earlier ``now``."""
    end = now()
    return Step(end.clock - start.clock, end.processor - start.processor)


class Timer(L.Callback):
    """Times from the end of one step to the end of the next."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self.last = now()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start."""
        self.last = now()

    def on_train_batch_end(self, *args: Any, **kwargs: Any) -> None:
        """Take a time."""
        self.steps.append(since(self.last))
        self.last = now()


def bare_steps(
    module: FlamingoModule, batches: Sequence[dict[str, Batch]], autocast: torch.dtype | None
) -> list[Step]:
    """Train without Lightning.

    Args:
        module: Its model, optimiser settings and weights of the sources.
        batches: One a step.
        autocast: Precision of the arithmetic, None without.
    """
    model = module.model.train()
    optimizer, schedule = make_optimizer(model, module.optim, 1000)
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    steps = []
    for batch in batches:
        start = now()
        with torch.autocast("cpu", autocast, enabled=autocast is not None):
            losses = [module.source_weights[name] * module.loss(p) for name, p in batch.items()]
            loss = torch.stack(losses).sum()
        loss.backward()
        nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        steps.append(since(start))
    return steps


def trainer_steps(
    module: FlamingoModule, batches: Sequence[dict[str, Batch]], precision: Any, folder: str
) -> list[Step]:
    """Train as ``fit`` does: two loggers, a progress bar, all that is logged and looked after.

    Args:
        module: To train.
        batches: One a step.
        precision: Of the trainer.
        folder: For its logs.
    """
    timer = Timer()
    trainer = L.Trainer(
        accelerator="cpu",
        precision=precision,
        max_steps=len(batches),
        gradient_clip_val=1.0,
        log_every_n_steps=10,
        logger=[TensorBoardLogger(folder, name="", version=""), CSVLogger(folder, name="csv")],
        callbacks=[TQDMProgressBar(refresh_rate=5), Throughput(), Vitals(), SkipNonFinite(), timer],
        enable_checkpointing=False,
        enable_model_summary=False,
    )
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        # A list of dicts would be taken for a collection of loaders.
        loader = DataLoader(batches, batch_size=None, collate_fn=lambda batch: batch)  # type: ignore[arg-type]
        trainer.fit(module, loader)
    return timer.steps


def share(bare: Sequence[float], trained: Sequence[float]) -> float:
    """How much longer the median step of a trainer is: 0.01 for a hundredth."""
    return statistics.median(trained) / statistics.median(bare) - 1


def read(data: InterleavedData, count: int) -> list[dict[str, Batch]]:
    """The first batches of all sources."""
    streams = {name: iter(data.source_loader(name)) for name in data.sources}
    return [{name: next(stream) for name, stream in streams.items()} for _ in range(count)]


def recipe(config: str, options: Sequence[str]) -> tuple[FlamingoModule, InterleavedData, Any]:
    """Build module and data of a recipe, and say its precision."""
    cli = Loaded(
        FlamingoModule,
        InterleavedData,
        run=False,
        args=["--config", config, *options],
        parser_kwargs={"allow_abbrev": False},
        seed_everything_default=0,
    )
    return cli.model, cli.datamodule, cli.config.trainer.precision or "32-true"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser("benchmarks.overhead", description=__doc__)
    parser.add_argument("--config", default="configs/embedded.yaml", help="recipe")
    parser.add_argument("--steps", type=int, default=12, help="steps of a turn (12)")
    parser.add_argument("--turns", type=int, default=3, help="turns of each (3)")
    args, options = parser.parse_known_args()
    module, data, precision = recipe(args.config, options)
    autocast = torch.bfloat16 if precision == "bf16-mixed" else None
    batches = read(data, args.steps)
    bare: list[Step] = []
    trained: list[Step] = []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(args.turns):
            bare += bare_steps(module, batches, autocast)[1:]  # the first wakes up
            trained += trainer_steps(module, batches, precision, folder)[1:]
    console = Console()
    for name, clock in (("clock", 0), ("processor", 1)):
        times = [[step[clock] for step in each] for each in (bare, trained)]
        medians = [1000 * statistics.median(each) for each in times]
        console.print(
            f"{name}: bare loop {medians[0]:.1f} ms a step, trainer {medians[1]:.1f} ms: "
            f"{share(*times):+.2%} ({len(bare)} steps each)"
        )


if __name__ == "__main__":
    main()
