"""Tokens per second, beside the loss in the progress bar."""

from __future__ import annotations

import time
from typing import Any

import lightning as L


class Throughput(L.Callback):
    """Logs the tokens that this device has read per second since the last log."""

    def __init__(self) -> None:
        self.tokens = 0
        self.since = time.perf_counter()

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock."""
        self.since = time.perf_counter()

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Leave validation out of the figure."""
        self.tokens, self.since = 0, time.perf_counter()

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Count the tokens of the batch, padding left out."""
        self.tokens += sum(part.tokens for part in batch.values())
        every = trainer.log_every_n_steps  # type: ignore[attr-defined]
        if every and (batch_idx + 1) % every == 0:
            now = time.perf_counter()
            pl_module.log("train/tokens_per_s", self.tokens / (now - self.since), prog_bar=True)
            self.tokens, self.since = 0, now
