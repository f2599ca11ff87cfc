"""What is kept of the latents at a step of training, as one small file a step.

Shapes: Q latents, W width, D resampler layers, P = F*V patches, G gated layers, F frames, h x w
pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from miniflamingo.errors import UserError

FOLDER = "latents"
"""In a run's folder."""
PICTURE = "picture.safetensors"
STAGES = ("drawn", "training", "end")


@dataclass(frozen=True)
class Snapshot:
    """The latents at one step.

    Attributes:
        step: Optimiser steps done.
        stage: ``drawn``, before a warm start and the first step; ``training``, before the step's
            update; ``end``, after the last.
        latents: (Q, W), half precision.
        gradient_norms: (Q,) of the step, before clipping; NaN where there was no gradient.
        attention_gates: (G,) what multiplies the cross-attention, tanh taken, channels averaged;
            NaN for a layer without a gate.
        ffw_gates: (G,) the same of the feed-forward.
        maps: (D, Q, P) attention over the patches of one fixed picture, heads averaged, half
            precision.
    """

    step: int
    stage: str
    latents: Tensor
    gradient_norms: Tensor
    attention_gates: Tensor
    ffw_gates: Tensor
    maps: Tensor


@dataclass(frozen=True)
class History:
    """All that a run kept.

    Attributes:
        snapshots: In the order of training; at least one.
        frames: (F, h, w, 3) uint8, the fixed picture as the encoder sees it; grey where the run
            read patch features.
        grid: Rows and columns of its patches, a frame.
    """

    snapshots: list[Snapshot]
    frames: Tensor
    grid: tuple[int, int]


def save_snapshot(snapshot: Snapshot, folder: Path) -> None:
    """Write one file; that of the same step and stage is replaced."""
    values = dict(vars(snapshot))
    facts = {name: str(values.pop(name)) for name in ("step", "stage")}
    file = folder / f"step{snapshot.step:08d}_{snapshot.stage}.safetensors"
    save_file({name: value.contiguous() for name, value in values.items()}, file, facts)


def save_picture(frames: Tensor, grid: tuple[int, int], folder: Path) -> None:
    """Write the fixed picture; arguments as in ``History``."""
    tensors = {"frames": frames.contiguous(), "grid": torch.tensor(grid)}
    save_file(tensors, folder / PICTURE)


def read_file(file: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and facts of a file."""
    with safe_open(file, "pt") as opened:
        names: Any = opened.keys()
        return {name: opened.get_tensor(name) for name in names}, opened.metadata() or {}


def read_history(run: Path) -> History:
    """Read what ``LatentsHistory`` wrote.

    Args:
        run: The run's folder, ``runs/NAME``.

    Raises:
        UserError: If the folder is missing or holds no history.
    """
    if not run.is_dir():
        raise UserError(f"there is no run {run}; give the folder of a training run, runs/NAME.")
    files = sorted((run / FOLDER).glob("step*.safetensors"))
    if not files or not (run / FOLDER / PICTURE).is_file():
        raise UserError(
            f"the run {run} kept no history of its latents: {run / FOLDER} holds no snapshots. "
            "Train with the callback miniflamingo.latents.history.LatentsHistory in "
            "trainer.callbacks."
        )
    snapshots = []
    for file in files:
        tensors, facts = read_file(file)
        snapshots.append(Snapshot(int(facts["step"]), facts["stage"], **tensors))
    snapshots.sort(key=lambda each: (each.step, STAGES.index(each.stage)))
    picture, _ = read_file(run / FOLDER / PICTURE)
    rows, columns = picture["grid"].tolist()
    return History(snapshots, picture["frames"], (rows, columns))
