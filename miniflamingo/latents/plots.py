"""Plots and tables of what was measured on a trained model's latents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from rich.table import Table
from torch import Tensor

from miniflamingo.latents.clusters import Agreement, Mean, kmeans_groups, mean_and_interval
from miniflamingo.latents.pictures import GAP, LINE, MARGIN, blank, place, save, write
from miniflamingo.latents.tiles import cluster_tile, in_a_row, scaled

BLUE, GREY, RED = "#0969da", "#8c959f", "#cf222e"
TILE = 120


def interval(mean: Mean) -> str:
    """``0.41 (0.39 to 0.43)``."""
    return f"{mean.value:.3f} ({mean.low:.3f} to {mean.high:.3f})"


def agreement_table(found: Sequence[Agreement], pictures: int) -> Table:
    """One row for each condition and layer."""
    table = Table(
        "grouping",
        "layer",
        "ARI",
        "NMI",
        "groups",
        title=f"Agreement with k-means of the same patches, {pictures} pictures, 95% intervals",
    )
    for row in found:
        cells = (str(row.layer + 1), interval(row.ari), interval(row.nmi), f"{row.groups:.1f}")
        table.add_row(row.condition, *cells)
    for column in table.columns[1:]:
        column.justify = "right"
    return table


def draw_agreement(found: Sequence[Agreement], file: Path) -> None:
    """Both measures with their intervals, a row for each condition and layer.

    Args:
        found: As ``cluster_agreement`` gives it.
        file: PNG to write.
    """
    figure = Figure(figsize=(8.5, 1.2 + 0.3 * len(found)), dpi=100)
    panels = figure.subplots(1, 2, sharey=True)
    names = [f"{row.condition}, layer {row.layer + 1}" for row in found]
    for axes, name, title in (
        (panels[0], "ari", "adjusted Rand index"),
        (panels[1], "nmi", "normalised mutual information"),
    ):
        for place_, row in enumerate(found):
            mean: Mean = getattr(row, name)
            colour = BLUE if row.condition == "trained" else GREY
            axes.plot([mean.low, mean.high], [place_, place_], color=colour, lw=3)
            axes.plot([mean.value], [place_], "o", color=colour)
        axes.axvline(0, color="0.8", lw=1, zorder=0)
        axes.set_title(title, fontsize=9)
        axes.tick_params(labelsize=8)
        axes.grid(axis="x", color="0.92")
    panels[0].set_yticks(range(len(found)), names)
    panels[0].invert_yaxis()
    figure.tight_layout()
    figure.savefig(file)


def draw_groups(
    pictures: Tensor,
    groupings: Mapping[str, Tensor],
    patches: Tensor,
    grid: tuple[int, int],
    file: Path,
) -> None:
    """Some pictures, their patches by latent under each condition, and by k-means.

    Args:
        pictures: (N, F, h, w, 3) uint8, a few.
        groupings: Condition -> (N, P), the first of them being what k-means makes as many groups
            as.
        patches: (N, P, E) that k-means groups.
        grid: Rows and columns of a frame's patches.
        file: PNG to write.
    """
    small = [scaled(in_a_row(frames.numpy()), TILE) for frames in pictures]
    step_x, step_y = small[0].shape[1] + GAP, TILE + GAP
    left, top = MARGIN + 110, MARGIN + 2 * LINE
    rows = 2 + len(groupings)
    axes = blank(left + len(small) * step_x + MARGIN, top + rows * step_y + MARGIN)
    write(axes, "Patches by the latent that weighs them most, and by k-means", MARGIN, MARGIN, 12)
    names = ["picture", *groupings, "k-means"]
    for row, name in enumerate(names):
        write(axes, name, MARGIN, top + row * step_y + TILE / 2 - 8)
    first = next(iter(groupings.values()))
    for column, (picture, points) in enumerate(zip(small, patches, strict=True)):
        x = left + column * step_x
        place(axes, picture, x, top)
        theirs = kmeans_groups(points, max(2, len(first[column].unique())))
        groups = [*(each[column].numpy() for each in groupings.values()), theirs]
        for row, numbers in enumerate(groups, 1):
            # Numbered by first appearance, so that colours say how patches hang together.
            _, at, inverse = np.unique(numbers, return_index=True, return_inverse=True)
            ranks = at.argsort().argsort()[inverse]
            tile = in_a_row(ranks.reshape(-1, *grid))
            place(axes, cluster_tile(picture, tile, len(at)), x, top + row * step_y)
    save(axes, file)


LABELS = {
    "real": "real pictures",
    "swapped": "other documents' pictures",
    "attention_closed": "attention closed, feed-forward open",
    "both_closed": "both closed",
}


def label_of(condition: str, places: Sequence[int]) -> str:
    """A condition for people, its layer named by the language model's layer behind it."""
    name, _, layer = condition.partition("/")
    return f"{LABELS[name]}, before layer {places[int(layer)]}" if layer else LABELS[name]


def grounding_table(losses: Mapping[str, Tensor], places: Sequence[int]) -> Table:
    """Each condition's loss, and what it adds to that with real pictures.

    Args:
        losses: Condition -> (M,) losses of tokens, as ``grounding`` gives them.
        places: The language model's layer behind each gated block.
    """
    table = Table("condition", "loss", "added (95% interval over tokens)", title="Is it looking?")
    for name, values in losses.items():
        added = mean_and_interval((values - losses["real"]).double().numpy())
        shown = "" if name == "real" else interval(added)
        table.add_row(label_of(name, places), f"{values.mean():.3f}", shown)
    for column in table.columns[1:]:
        column.justify = "right"
    return table


def draw_grounding(
    losses: Mapping[str, Tensor], without: Tensor, places: Sequence[int], file: Path
) -> None:
    """Bars: what each condition adds to the loss, and what leaving out each latent adds.

    Args:
        losses: Condition -> (M,) losses of tokens.
        without: (Q,) mean loss without each latent; (0,) if there is but one.
        places: The language model's layer behind each gated block.
        file: PNG to write.
    """
    real = float(losses["real"].mean())
    shown = {name: values for name, values in losses.items() if name != "real"}
    figure = Figure(figsize=(12, max(3.2, 0.9 + 0.27 * len(shown))), dpi=100)
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    values = [float(each.mean()) - real for each in shown.values()]
    colours = [RED if "/" not in name else BLUE for name in shown]
    left.barh(range(len(shown)), values, color=colours)
    left.set_yticks(range(len(shown)), [label_of(name, places) for name in shown])
    left.invert_yaxis()
    left.set_title(f"loss added to the {real:.3f} with real pictures", fontsize=9)
    right.bar(range(len(without)), (without - real).tolist(), color=BLUE)
    right.set_title("loss added by leaving out one latent", fontsize=9)
    right.set_xlabel("latent", fontsize=8)
    for axes in (left, right):
        axes.tick_params(labelsize=8)
        axes.grid(color="0.92")
        axes.set_axisbelow(True)
    figure.tight_layout()
    figure.savefig(file)
