"""Keeps small snapshots of the latents while a model trains."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path

import lightning as L
import torch
from lightning.fabric.utilities import move_data_to_device
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor, nn

from miniflamingo.batch import PixelMedia
from miniflamingo.errors import UserError
from miniflamingo.latents.attention import on_patches, perceiver, resampler_attention
from miniflamingo.latents.grid import patch_grid
from miniflamingo.latents.held_out import patches_of
from miniflamingo.latents.look import pictures_of
from miniflamingo.latents.snapshot import FOLDER, Snapshot, save_picture, save_snapshot
from miniflamingo.model.flamingo import MiniFlamingo
from miniflamingo.model.gather import whole
from miniflamingo.training.callbacks.warm_start import whole_resampler

log = logging.getLogger(__name__)


def gates_of(gates: Iterable[nn.Parameter | None]) -> Tensor:
    """(G,) tanh of gates, channels averaged; NaN where there is none."""
    means = [
        torch.tensor(float("nan")) if gate is None else whole(gate.detach()).tanh().mean().cpu()
        for gate in gates
    ]
    return torch.stack(means)


def take_snapshot(model: MiniFlamingo, patches: Tensor, step: int, stage: str) -> Snapshot:
    """Look at a model.

    Args:
        model: With gradients, if there are any.
        patches: (1, F, V, E) of the fixed picture.
        step: Optimiser steps done.
        stage: As in ``Snapshot``.
    """
    resampler, blocks = perceiver(whole_resampler(model)), list(model.gated_blocks())
    latents, gradient = resampler.latents.detach(), perceiver(model.resampler).latents.grad
    missing = torch.full((len(latents),), float("nan"))
    norms = missing if gradient is None else whole(gradient).float().norm(dim=-1)
    layers = [on_patches(each[0].mean(0)) for each in resampler_attention(resampler, patches)]
    maps = torch.stack(layers) if layers else torch.zeros(0, len(latents), 0)
    return Snapshot(
        step,
        stage,
        latents.half().cpu(),
        norms.cpu(),
        gates_of(block.attention_gate for block in blocks),
        gates_of(block.ffw_gate for block in blocks),
        maps.half().cpu(),
    )


class LatentsHistory(L.Callback):
    """Writes a snapshot of the latents every so many steps, for ``miniflamingo latents history``.

    They go to ``latents/`` in the run's folder: one as the latents were drawn, one at the first
    step, and so on to the end. A snapshot of 16 latents of width 256 takes 20 KB, one of 64 of
    width 1,536 takes 200 KB and the attention maps. Put it before a warm start in the list, so that
    it sees the latents as drawn. A run that resumes adds to what is there.
    """

    def __init__(self, every: int = 100) -> None:
        """Describe the rhythm.

        Args:
            every: Optimiser steps between snapshots.

        Raises:
            UserError: If it is less than one.
        """
        if every < 1:
            raise UserError(f"LatentsHistory.every is {every}; give a number of steps, 1 or more.")
        self.every = every
        self.patches = torch.empty(0)

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Choose the first validation picture, and look at it with the latents as drawn.

        Raises:
            UserError: If the validation documents hold none.
        """
        model = pl_module.model
        assert isinstance(model, MiniFlamingo)
        if model.resampler.learned_latents is None:
            log.warning(
                "LatentsHistory keeps nothing: resampler.kind=%s has no learned latents.",
                model.config.resampler.kind,
            )
            return
        batches = trainer.datamodule.val_dataloader()  # type: ignore[attr-defined]
        batch = next((each for each in batches if each.num_media), None)
        if batch is None:
            raise UserError(
                "LatentsHistory looks at the first validation picture, but data.validation holds "
                "texts alone. Name shards with pictures there, or leave the callback out."
            )
        batch = move_data_to_device(batch, pl_module.device)
        self.patches = patches_of(model, batch)[:1]
        if trainer.ckpt_path is not None:
            return
        size = model.vision.size
        frames = torch.full((self.patches.shape[1], *size, 3), 128, dtype=torch.uint8)
        if isinstance(batch.media, PixelMedia):
            frames = pictures_of(batch.pixels[0], model.vision.preprocessing)
        self.begin(trainer, frames, patch_grid(self.patches.shape[2], *size))
        self.keep(trainer, pl_module, "drawn")

    @rank_zero_only
    def begin(self, trainer: L.Trainer, frames: Tensor, grid: tuple[int, int]) -> None:
        """Clear what an earlier run in the same folder left, and write the picture."""
        folder = Path(trainer.default_root_dir) / FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        for file in folder.glob("*.safetensors"):
            file.unlink()
        save_picture(frames, grid, folder)

    def keep(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Take a snapshot on every rank, for weights may be sharded, and write it on the first."""
        if not len(self.patches):
            return  # there are no latents to look at
        snapshot = take_snapshot(pl_module.model, self.patches, trainer.global_step, stage)  # type: ignore[arg-type]
        if trainer.is_global_zero:
            save_snapshot(snapshot, Path(trainer.default_root_dir) / FOLDER)

    def on_before_optimizer_step(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        optimizer: torch.optim.Optimizer,
    ) -> None:
        """Keep latents and their gradients, before clipping and update."""
        if trainer.global_step % self.every == 0:
            self.keep(trainer, pl_module, "training")

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Keep where it all led."""
        self.keep(trainer, pl_module, "end")
