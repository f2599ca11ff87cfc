"""Two results side by side, and whether their difference is more than chance."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from rich.table import Table

from miniflamingo.bootstrap import Difference, paired_difference
from miniflamingo.errors import UserError
from miniflamingo.evaluation.prediction import Prediction, read_predictions
from miniflamingo.evaluation.report.labels import label, number
from miniflamingo.evaluation.report.tables import with_deviation
from miniflamingo.evaluation.results import PREDICTIONS_FILE, Results, read_results
from miniflamingo.evaluation.summary import Score, cells_of, headline_of
from miniflamingo.terminal import as_markup


class Row(NamedTuple):
    """Two models at one number of shots, on the queries that both were asked.

    Attributes:
        shots: How many.
        queries: That both were asked.
        first: Headline score of the first, over all its queries.
        second: Of the second.
        difference: Second minus first, paired by query.
    """

    shots: int
    queries: int
    first: Score
    second: Score
    difference: Difference


class Comparison(NamedTuple):
    """Two results side by side.

    Attributes:
        first: The one.
        second: The other.
        differing: What their protocols or data differ in; empty if they may be compared.
        rows: By the numbers of shots that both have.
    """

    first: Results
    second: Results
    differing: list[str]
    rows: list[Row]


def differences(first: Results, second: Results) -> list[str]:
    """Name what two results differ in beside the model: metric, protocol field by field, data."""
    found = []
    if first.metric != second.metric:
        found.append(f"metric: {first.metric!r}, {second.metric!r}")
    for name in sorted(first.protocol.keys() | second.protocol.keys()):
        one, other = first.protocol.get(name), second.protocol.get(name)
        if one != other:
            found.append(f"{name}: {one!r}, {other!r}")
    if first.fingerprints.get("data") != second.fingerprints.get("data"):
        found.append("data: other queries or another support set")
    return found


def compare(first: Path, second: Path, anyway: bool = False) -> Comparison:
    """Compare two evaluations by the real pictures' headline score.

    Args:
        first: Folder of one evaluation.
        second: Folder of the other.
        anyway: Compare different protocols or data too, on the queries that both were asked.

    Raises:
        UserError: If a folder holds no result, they share no number of shots or no query, their
            metrics differ, or their protocols or data do and ``anyway`` is not set.
    """
    one, other = read_results(first), read_results(second)
    differing = differences(one, other)
    if one.headline != other.headline:
        raise UserError(
            f"{first} is scored by {one.headline}, {second} by {other.headline}; that cannot be "
            "compared."
        )
    if differing and not anyway:
        raise UserError(
            f"{first} and {second} were not made in the same way:\n  "
            + "\n  ".join(differing)
            + "\nRun one of them again, or add --anyway to compare them all the same."
        )
    cells = [_by_shots(folder) for folder in (first, second)]
    shared = sorted(cells[0].keys() & cells[1].keys())
    rows = []
    for shots in shared:
        sides = [each[shots] for each in cells]
        keys = sorted(set.intersection(*({p.key for p in side[0]} for side in sides)))
        summaries = [results.find("real", shots) for results in (one, other)]
        assert summaries[0] is not None
        assert summaries[1] is not None
        if keys:
            scores = [headline_of([_only(keys, c) for c in side], one.metric) for side in sides]
            difference = paired_difference(scores[0], scores[1], len(keys))
            totals = [each.scores[one.headline] for each in summaries if each is not None]
            rows.append(Row(shots, len(keys), totals[0], totals[1], difference))
    if not rows:
        raise UserError(
            f"{first} ({one.shots} shots) and {second} ({other.shots} shots) have no query at the "
            "same number of shots in common."
        )
    return Comparison(one, other, differing, rows)


def _by_shots(folder: Path) -> dict[int, list[list[Prediction]]]:
    """Shots -> cells (seeds) with real pictures."""
    found: dict[int, list[list[Prediction]]] = defaultdict(list)
    for (condition, shots, _), cell in cells_of(
        read_predictions(folder / PREDICTIONS_FILE)
    ).items():
        if condition == "real":
            found[shots].append(cell)
    return found


def _only(keys: Sequence[str], cell: Sequence[Prediction]) -> list[Prediction]:
    """The predictions of some queries, in their order."""
    by_key = {each.key: each for each in cell}
    return [by_key[key] for key in keys]


def comparison_table(comparison: Comparison) -> Table:
    """The comparison for the terminal."""
    name = comparison.first.headline
    title = f"{label(name)}: A = {comparison.first.model}, B = {comparison.second.model}"
    table = Table(
        "shots", "queries", "A", "B", "B - A", "95% interval", "p", title=as_markup(title)
    )
    for row in comparison.rows:
        found = row.difference
        table.add_row(
            str(row.shots),
            str(row.queries),
            with_deviation(name, row.first),
            with_deviation(name, row.second),
            signed(name, found.mean),
            f"{signed(name, found.low)} to {signed(name, found.high)}",
            f"{found.p:.3f}",
        )
    notes = [
        f"{what} {'; '.join(names)}"
        for what, names in (
            ("Not made in the same way.", comparison.differing),
            ("Other versions:", other_versions(comparison.first, comparison.second)),
        )
        if names
    ]
    if notes:
        table.caption = as_markup(" ".join(notes))
    return table


def other_versions(first: Results, second: Results) -> list[str]:
    """Name the packages whose versions differ; figures may differ by them a little."""
    names = sorted(first.versions.keys() | second.versions.keys())
    pairs = [(name, first.versions.get(name), second.versions.get(name)) for name in names]
    return [f"{name} {one}, {other}" for name, one, other in pairs if one != other]


def signed(name: str, value: float) -> str:
    """A difference with its sign."""
    return ("+" if value >= 0 else "-") + number(name, abs(value))
