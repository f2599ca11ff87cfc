"""What people read: tables for the terminal and for Markdown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from rich.table import Table

from miniflamingo.document import Document
from miniflamingo.evaluation.prediction import CONDITIONS, Prediction
from miniflamingo.evaluation.report.labels import label, number
from miniflamingo.evaluation.report.plots import draw_curve, draw_samples
from miniflamingo.evaluation.results import Results
from miniflamingo.evaluation.summary import Score, Summary
from miniflamingo.terminal import as_markup

Rows = list[list[str]]

PICTURES = {
    "real": "its own",
    "support_shuffled": "support pictures in another order",
    "query_swapped": "another query's in the query's place",
    "no_media": "none",
}


def with_deviation(name: str, score: Score) -> str:
    """Mean, and its standard deviation over seeds if there are several."""
    text = number(name, score.mean)
    return text if score.sd is None else f"{text} ± {number(name, score.sd)}"


def with_interval(name: str, score: Score) -> str:
    """Both ends; empty if the score has none."""
    if score.low is None or score.high is None:
        return ""
    return f"{number(name, score.low)} to {number(name, score.high)}"


def real_summaries(results: Results) -> list[Summary]:
    """Those of the real pictures, by shots."""
    return [each for each in results.summaries if each.condition == "real"]


def score_rows(results: Results) -> Rows:
    """Header and rows: one row a score, one column a number of shots."""
    columns = real_summaries(results)
    rows = [["shots", *(str(each.shots) for each in columns)]]
    for name in columns[0].scores:
        scores = [each.scores[name] for each in columns]
        rows.append([label(name), *(with_deviation(name, score) for score in scores)])
        if name == results.headline:
            rows.append(["95% interval", *(with_interval(name, score) for score in scores)])
    return rows


def interval_rows(results: Results) -> Rows:
    """Header and rows: the intervals of all scores that have one."""
    columns = real_summaries(results)
    rows = [["95% interval, shots", *(str(each.shots) for each in columns)]]
    for name in columns[0].scores:
        texts = [with_interval(name, each.scores[name]) for each in columns]
        if all(texts):
            rows.append([label(name), *texts])
    return rows


def looking_rows(results: Results) -> Rows:
    """Header and rows: the headline score by which pictures were shown, and the query loss.

    Real pictures are scored on the same queries as the others. Empty if no others were shown.
    """
    name = results.headline
    columns = [s for s in results.shots if any(others(results, s))]
    rows: Rows = []
    for condition in CONDITIONS if columns else ():
        cells = [results.find(condition, shots) for shots in columns]
        if not any(cells):
            continue
        values = [each and each.scores[name].mean for each in cells]
        if condition == "real":
            values = [next(o.real for o in others(results, s)) for s in columns]
        texts = ["-" if value is None else number(name, value) for value in values]
        rows.append([PICTURES[condition], *texts])
        if any(each and each.loss is not None for each in cells):
            losses = ["-" if e is None or e.loss is None else f"{e.loss:.3f}" for e in cells]
            rows.append([f"{PICTURES[condition]}: query loss", *losses])
    return [[f"{label(name)} by pictures, shots", *map(str, columns)], *rows] if rows else []


def others(results: Results, shots: int) -> list[Summary]:
    """Summaries of other than the real pictures at one number of shots, on the same queries."""
    found = [results.find(condition, shots) for condition in CONDITIONS[1:]]
    return [each for each in found if each is not None and each.real is not None]


def baseline_rows(results: Results) -> Rows:
    """Header and rows: one row a score, one column a baseline. Empty if there are none."""
    found = [each for each in results.summaries if each.condition not in CONDITIONS]
    if not found:
        return []
    rows = [["score", *(f"{each.condition}, {each.shots} shots" for each in found)]]
    for name in found[0].scores:
        rows.append([label(name), *(number(name, each.scores[name].mean) for each in found)])
    return rows


def terminal_tables(results: Results) -> list[Table]:
    """All tables that there are, for the terminal."""
    titles = (f"few-shot {results.task}, {results.model}", "is it looking?", "baselines")
    tables = []
    for rows, title in zip(all_rows(results), titles, strict=True):
        if rows:
            table = Table(*map(as_markup, rows[0]), title=as_markup(title))
            for row in rows[1:]:
                table.add_row(*map(as_markup, row))
            tables.append(table)
    return tables


def all_rows(results: Results) -> tuple[Rows, Rows, Rows]:
    """Scores, what pictures do, baselines."""
    return score_rows(results), looking_rows(results), baseline_rows(results)


def markdown_table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table, the header first."""
    lines = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    return ["| " + " | ".join(cells) + " |" for cells in lines]


def markdown(results: Results, looking_line: str | None) -> str:
    """The whole report in Markdown.

    Args:
        results: Of the run.
        looking_line: One line on what the pictures do; None where only real ones were shown.
    """
    scores, looking, baselines = all_rows(results)
    first = real_summaries(results)[0]
    seeds = f"{len(first.seeds)} seed" + ("s" if len(first.seeds) > 1 else "")
    lines = [
        f"# Few-shot {results.task}",
        "",
        f"Model `{results.model}`, {first.queries} queries, {seeds}. ± is the standard deviation "
        "over seeds; the interval holds 95% of bootstrap resamples of the queries.",
    ]
    if results.headline == "cider":
        lines += ["", "CIDEr-D is on its own scale of 0 to 10; papers print it times 100."]
    lines += ["", *markdown_table(scores), "", *markdown_table(interval_rows(results))]
    if looking_line:
        lines += ["", "## Is it looking?", "", looking_line, "", *markdown_table(looking)]
    if baselines:
        lines += ["", "## Baselines", "", *markdown_table(baselines)]
    lines += ["", "![curve](curve.png)", "", "![samples](samples.png)", "", "## Protocol", ""]
    lines += [f"- {name}: {value}" for name, value in results.protocol.items()]
    lines += ["", f"Protocol `{results.protocol_hash}`; fingerprints and versions:", ""]
    lines += [f"- {name}: `{hash_[:16]}`" for name, hash_ in results.fingerprints.items()]
    lines += [f"- {name} {version}" for name, version in results.versions.items()]
    return "\n".join(lines) + "\n"


def write_report(
    results: Results,
    predictions: Sequence[Prediction],
    prompt_of: Callable[[Prediction], Document],
    looking_line: str | None,
    folder: Path,
) -> list[Path]:
    """Write ``report.md``, ``curve.png`` and ``samples.png``.

    Args:
        results: Of the run.
        predictions: Of the run, with scores filled in.
        prompt_of: The document that the model completed for a prediction.
        looking_line: As for ``markdown``.
        folder: That holds ``results.json``.

    Returns:
        The files.
    """
    report, curve, samples = (folder / f for f in ("report.md", "curve.png", "samples.png"))
    report.write_text(markdown(results, looking_line))
    draw_curve(results, curve)
    draw_samples(predictions, prompt_of, results.shots[-1], samples)
    return [report, curve, samples]
