"""An exponential moving average of what trains."""

from __future__ import annotations

from typing import Any

import lightning as L
from lightning.pytorch.callbacks import EMAWeightAveraging
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from miniflamingo.errors import UserError
from miniflamingo.model.export import is_own_weight
from miniflamingo.training.sharding import ShardedStrategy


def own_part(module: L.LightningModule) -> Any:
    """A module tree of the own weights alone, under their own names; it shares their storage."""
    root = nn.Module()
    weights: list[tuple[str, Tensor]] = [*module.named_parameters(), *module.named_buffers()]
    for name, weight in weights:
        name = name.replace("_checkpoint_wrapped_module.", "")  # as state dicts name it
        if not is_own_weight(name.removeprefix("model.")):
            continue
        *path, last = name.split(".")
        place = root
        for part in path:
            if not hasattr(place, part):
                place.add_module(part, nn.Module())
            place = place.get_submodule(part)
        if isinstance(weight, nn.Parameter):
            place.register_parameter(last, weight)
        else:
            place.register_buffer(last, weight)
    return root


class OwnWeightsEMA(EMAWeightAveraging):
    """Lightning's callback on the model's own weights: frozen ones are not copied or averaged.

    Validation and the export at the end use the averages; checkpoints hold both.
    """

    def __init__(self, decay: float = 0.999, update_every_n_steps: int = 1) -> None:
        """Describe the average.

        Args:
            decay: Share of the average that stays at an update.
            update_every_n_steps: Optimiser steps from one update to the next.
        """
        super().__init__(decay=decay, update_every_n_steps=update_every_n_steps)

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Copy the own weights.

        Raises:
            UserError: If they are sharded.
        """
        if stage != "fit":
            return
        if isinstance(trainer.strategy, ShardedStrategy):
            raise UserError(
                "OwnWeightsEMA does not average sharded weights; use trainer.strategy=ddp, or "
                "leave it out of trainer.callbacks."
            )
        device = trainer.strategy.root_device
        self._average_model = AveragedModel(
            own_part(pl_module), device, use_buffers=True, **self._kwargs
        )

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Update the averages."""
        super().on_train_batch_end(trainer, own_part(pl_module), outputs, batch, batch_idx)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Update nothing: the steps do."""

    def on_train_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Put the averages in the place of the weights."""
        super().on_train_end(trainer, own_part(pl_module))

    def on_validation_epoch_start(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Validate the averages."""
        super().on_validation_epoch_start(trainer, own_part(pl_module))

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        """Train on with the weights."""
        super().on_validation_epoch_end(trainer, own_part(pl_module))

    def on_load_checkpoint(
        self, trainer: L.Trainer, pl_module: Any, checkpoint: dict[str, Any]
    ) -> None:
        """Load both."""
        super().on_load_checkpoint(trainer, own_part(pl_module), checkpoint)
