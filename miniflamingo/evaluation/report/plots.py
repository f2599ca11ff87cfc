"""What people look at: a curve over shots, a sheet of examples."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib

from miniflamingo.data.images import load_image
from miniflamingo.document import Chunk, Document
from miniflamingo.evaluation.prediction import CONDITIONS, Prediction
from miniflamingo.evaluation.report.labels import LABELS, label
from miniflamingo.evaluation.results import Results
from miniflamingo.evaluation.summary import Score, Summary

matplotlib.use("agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

GREEN, RED, BLUE, GREY, INK = "#1a7f37", "#cf222e", "#0969da", "#6e7781", "#24292f"
SUPPORT_SHOWN = 4
TEXT_WIDTH = 26
ROWS_OF_A_KIND = 2

LINES = {
    "real": ("its own pictures", BLUE, "-"),
    "support_shuffled": ("support pictures shuffled", "#bf8700", "--"),
    "query_swapped": ("query picture swapped", RED, "--"),
    "no_media": ("no pictures", GREY, "--"),
}


def draw_curve(results: Results, file: Path) -> None:
    """The headline score over shots with its 95% intervals, and the shares beside it."""
    shares = _shares(results)
    fig, grid = plt.subplots(
        1,
        2 if shares else 1,
        figsize=(10 if shares else 5.5, 4),
        layout="constrained",
        squeeze=False,
    )
    places = {shots: place for place, shots in enumerate(results.shots)}
    left = grid[0][0]
    for condition, (name, colour, style) in LINES.items():
        found = [each for each in results.summaries if each.condition == condition]
        if found:
            scores = [each.scores[results.headline] for each in found]
            name += f" ({found[0].queries} queries)"
            _line(left, [places[each.shots] for each in found], scores, name, colour, style)
    for place, each in enumerate(_baselines(results)):
        value = each.scores[results.headline].mean
        name = f"{each.condition}, {each.shots} shots"
        left.axhline(value, color=GREY, ls=("-.", ":")[place % 2], lw=1, label=name)
    title = label(results.headline) + (" (0 to 10)" if results.headline == "cider" else "")
    left.set(title=f"{results.task}: {title}, 95% intervals", ylim=(0, None))
    if shares:
        right = grid[0][1]
        found = [each for each in results.summaries if each.condition == "real"]
        for name in shares:
            scores = [each.scores[name] for each in found]
            _line(right, [places[each.shots] for each in found], scores, name, None, "-", 100)
        right.set(title="right, % of queries", ylim=(0, 102))
    for axes in grid[0]:
        axes.set_xticks(list(places.values()), [str(shots) for shots in places])
        axes.set_xlabel("shots")
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(
            frameon=False, fontsize=8, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.16)
        )
    fig.savefig(file, dpi=150)
    plt.close(fig)


def _shares(results: Results) -> list[str]:
    """Scores beside the headline that are shares of the queries; none if exact captions alone."""
    first = next(each for each in results.summaries if each.condition == "real")
    shares = [n for n in first.scores if n not in LABELS and n != results.headline]
    return [] if shares == ["exact"] else shares


def _baselines(results: Results) -> list[Summary]:
    return [each for each in results.summaries if each.condition not in CONDITIONS]


def _line(
    axes: Axes,
    places: list[int],
    scores: list[Score],
    name: str,
    colour: str | None,
    style: str,
    scale: float = 1,
) -> None:
    means = [scale * score.mean for score in scores]
    drawn = axes.plot(places, means, style, marker="o", ms=4, color=colour, label=name)
    if all(score.low is not None and score.high is not None for score in scores):
        low = [scale * (score.low or 0) for score in scores]
        high = [scale * (score.high or 0) for score in scores]
        axes.fill_between(places, low, high, color=drawn[0].get_color(), alpha=0.15, lw=0)


def choose_samples(predictions: Sequence[Prediction]) -> list[tuple[str, Prediction]]:
    """The worst, the median and the best, two each if there are enough.

    Args:
        predictions: Of one cell, with scores filled in.

    Returns:
        (kind, prediction), the worst first; none twice.
    """
    order = sorted(predictions, key=lambda each: (each.score or 0.0, each.key))
    middle = max(0, len(order) // 2 - ROWS_OF_A_KIND // 2)
    chosen: dict[str, tuple[str, Prediction]] = {}
    for kind, start in (("worst", 0), ("best", len(order) - ROWS_OF_A_KIND), ("median", middle)):
        for each in order[max(0, start) : max(0, start) + ROWS_OF_A_KIND]:
            chosen.setdefault(each.key, (kind, each))
    return sorted(chosen.values(), key=lambda pair: order.index(pair[1]))


def draw_samples(
    predictions: Sequence[Prediction],
    prompt_of: Callable[[Prediction], Document],
    shots: int,
    file: Path,
) -> None:
    """A sheet: the support pictures, the query, what the model said, what people said.

    Args:
        predictions: Of a run, with scores filled in; the first seed's with real pictures are shown.
        prompt_of: The document that the model completed for a prediction.
        shots: Those of this number of shots.
        file: To write.
    """
    real = [each for each in predictions if (each.condition, each.shots) == ("real", shots)]
    seed = min(each.seed for each in real)
    samples = choose_samples([each for each in real if each.seed == seed])
    shown = min(shots, SUPPORT_SHOWN)
    fig, grid = plt.subplots(
        len(samples), shown + 2, figsize=(2.1 * (shown + 2), 2.75 * len(samples)), squeeze=False
    )
    for row, (kind, prediction) in zip(grid, samples, strict=True):
        *support, query = prompt_of(prediction).chunks
        for axes, chunk in zip(row, support[len(support) - shown :], strict=False):
            _picture(axes, chunk, chunk.text or "", GREY)
        answer = prediction.answer or "(nothing)"
        _picture(row[shown], query, answer, GREEN if kind == "best" else INK)
        row[0].set_ylabel(kind, fontsize=11)
        _beside(row[shown + 1], prediction, query.text)
    grid[0][shown].set_title("query, and what the\nmodel said", fontsize=9)
    if shown:
        title = f"support pictures ({shots} shots" + (
            f", the last {shown})" if shots > shown else ")"
        )
        grid[0][0].set_title(title, fontsize=9, loc="left")
    fig.tight_layout()
    fig.savefig(file, dpi=110)
    plt.close(fig)


def _fill(text: str) -> str:
    """Break into lines; what no font has (an untrained model writes it) is left out."""
    return textwrap.fill("".join(c if c.isprintable() else " " for c in text.strip()), TEXT_WIDTH)


def _beside(axes: Axes, prediction: Prediction, question: str | None) -> None:
    """Question, what people said and the score, as text."""
    axes.axis("off")
    said = "\n".join(_fill(text) for text in prediction.references[:3])
    more = len(prediction.references) - 3
    lines = [*([_fill(question)] if question else []), f"people said:\n{said}"]
    lines += [f"and {more} more"] if more > 0 else []
    lines += [f"score {prediction.score or 0:.2f}"]
    axes.text(0, 0.5, "\n\n".join(lines), va="center", fontsize=8, color=INK, parse_math=False)


def _picture(axes: Axes, chunk: Chunk, caption: str, colour: str) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    if chunk.frames:
        axes.imshow(load_image(chunk.frames[0]))
    axes.set_xlabel(_fill(caption), fontsize=8, color=colour, parse_math=False)
