"""Tokens and images a second, and how much of the device's arithmetic they use."""

from __future__ import annotations

import time
from typing import Any

import lightning as L
import torch
from lightning.fabric.utilities.throughput import get_available_flops
from torch import Tensor

from miniflamingo.batch import Batch
from miniflamingo.cost.flops import DocumentShape, unit_flops
from miniflamingo.model.flamingo import MiniFlamingo

TYPICAL = DocumentShape(tokens=64, media=1, labels=63)
"""Attention over a text grows with its square; all else is the same for every token."""

ARITHMETIC = {"bf16-mixed": torch.bfloat16, "bf16-true": torch.bfloat16, "16-mixed": torch.float16}
"""``trainer.precision`` -> type of the arithmetic; float32 for all others."""


class Throughput(L.Callback):
    """Logs what this device has read per second since the last log.

    ``train/tokens_per_s`` without padding, ``train/images_per_s``, and ``train/mfu``: the FLOPs
    that the result needs (those of ``describe``) as a part of the device's peak. Validation is left
    out of the time.
    """

    def __init__(self, peak_flops: float | None = None) -> None:
        """Describe the device.

        Args:
            peak_flops: Of one device, per second. None takes Lightning's table of GPUs; a device
                that is not in it, a CPU say, logs no ``train/mfu``.
        """
        self.peak_flops = peak_flops
        self.flops = {"image": 0.0, "token": 0.0, "label": 0.0}
        self.restart(time.perf_counter())

    def restart(self, now: float) -> None:
        """Start counting at nothing."""
        self.images = self.tokens = 0
        self.labels = torch.zeros((), dtype=torch.long)
        self.since = now

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Count FLOPs while the weights are whole, and look the device up."""
        model = pl_module.model
        assert isinstance(model, MiniFlamingo)
        self.flops = unit_flops(model, TYPICAL)
        if self.peak_flops is None:
            dtype = ARITHMETIC.get(str(trainer.precision), torch.float32)
            self.peak_flops = get_available_flops(pl_module.device, dtype)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Start the clock."""
        self.restart(time.perf_counter())

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Leave validation out of the figure."""
        self.restart(time.perf_counter())

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: dict[str, Batch],
        batch_idx: int,
    ) -> None:
        """Count the batch, and log at the steps at which Lightning logs."""
        for part in batch.values():
            self.tokens += part.tokens
            self.images += count_images(part)
            self.labels = self.labels.to(part.labels.device) + part.num_labels
        every = trainer.log_every_n_steps  # type: ignore[attr-defined]
        if every and (batch_idx + 1) % every == 0:
            now = time.perf_counter()
            pl_module.log_dict(self.rates(now - self.since), prog_bar=True)
            self.restart(now)

    def rates(self, seconds: float) -> dict[str, float | Tensor]:
        """What was read in so many seconds, per second."""
        rates: dict[str, float | Tensor] = {
            "train/tokens_per_s": self.tokens / seconds,
            "train/images_per_s": self.images / seconds,
        }
        if self.peak_flops is not None:
            counts = {"image": self.images, "token": self.tokens, "label": int(self.labels)}
            needed = sum(self.flops[unit] * count for unit, count in counts.items())
            rates["train/mfu"] = needed / seconds / self.peak_flops
        return rates


def count_images(batch: Batch) -> int:
    """Frames of all media of a batch."""
    media = batch.media.values
    return media.shape[0] * media.shape[1]
