"""What the latents are worth: short runs of one recipe that differ in the latents alone.

A variant is nothing but options of ``miniflamingo fit``.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from matplotlib.figure import Figure
from rich.table import Table


class Variant(NamedTuple):
    """A recipe with a change.

    Attributes:
        name: For tables.
        options: Of ``miniflamingo fit``, laid over the recipe.
    """

    name: str
    options: tuple[str, ...] = ()


FROZEN = "--model.resampler.train_latents=false"
CLUSTERS = "--trainer.callbacks+=miniflamingo.latents.start.LatentsFromClusters"
AS_IT_IS = "learned"

VARIANTS = [
    Variant(AS_IT_IS),
    Variant("frozen at random", (FROZEN,)),
    Variant("from k-means, learned", (CLUSTERS,)),
    Variant("from k-means, frozen", (CLUSTERS, FROZEN)),
    Variant("mean of patches", ("--model.resampler.depth=0", "--model.resampler.latents=1")),
    Variant("1 latent", ("--model.resampler.latents=1",)),
    Variant("4 latents", ("--model.resampler.latents=4",)),
    Variant("64 latents", ("--model.resampler.latents=64",)),
    Variant("latents are no keys", ("--model.resampler.read_latents=false",)),
]


class Result(NamedTuple):
    """What came out of one run.

    Attributes:
        variant: Its name.
        seed: Of everything drawn in the run.
        latents: Q.
        trained: Weights that trained.
        words_named: After the warm start, share of a held-out caption's telling words that the
            resampler alone names; NaN without a warm start.
        loss: Of validation, a token.
        loss_swapped: The same with other documents' pictures.
        cider: CIDEr-D of the few-shot task, 0 to 10.
        objects: Share of its captions that name the right objects; NaN if the task has no facts.
        seconds: Of processor time that training took, all threads together, its validation and
            warm start included.
        without_latent: Validation loss without each of the Q latents at test time, on the first
            batch; empty where it was not measured.
        without_none: Loss on the same batch with all.
    """

    variant: str
    seed: int
    latents: int
    trained: int
    words_named: float
    loss: float
    loss_swapped: float
    cider: float
    objects: float
    seconds: float
    without_latent: list[float]
    without_none: float


COLUMNS = {
    "words_named": "words named by the resampler",
    "loss": "validation loss",
    "loss_swapped": "with other pictures",
    "cider": "few-shot CIDEr-D",
    "objects": "objects right",
    "seconds": "CPU seconds",
}


def by_variant(results: Sequence[Result]) -> dict[str, list[Result]]:
    """Results by the name of their variant, in the order of first appearance."""
    groups: dict[str, list[Result]] = {}
    for result in results:
        groups.setdefault(result.variant, []).append(result)
    return groups


def mean_and_spread(values: Sequence[float]) -> str:
    """``0.51 ± 0.03``: mean and standard deviation over seeds, the latter from two on.

    A dash where something was not measured.
    """
    mean = statistics.fmean(values)
    if math.isnan(mean):
        return "-"
    return f"{mean:.3g} ± {statistics.stdev(values):.2g}" if len(values) > 1 else f"{mean:.3g}"


def rows_of(results: Sequence[Result]) -> list[list[str]]:
    """A row of text for each variant: name, runs, trained weights, and each of ``COLUMNS``."""
    return [
        [
            name,
            str(len(runs)),
            f"{runs[0].trained:,}",
            *(mean_and_spread([getattr(run, column) for run in runs]) for column in COLUMNS),
        ]
        for name, runs in by_variant(results).items()
    ]


HEADS = ["variant", "runs", "trained weights", *COLUMNS.values()]


def ablation_table(results: Sequence[Result]) -> Table:
    """One row a variant, for the terminal."""
    table = Table(*HEADS, title="Ablation of the latents, mean ± standard deviation over seeds")
    for row in rows_of(results):
        table.add_row(*row)
    for column in table.columns[1:]:
        column.justify = "right"
    return table


def ablation_markdown(results: Sequence[Result]) -> str:
    """The same table for a page."""
    lines = [HEADS, ["---"] * len(HEADS), *rows_of(results)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def draw_ablation(results: Sequence[Result], file: Path) -> None:
    """A panel for each column: every run a dot, every variant's mean a bar.

    Args:
        results: At least one.
        file: PNG to write.
    """
    shown = {name: title for name, title in COLUMNS.items() if name != "loss_swapped"}
    groups = by_variant(results)
    figure = Figure(figsize=(3.0 + 2.1 * len(shown), 0.9 + 0.34 * len(groups)), dpi=100)
    all_axes = figure.subplots(1, len(shown), sharey=True)
    for axes, (column, title) in zip(all_axes, shown.items(), strict=True):
        for row, runs in enumerate(groups.values()):
            values = [getattr(run, column) for run in runs]
            mean = statistics.fmean(values)
            axes.plot([mean, mean], [row - 0.3, row + 0.3], color="#0969da", lw=3)
            axes.plot(values, [row] * len(values), "o", color="0.3", ms=4, alpha=0.7)
        axes.set_title(title, fontsize=9)
        axes.tick_params(labelsize=8)
        axes.grid(axis="x", color="0.9")
        axes.set_axisbelow(True)
    all_axes[0].set_yticks(range(len(groups)), list(groups))
    all_axes[0].set_ylim(len(groups) - 0.5, -0.5)
    figure.tight_layout()
    figure.savefig(file)
