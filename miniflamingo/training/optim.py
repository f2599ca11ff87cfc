"""Optimiser and schedule. Source: Flamingo, appendix B.1.1."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, Literal

import lightning as L
import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from miniflamingo.errors import UserError


def planned_steps(trainer: L.Trainer) -> float:
    """Optimiser steps of a whole run, infinite where it has no last one.

    ``Trainer.estimated_stepping_batches`` would start the loaders to find out, and a sharded
    strategy restores only later from where they are to go on. Ours are endless, so it is the
    trainer's limits that count.
    """
    steps: float = math.inf if trainer.max_steps == -1 else trainer.max_steps
    per_epoch = trainer.limit_train_batches
    if trainer.max_epochs not in (None, -1) and isinstance(per_epoch, int):
        per_epoch = math.ceil(per_epoch / trainer.accumulate_grad_batches)
        steps = min(steps, trainer.max_epochs * per_epoch)
    return steps


@dataclass(frozen=True)
class OptimConfig:
    """AdamW with linear warm-up.

    Attributes:
        lr: Peak learning rate.
        resampler_lr: That of the resampler, latents included; None takes ``lr``.
        betas: Of AdamW.
        weight_decay: On matrices alone: none on gates, norms, latents, positions and token rows.
        warmup_steps: Steps from 0 to the peak.
        schedule: After the warm-up: the paper's ``constant``, or ``cosine`` down to
            ``final_fraction`` at the last step.
        final_fraction: Of the peak, at the end of the cosine.
    """

    lr: float = 1e-4
    resampler_lr: float | None = None
    betas: tuple[float, float] = (0.9, 0.98)
    weight_decay: float = 0.1
    warmup_steps: int = 1000
    schedule: Literal["constant", "cosine"] = "constant"
    final_fraction: float = 0.05


TOKEN_ROWS = ("input_rows", "output_rows")


def takes_decay(name: str, parameter: nn.Parameter, exempt: Collection[str]) -> bool:
    """Tell matrices from gates, norms, and those that are rows of their own.

    Args:
        name: Of the parameter in its model.
        parameter: Itself.
        exempt: Last parts of the names of parameters that take none whatever their shape.
    """
    return parameter.ndim > 1 and name.rsplit(".", 1)[-1] not in exempt


def parameter_groups(model: nn.Module, config: OptimConfig) -> list[dict[str, Any]]:
    """Split the trainable parameters by learning rate and weight decay.

    Returns:
        Non-empty AdamW groups, each with a ``name`` for the logs.
    """
    groups: dict[tuple[str, bool], list[nn.Parameter]] = {}
    exempt = {*TOKEN_ROWS, *(n for m in model.modules() for n in getattr(m, "no_decay", ()))}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            part = "resampler" if name.startswith("resampler.") else "language"
            groups.setdefault((part, takes_decay(name, parameter, exempt)), []).append(parameter)
    rates = {"language": config.lr, "resampler": config.resampler_lr or config.lr}
    return [
        {
            "name": f"{part}{'' if decays else '-no-decay'}",
            "params": parameters,
            "lr": rates[part],
            "weight_decay": config.weight_decay if decays else 0.0,
        }
        for (part, decays), parameters in groups.items()
    ]


def rate_factor(step: int, config: OptimConfig, total_steps: float) -> float:
    """Fraction of the peak learning rate at a step, counted from 0."""
    if step < config.warmup_steps:
        return (step + 1) / config.warmup_steps
    if config.schedule == "constant":
        return 1.0
    done = (step - config.warmup_steps) / max(1, total_steps - config.warmup_steps)
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, done)))
    return config.final_fraction + (1 - config.final_fraction) * cosine


def make_optimizer(
    model: nn.Module, config: OptimConfig, total_steps: float, fused: bool = True
) -> tuple[torch.optim.Optimizer, LambdaLR]:
    """AdamW over the trainable parameters, and its schedule by optimiser step.

    Args:
        model: Whose parameters train.
        config: Rates and schedule.
        total_steps: Of the whole run; a constant schedule does not need to know.
        fused: Whether one kernel updates everything, several times faster.

    Raises:
        UserError: If a cosine is asked for without a known last step.
    """
    if config.schedule == "cosine" and not 0 < total_steps < math.inf:
        raise UserError(
            "optim.schedule=cosine needs to know the last step; set trainer.max_steps or use "
            "optim.schedule=constant."
        )
    groups = parameter_groups(model, config)
    optimizer = torch.optim.AdamW(groups, betas=config.betas, fused=fused)
    return optimizer, LambdaLR(optimizer, lambda step: rate_factor(step, config, total_steps))
