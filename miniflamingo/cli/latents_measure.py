"""``miniflamingo latents history``, ``clusters`` and ``grounding``: figures of a run or a model."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from lightning.fabric.utilities import move_data_to_device
from rich.console import Console

from miniflamingo import MiniFlamingo, MiniFlamingoProcessor
from miniflamingo.data.documents import read_documents
from miniflamingo.errors import UserError
from miniflamingo.latents import plots
from miniflamingo.latents.attention import perceiver
from miniflamingo.latents.clusters import assignments, cluster_agreement, redrawn
from miniflamingo.latents.curves import (
    all_figures,
    draw_film,
    draw_grounding_curves,
    draw_history,
    history_table,
)
from miniflamingo.latents.grid import patch_grid
from miniflamingo.latents.grounding import grounding, losses_without_each_latent
from miniflamingo.latents.held_out import encode_pictures
from miniflamingo.latents.look import gated_places, pictures_of
from miniflamingo.latents.snapshot import read_history
from miniflamingo.terminal import plain
from miniflamingo.training.logs import read_curves

SHOWN = 6
"""Pictures on a sheet of groups."""


def folder_for(out: Path) -> Path:
    """Make the folder that results go to.

    Raises:
        UserError: If it is a file.
    """
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out} is a file; give a folder to write to.")
    out.mkdir(parents=True, exist_ok=True)
    return out


def say(console: Console, files: list[Path]) -> None:
    """Where everything is."""
    for file in files:
        console.print(plain(f"  {file}"), markup=False, highlight=False, soft_wrap=True)


def run_history(args: argparse.Namespace) -> None:
    """Draw how the latents of a run came about."""
    history = read_history(args.run)
    curves = read_curves(args.run, "grounding/")
    out = folder_for(args.out or args.run / "latents")
    files = [out / "history.png", out / "history.json"]
    draw_history(history, files[0])
    files[1].write_text(json.dumps(all_figures(history)) + "\n")
    if len(history.snapshots[0].maps):
        files.append(out / "film.png")
        draw_film(history, files[-1])
    if curves:
        files.append(out / "grounding.png")
        draw_grounding_curves(curves, files[-1])
    console = Console()
    console.print(history_table(history))
    say(console, files)


def run_clusters(
    args: argparse.Namespace, model: MiniFlamingo, processor: MiniFlamingoProcessor
) -> None:
    """Hold the latents' grouping of patches against k-means."""
    out = folder_for(args.out)
    documents = read_documents(args.data, args.pictures, processor)
    pixels, patches = encode_pictures(model, processor, documents, args.pictures)
    resampler = perceiver(model.resampler).float().cpu()
    found = cluster_agreement(resampler, patches)
    files = [out / "agreement.png", out / "agreement.json"]
    plots.draw_agreement(found, files[0])
    rows = [row._asdict() | {"ari": row.ari._asdict(), "nmi": row.nmi._asdict()} for row in found]
    files[1].write_text(json.dumps({"pictures": len(patches), "agreement": rows}) + "\n")
    grid = patch_grid(patches.shape[2], *pixels.shape[-2:])
    some = patches[:SHOWN]
    frames = torch.stack([pictures_of(each, processor.preprocessing) for each in pixels[:SHOWN]])
    groupings = {
        "trained latents": assignments(resampler, some)[-1],
        "untrained latents": assignments(redrawn(resampler, 0, False), some)[-1],
    }
    files.append(out / "groups.png")
    points = resampler.standardised(some).flatten(1, 2)
    plots.draw_groups(frames, groupings, points, grid, files[-1])
    console = Console()
    console.print(plots.agreement_table(found, len(patches)))
    say(console, files)


def run_grounding(
    args: argparse.Namespace, model: MiniFlamingo, processor: MiniFlamingoProcessor
) -> None:
    """Take the loss with parts of the road closed, and without single latents."""
    out = folder_for(args.out)
    documents = read_documents(args.data, args.documents, processor)
    groups = [documents[start : start + 4] for start in range(0, len(documents), 4)]
    batches = [move_data_to_device(processor.batch(each), model.device) for each in groups]
    parts = [grounding(model, batch) for batch in batches]
    names = [name for name in parts[0] if all(name in part for part in parts)]
    losses = {name: torch.cat([part[name] for part in parts]).cpu() for name in names}
    without = torch.zeros(0)
    if model.resampler.tokens_per_item > 1:
        without = losses_without_each_latent(model, batches).cpu()
    places = gated_places(model)
    files = [out / "grounding.png", out / "grounding.json"]
    plots.draw_grounding(losses, without, places, files[0])
    means = {name: float(values.mean()) for name, values in losses.items()}
    result = {
        "documents": len(documents),
        "tokens": len(losses["real"]),
        "gated_before": places,
        "loss": means,
        "without_latent": without.tolist(),
    }
    files[1].write_text(json.dumps(result) + "\n")
    console = Console()
    console.print(plots.grounding_table(losses, places))
    say(console, files)
