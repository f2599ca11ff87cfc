"""How latents came about, drawn from a run's history.

Shapes: S snapshots, Q latents, G gated layers, P = F*V patches.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.table import Table
from torch import Tensor

from miniflamingo.errors import UserError
from miniflamingo.latents.geometry import (
    dead_latents,
    distances,
    effective_rank,
    norms,
    pairwise_cosines,
)
from miniflamingo.latents.pictures import GAP, LINE, MARGIN, blank, on_grid, place, save, write
from miniflamingo.latents.snapshot import History, Snapshot
from miniflamingo.latents.tiles import cluster_tile, heat_tile, in_a_row, scaled
from miniflamingo.training.logs import Curve

FILM_LATENTS, FILM_SNAPSHOTS, FILM_TILE = 8, 11, 76
SPREAD = "least, mean and most"


def figures_of(snapshot: Snapshot, start: Snapshot) -> dict[str, Any]:
    """The figures of one snapshot as plain values.

    Args:
        snapshot: Of any step.
        start: The first of its run.
    """
    latents, first = snapshot.latents.float(), start.latents.float()
    cosines = pairwise_cosines(latents)
    known = bool(snapshot.gradient_norms.isfinite().all())
    return {
        "step": snapshot.step,
        "stage": snapshot.stage,
        "norm": norms(latents).tolist(),
        "gradient_norm": snapshot.gradient_norms.tolist() if known else None,
        "distance": distances(latents, first).tolist(),
        "cosine_mean": float(cosines.mean()) if len(cosines) else None,
        "cosine_max": float(cosines.max()) if len(cosines) else None,
        "effective_rank": effective_rank(latents),
        "dead": int(dead_latents(snapshot.gradient_norms).sum()) if known else None,
        "attention_gates": gates(snapshot.attention_gates),
        "ffw_gates": gates(snapshot.ffw_gates),
    }


def gates(values: Tensor) -> list[float | None]:
    """None for a layer without a gate."""
    return [None if value != value else value for value in values.tolist()]


def history_table(history: History) -> Table:
    """Some snapshots in figures, for the terminal."""
    table = Table(
        "step",
        "",
        "norm",
        "gradient norm",
        "distance from start",
        "mean cosine",
        "effective rank",
        "dead",
        title="The latents over training (means over latents)",
    )
    for snapshot in chosen(history.snapshots, 8):
        row = figures_of(snapshot, history.snapshots[0])
        gradient = row["gradient_norm"]
        table.add_row(
            str(row["step"]),
            row["stage"],
            f"{np.mean(row['norm']):.2f}",
            "-" if gradient is None else f"{np.mean(gradient):.1e}",
            f"{np.mean(row['distance']):.3f}",
            "-" if row["cosine_mean"] is None else f"{row['cosine_mean']:.3f}",
            f"{row['effective_rank']:.2f}",
            "-" if row["dead"] is None else f"{row['dead']} of {len(row['norm'])}",
        )
    for column in table.columns[2:]:
        column.justify = "right"
    return table


def chosen(snapshots: list[Snapshot], most: int) -> list[Snapshot]:
    """The first, the last, and evenly between them in the order of training."""
    places = np.linspace(0, len(snapshots) - 1, min(most, len(snapshots))).round().astype(int)
    return [snapshots[place] for place in dict.fromkeys(places.tolist())]


def draw_band(axes: Axes, steps: list[int], rows: list[list[float]]) -> None:
    """The least, the mean and the most of several values over steps."""
    values = np.array(rows)
    axes.fill_between(steps, values.min(1), values.max(1), color="#0969da", alpha=0.2, lw=0)
    axes.plot(steps, values.mean(1), color="#0969da")


def draw_history(history: History, file: Path) -> None:
    """Eight panels over steps.

    Args:
        history: Of a run.
        file: PNG to write.
    """
    rows = [figures_of(snapshot, history.snapshots[0]) for snapshot in history.snapshots]
    steps = [row["step"] for row in rows]
    trained = [row for row in rows if row["gradient_norm"] is not None]
    count = len(rows[0]["norm"])
    figure = Figure(figsize=(13, 5.6), dpi=100)
    panels = figure.subplots(2, 4).flatten()
    for axes, name, title in (
        (panels[0], "norm", f"norm of the {count} latents"),
        (panels[2], "distance", "distance from the start (its norm = 1)"),
    ):
        draw_band(axes, steps, [row[name] for row in rows])
        axes.set_title(f"{title}\n{SPREAD}", fontsize=9)
    if trained:
        at = [row["step"] for row in trained]
        found = [row["gradient_norm"] for row in trained]
        draw_band(panels[1], at, found)
        if np.max(found) > 0:
            panels[1].set_yscale("log")
        panels[5].plot(at, [row["dead"] for row in trained], color="#0969da")
    panels[1].set_title(f"gradient norm of a latent\n{SPREAD}", fontsize=9)
    panels[5].set_title("dead latents (gradient below 1% of the mean)", fontsize=9)
    panels[5].set_ylim(-0.02 * count, 1.02 * count)
    if count > 1:
        panels[3].plot(steps, [row["cosine_mean"] for row in rows], color="#0969da", label="mean")
        panels[3].plot(steps, [row["cosine_max"] for row in rows], color="#cf222e", label="largest")
        panels[3].legend(fontsize=8, frameon=False)
    panels[3].set_title("cosine of two latents", fontsize=9)
    panels[4].plot(steps, [row["effective_rank"] for row in rows], color="#0969da")
    panels[4].set_title(f"effective rank (at most {count})", fontsize=9)
    panels[4].set_ylim(0, 1.05 * count)
    for axes, name, title in (
        (panels[6], "attention_gates", "tanh of the attention gates"),
        (panels[7], "ffw_gates", "tanh of the feed-forward gates"),
    ):
        values = np.array([row[name] for row in rows], dtype=float)  # (S, G)
        draw_layers(axes, steps, values)
        axes.set_title(f"{title}\nby layer from the bottom (dark)", fontsize=9)
    for axes in panels:
        axes.tick_params(which="both", labelsize=8)
        axes.grid(color="0.92")
        axes.set_xlabel("step", fontsize=8)
        if axes.get_yscale() == "linear":
            axes.ticklabel_format(axis="y", useOffset=False)
    figure.tight_layout()
    figure.savefig(file)


def draw_layers(axes: Axes, steps: list[int], values: Any) -> None:
    """(S, G) values, a line a layer from dark to bright."""
    colours = matplotlib.colormaps["viridis"](np.linspace(0, 0.9, values.shape[1]))
    for layer, colour in enumerate(colours):
        axes.plot(steps, values[:, layer], color=colour, label=str(layer))


def draw_film(history: History, file: Path) -> None:
    """One picture's attention in the last resampler layer, from the start to the end.

    Args:
        history: Of a run whose snapshots hold attention maps.
        file: PNG to write.

    Raises:
        UserError: If they hold none.
    """
    if not len(history.snapshots[0].maps):
        raise UserError(
            "the run's snapshots hold no attention maps, so there is no film to draw: its "
            "resampler has no layers."
        )
    shown = chosen(history.snapshots, FILM_SNAPSHOTS)
    count = shown[0].maps.shape[1]
    latents = np.linspace(0, count - 1, min(FILM_LATENTS, count)).round().astype(int).tolist()
    picture = scaled(in_a_row(history.frames.numpy()), FILM_TILE)
    tile_width = picture.shape[1]
    step_x, step_y = tile_width + 4, FILM_TILE + 4
    left, top = MARGIN + tile_width + GAP, MARGIN + 4 * LINE
    width = max(left + len(shown) * step_x + MARGIN, 640)
    axes = blank(width, top + LINE + (1 + len(latents)) * step_y + GAP + MARGIN)
    write(axes, "One picture's attention over training, last resampler layer", MARGIN, MARGIN, 12)
    legend = "Top: patches by the latent that weighs them most. Below: single latents, dark 0."
    write(axes, legend, MARGIN, MARGIN + 1.4 * LINE, color="0.3")
    place(axes, picture, MARGIN, top + LINE)
    for row, latent in enumerate(latents):
        write(axes, f"latent {latent}", MARGIN, top + LINE + (row + 1.4) * step_y + GAP)
    for column, snapshot in enumerate(shown):
        x = left + column * step_x
        title = "as drawn" if snapshot.stage == "drawn" else f"step {snapshot.step}"
        write(axes, title, x, top, weight="bold")
        maps = snapshot.maps[-1].float()  # (Q, P)
        assignment = on_grid(maps.argmax(0), history.grid).astype(int)
        place(axes, cluster_tile(picture, assignment, count), x, top + LINE)
        for row, latent in enumerate(latents):
            tile = heat_tile(picture, on_grid(maps[latent], history.grid))
            place(axes, tile, x, top + LINE + (row + 1) * step_y + GAP)
    save(axes, file)


def draw_grounding_curves(curves: Mapping[str, Curve], file: Path) -> None:
    """The grounding panel over training: all layers closed, then one at a time.

    Args:
        curves: As ``read_curves(run, "grounding/")`` gives them.
        file: PNG to write.
    """
    figure = Figure(figsize=(12, 3.6), dpi=100)
    panels = figure.subplots(1, 3, sharex=True)
    whole = {
        "real": "real pictures",
        "swapped": "other documents' pictures",
        "attention_closed": "attention closed, feed-forward open",
        "both_closed": "both closed",
    }
    for name, label in whole.items():
        if curve := curves.get(f"grounding/{name}"):
            panels[0].plot(*zip(*curve, strict=True), marker=".", label=label)
    panels[0].set_title("validation loss", fontsize=9)
    panels[0].legend(fontsize=7, frameon=False)
    real = dict(curves.get("grounding/real", []))
    for axes, kind, title in (
        (panels[1], "attention_closed", "loss added by closing one layer's attention"),
        (panels[2], "both_closed", "the same with its feed-forward"),
    ):
        prefix = f"grounding/{kind}/"
        layers = sorted((n for n in curves if n.startswith(prefix)), key=lambda n: (len(n), n))
        colours = matplotlib.colormaps["viridis"](np.linspace(0, 0.9, max(1, len(layers))))
        for name, colour in zip(layers, colours, strict=True):
            added = [(step, value - real[step]) for step, value in curves[name] if step in real]
            label = f"gated layer {name.removeprefix(prefix)}"
            axes.plot(*zip(*added, strict=True), marker=".", color=colour, label=label)
        axes.set_title(title, fontsize=9)
        if layers:
            axes.legend(fontsize=7, frameon=False)
    for axes in panels:
        axes.tick_params(labelsize=8)
        axes.grid(color="0.92")
        axes.set_xlabel("step", fontsize=8)
    figure.tight_layout()
    figure.savefig(file)


def all_figures(history: History) -> list[dict[str, Any]]:
    """The figures of every snapshot, for scripts."""
    return [figures_of(snapshot, history.snapshots[0]) for snapshot in history.snapshots]
