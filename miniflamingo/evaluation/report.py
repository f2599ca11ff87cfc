"""What people look at: a table, a curve, a sheet of examples."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from rich.table import Table

from miniflamingo.data.images import load_image
from miniflamingo.document import Document
from miniflamingo.evaluation.runner import Prediction
from miniflamingo.evaluation.tasks import prompt

matplotlib.use("agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

Results = Mapping[str, Any]

GREEN, RED, BLUE, GREY = "#1a7f37", "#cf222e", "#0969da", "#6e7781"


def percent_or_score(name: str, value: float) -> str:
    """CIDEr and BLEU as numbers, shares as percentages."""
    return f"{value:.2f}" if "cider" in name or "bleu" in name else f"{100 * value:.1f}%"


def table_rows(results: Results) -> tuple[list[str], list[list[str]]]:
    """Header and rows: one row a metric, one column a number of shots."""
    metrics = results["metrics"]
    names = list(next(iter(metrics.values())))
    header = ["shots", *metrics]
    rows = [[n, *(percent_or_score(n, column[n]) for column in metrics.values())] for n in names]
    return header, rows


def terminal_tables(results: Results) -> list[Table]:
    """The metrics, and the baselines if there are any, as tables for the terminal."""
    header, rows = table_rows(results)
    table = Table(*header, title=f"few-shot {results['task']}, {results['queries']} queries")
    for row in rows:
        if not row[0].startswith("swapped_") or row[0] == "swapped_cider":
            table.add_row(*row)
    if not results.get("baselines"):
        return [table]
    header, rows = baseline_rows(results)
    baselines = Table(*header)
    for row in rows:
        baselines.add_row(*row)
    return [table, baselines]


def baseline_rows(results: Results) -> tuple[list[str], list[list[str]]]:
    """Header and rows: one row a baseline, one column a metric."""
    baselines = results["baselines"]
    names = list(next(iter(baselines.values())))
    rows = [
        [label, *(percent_or_score(name, scores[name]) for name in names)]
        for label, scores in baselines.items()
    ]
    return ["baseline", *names], rows


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return ["| " + " | ".join(cells) + " |" for cells in lines]


def markdown(results: Results) -> str:
    """The whole report in Markdown."""
    lines = [
        f"# Few-shot {results['task']}",
        "",
        f"Model `{results['model']}`, {results['queries']} held-out queries. CIDEr-D is on the "
        "0 to 10 scale. *Swapped* shows another query's picture and keeps the rest of the prompt: "
        "what is left of the score then is not due to the picture.",
        "",
        *markdown_table(*table_rows(results)),
    ]
    if results.get("baselines"):
        lines += ["", *markdown_table(*baseline_rows(results))]
    lines += ["", "![curve](curve.png)", "", "![samples](samples.png)", "", "## Protocol", ""]
    lines += [f"- {name}: {value}" for name, value in results["protocol"].items()]
    return "\n".join(lines) + "\n"


def draw_curve(results: Results, file: Path) -> None:
    """CIDEr-D over shots, real and swapped, and the share of facts right."""
    metrics = results["metrics"]
    shots = [int(k) for k in metrics]
    places = range(len(shots))
    fig, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for name, label, colour in (
        ("cider", "real pictures", BLUE),
        ("swapped_cider", "query picture swapped", RED),
    ):
        values = [metrics[str(k)][name] for k in shots]
        left.plot(places, values, "o-", color=colour, label=label)
    for place, (name, scores) in enumerate((results.get("baselines") or {}).items()):
        left.axhline(scores["cider"], color=GREY, ls=("--", ":")[place % 2], lw=1, label=name)
    left.set(title="captions", ylabel="CIDEr-D (0 to 10)", xlabel="shots", ylim=(0, None))
    left.legend(frameon=False)
    scores = next(iter(metrics.values()))
    for name in scores:
        if name not in ("cider", "bleu4") and not name.startswith("swapped_"):
            values = [100 * metrics[str(k)][name] for k in shots]
            right.plot(places, values, "o-", label=name)
    right.set(title="right in the caption", ylabel="% of queries", xlabel="shots", ylim=(0, 102))
    right.legend(frameon=False)
    for axes in (left, right):
        axes.set_xticks(list(places), [str(k) for k in shots])
        axes.spines[["top", "right"]].set_visible(False)
    fig.savefig(file, dpi=150)
    plt.close(fig)


def draw_samples(
    documents: Sequence[Document],
    predictions: Sequence[Prediction],
    shots: int,
    seed: int,
    file: Path,
    rows: int = 6,
) -> None:
    """A sheet: support pictures with captions, the query, its prediction and truth."""
    texts = {
        (p.condition, p.key): p for p in predictions if p.shots == shots and p.condition == "real"
    }
    shown = documents[:rows]
    columns = min(shots, 4)
    fig, grid = plt.subplots(
        len(shown), columns + 2, figsize=(2.1 * (columns + 2), 2.7 * len(shown)), squeeze=False
    )
    for row, document in zip(grid, shown, strict=True):
        asked = prompt(document, shots, seed)
        for axes, chunk in zip(row, asked.chunks[shots - columns : shots], strict=False):
            _picture(axes, chunk.frames[0], chunk.text or "", GREY)
        prediction = texts["real", document.key]
        right = prediction.prediction == prediction.truth
        query = document.chunks[-1].frames[0]
        _picture(row[columns], query, prediction.prediction, GREEN if right else RED)
        row[columns + 1].axis("off")
        truth = textwrap.fill(prediction.truth, 24)
        row[columns + 1].text(0, 0.5, f"truth:\n{truth}", va="center", fontsize=8)
    grid[0][columns].set_title("query, prediction", fontsize=9)
    if columns:
        grid[0][0].set_title(f"support ({shots} shots, the last {columns})", fontsize=9, loc="left")
    fig.tight_layout()
    fig.savefig(file, dpi=110)
    plt.close(fig)


def _picture(axes: Axes, source: Any, caption: str, colour: str) -> None:
    axes.imshow(load_image(source))
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_xlabel(textwrap.fill(caption, 24), fontsize=8, color=colour)


def write_predictions(predictions: Sequence[Prediction], file: Path) -> None:
    """One JSON object a line."""
    lines = [json.dumps(prediction._asdict()) for prediction in predictions]
    file.write_text("\n".join(lines) + "\n")
