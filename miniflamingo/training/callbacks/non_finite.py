"""A loss that is not a number: the step is skipped and counted, and too many end the run."""

from __future__ import annotations

import logging
from typing import Any

import lightning as L
import torch
from lightning.pytorch.plugins.precision import MixedPrecision
from torch import Tensor
from torch.distributed.tensor import DTensor

from miniflamingo.batch import Batch
from miniflamingo.errors import UserError

log = logging.getLogger(__name__)


class NonFiniteLoss(UserError):
    """Too many steps in a row gave no finite loss."""


class SkipNonFinite(L.Callback):
    """Leaves a step out whose loss or gradients are not finite on some rank.

    Weights and moments stay as they are; the schedule goes on. All ranks decide alike. With a
    gradient scaler (``16-mixed``) gradients are the scaler's to look at, since it overflows by
    intention; losses are looked at here.
    """

    def __init__(self, most_in_a_row: int = 10) -> None:
        """Say when to stop.

        Args:
            most_in_a_row: How many steps in a row may be skipped; one more ends the run.
        """
        if most_in_a_row < 0:
            raise UserError(
                f"non_finite.most_in_a_row={most_in_a_row} is negative; 0 stops at the first."
            )
        self.most_in_a_row = most_in_a_row
        self.skipped = 0
        self.in_a_row = 0
        self.keys: list[str] = []
        self.losses: list[tuple[Tensor, list[str]]] = []
        self.culprits: list[str] = []

    def state_dict(self) -> dict[str, Any]:
        """Counts so far."""
        return {"skipped": self.skipped, "in_a_row": self.in_a_row}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on counting."""
        self.skipped, self.in_a_row = state_dict["skipped"], state_dict["in_a_row"]

    def on_train_batch_start(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        batch: dict[str, Batch],
        batch_idx: int,
    ) -> None:
        """Note what the next loss is of."""
        self.keys = [f"{source}/{key}" for source, part in batch.items() for key in part.keys]

    def on_before_backward(
        self, trainer: L.Trainer, pl_module: L.LightningModule, loss: Tensor
    ) -> None:
        """Note the loss; it is looked at once a step, for that means to wait for the device."""
        self.losses.append((loss.detach(), self.keys))

    def on_before_optimizer_step(
        self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Drop the gradients of a bad step, so that the optimiser has nothing to do.

        Raises:
            NonFiniteLoss: If there were too many in a row, naming the samples.
        """
        culprits = [key for loss, keys in self.losses if not loss.isfinite() for key in keys]
        self.losses = []
        bad = bool(culprits) or not (has_scaler(trainer) or gradients_finite(optimizer))
        if not trainer.strategy.reduce_boolean_decision(bad, all=False):
            self.in_a_row = 0
            self.culprits = []
            return
        optimizer.zero_grad(set_to_none=True)
        self.skipped += 1
        self.in_a_row += 1
        self.culprits += culprits
        if culprits:
            log.warning(
                "rank %d: step %d is skipped, its loss is not finite; samples: %s",
                trainer.global_rank,
                trainer.global_step + 1,
                ", ".join(culprits),
            )
        pl_module.log("train/non_finite_steps", float(self.skipped), batch_size=1)
        if self.in_a_row > self.most_in_a_row:
            raise NonFiniteLoss(
                f"{self.in_a_row} steps in a row, up to step {trainer.global_step + 1}, gave no "
                f"finite loss or gradients (non_finite.most_in_a_row={self.most_in_a_row}). "
                f"Samples: {', '.join(all_culprits(trainer, self.culprits)) or 'none alone'}. "
                "Look at them, lower model.optim.lr, or go back to an earlier checkpoint."
            )


def has_scaler(trainer: L.Trainer) -> bool:
    """Whether gradients are scaled, and so may overflow by intention."""
    plugin = trainer.precision_plugin
    return isinstance(plugin, MixedPrecision) and plugin.scaler is not None


def gradients_finite(optimizer: torch.optim.Optimizer) -> bool:
    """Whether all gradients that this rank holds are finite; of sharded ones it holds a part."""
    gradients = [
        weight.grad.to_local() if isinstance(weight.grad, DTensor) else weight.grad
        for group in optimizer.param_groups
        for weight in group["params"]
        if weight.grad is not None
    ]
    return not gradients or bool(torch.nn.utils.get_total_norm(gradients).isfinite())


def all_culprits(trainer: L.Trainer, culprits: list[str]) -> list[str]:
    """Join the samples of all ranks, each once."""
    everyone: list[Any] = [culprits]
    if trainer.world_size > 1:
        everyone = [None] * trainer.world_size
        torch.distributed.all_gather_object(everyone, culprits)
    return sorted({key for one in everyone for key in one})
