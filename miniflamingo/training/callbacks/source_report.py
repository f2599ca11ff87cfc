"""What training reads and drops: in the loggers, and as a table after every epoch of a source."""

from __future__ import annotations

from typing import Any

import lightning as L
from lightning.pytorch.utilities import rank_zero_only
from rich.console import Console

from miniflamingo.data.counts import counts_table
from miniflamingo.data.datamodule import InterleavedData
from miniflamingo.data.state import SourceState


class SourceReport(L.Callback):
    """Logs the counts of every source over the run, of all ranks together.

    Metrics are ``data/SOURCE/read``, ``used``, ``epoch`` and the reasons of drops.
    """

    def __init__(self) -> None:
        self.epochs: dict[str, int] = {}

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Log at the steps at which Lightning logs."""
        every = trainer.log_every_n_steps  # type: ignore[attr-defined]
        if not every or (batch_idx + 1) % every:
            return
        states = gathered_states(trainer)
        for name, state in states.items():
            epoch = state.epoch
            metrics = {f"data/{name}/{what}": float(n) for what, n in state.earlier.items()}
            pl_module.log_dict({**metrics, f"data/{name}/epoch": float(epoch)})
            if epoch > self.epochs.setdefault(name, epoch):
                show({name: state}, f"epoch {epoch} begins")
                self.epochs[name] = epoch

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Show the table of the run."""
        show(gathered_states(trainer), "read in this run")


@rank_zero_only
def show(states: dict[str, SourceState], title: str) -> None:
    """Print a table of counts."""
    table = counts_table({name: state.earlier for name, state in states.items()})
    table.title = title
    Console().print(table)


def gathered_states(trainer: L.Trainer) -> dict[str, SourceState]:
    """States of all ranks put together; all ranks must ask."""
    data = trainer.datamodule  # type: ignore[attr-defined]
    assert isinstance(data, InterleavedData)
    return data.gathered_states()
