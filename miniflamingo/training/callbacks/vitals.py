"""Signs of life of what trains: gates, gradient norms by part, how far the latents have come."""

from __future__ import annotations

from typing import Any

import lightning as L
import torch
from torch import Tensor
from torch.nn.utils import get_total_norm

from miniflamingo.model.flamingo import MiniFlamingo
from miniflamingo.model.gather import whole
from miniflamingo.model.parameters import part_of


class Vitals(L.Callback):
    """Logs at the steps at which Lightning logs.

    - ``gate/attention/N``, ``gate/ffw/N``: tanh of the gates of the N-th gated layer, channels
      averaged.
    - ``grad_norm/PART``: before clipping, by the parts of the table of parameters.
    - ``latents/drift``: distance of the latents from where training began, as a part of their norm
      there. A warm start comes before.
    """

    def __init__(self) -> None:
        self.start: Tensor | None = None

    def state_dict(self) -> dict[str, Any]:
        """Where the latents began."""
        return {"start": self.start}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Measure from the beginning of the run, not of its resume."""
        self.start = state_dict["start"]

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Note where the latents begin."""
        latents = model_of(pl_module).resampler.learned_latents
        if self.start is None and latents is not None:
            self.start = whole(latents.detach()).cpu().clone()

    def on_before_optimizer_step(
        self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Log what the next update is made of; every rank takes part where weights are sharded."""
        every = trainer.log_every_n_steps  # type: ignore[attr-defined]
        if not every or (trainer.global_step + 1) % every:  # logged at the end of this step
            return
        model = model_of(pl_module)
        values = gates(model)
        for part, gradients in gradients_by_part(model).items():
            values[f"grad_norm/{part}"] = whole(get_total_norm(gradients))
        if model.resampler.learned_latents is not None and self.start is not None:
            latents = whole(model.resampler.learned_latents.detach()).cpu()
            values["latents/drift"] = (latents - self.start).norm() / self.start.norm()
        pl_module.log_dict(values)


def model_of(module: L.LightningModule) -> MiniFlamingo:
    """The model that a module trains."""
    assert isinstance(module.model, MiniFlamingo)
    return module.model


def gates(model: MiniFlamingo) -> dict[str, Tensor]:
    """Name in the log -> tanh of a gate, channels averaged."""
    values = {}
    for layer, block in enumerate(model.gated_blocks()):
        for name, gate in (("attention", block.attention_gate), ("ffw", block.ffw_gate)):
            if gate is not None:
                values[f"gate/{name}/{layer}"] = whole(gate.detach()).tanh().mean()
    return values


def gradients_by_part(model: MiniFlamingo) -> dict[str, list[Tensor]]:
    """Part of the model, as one word -> gradients of those of its weights that have one."""
    parts: dict[str, list[Tensor]] = {}
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            parts.setdefault(slug(part_of(name)), []).append(parameter.grad)
    return parts


def slug(text: str) -> str:
    """One word of a few: what loggers take in a name.

    >>> slug("rows of <image> and <|endofchunk|>")
    'rows_of_image_and_endofchunk'
    """
    letters = (letter if letter.isalnum() or letter == " " else "" for letter in text)
    return "_".join("".join(letters).split())
