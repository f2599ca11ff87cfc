"""The grounding panel: is it looking, at every validation."""

from __future__ import annotations

from typing import Any

import lightning as L

from miniflamingo.batch import Batch
from miniflamingo.latents.grounding import grounding
from miniflamingo.model.flamingo import MiniFlamingo


class GroundingPanel(L.Callback):
    """Logs the validation loss under each condition of ``grounding`` as ``grounding/NAME``.

    Each rank looks at its own first batches; rank 0's are logged.
    """

    def __init__(self, batches: int = 1, layers: bool = True) -> None:
        """Describe the panel.

        Args:
            batches: How many validation batches to take it from. Each is read three times more,
                and twice for each gated layer.
            layers: Whether to close each gated layer alone too.
        """
        self.batches = batches
        self.layers = layers

    def on_validation_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Take the losses of one of the first batches."""
        if batch_idx >= self.batches or trainer.sanity_checking:
            return
        model = pl_module.model
        assert isinstance(model, MiniFlamingo)
        for name, losses in grounding(model, batch, self.layers).items():
            # Not synced: ranks would wait for one whose share of the validation is shorter.
            pl_module.log(f"grounding/{name}", losses.mean(), batch_size=len(losses))
