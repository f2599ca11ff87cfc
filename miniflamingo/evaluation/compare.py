"""Two results side by side, and whether their difference is more than chance."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from rich.table import Table

from miniflamingo.evaluation.bootstrap import Difference, paired_difference
from miniflamingo.evaluation.prediction import read_predictions
from miniflamingo.evaluation.report import label, number, with_deviation
from miniflamingo.evaluation.results import PREDICTIONS_FILE, Results, read_results
from miniflamingo.evaluation.summary import Score, cells_of, per_query


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
        ValueError: If a folder holds no result, they share no number of shots or no query, their
            metrics differ, or their protocols or data do and ``anyway`` is not set.
    """
    one, other = read_results(first), read_results(second)
    differing = differences(one, other)
    if one.headline != other.headline:
        raise ValueError(
            f"{first} is scored by {one.headline}, {second} by {other.headline}; that cannot be "
            "compared."
        )
    if differing and not anyway:
        raise ValueError(
            f"{first} and {second} were not made in the same way:\n  "
            + "\n  ".join(differing)
            + "\nRun one of them again, or add --anyway to compare them all the same."
        )
    scores = [_by_shots(folder) for folder in (first, second)]
    shared = sorted(scores[0].keys() & scores[1].keys())
    rows = []
    for shots in shared:
        ours, theirs = scores[0][shots], scores[1][shots]
        keys = sorted(ours.keys() & theirs.keys())
        summaries = [results.find("real", shots) for results in (one, other)]
        assert summaries[0] is not None
        assert summaries[1] is not None
        if keys:
            difference = paired_difference([ours[k] for k in keys], [theirs[k] for k in keys])
            totals = [each.scores[one.headline] for each in summaries if each is not None]
            rows.append(Row(shots, len(keys), totals[0], totals[1], difference))
    if not rows:
        raise ValueError(
            f"{first} ({one.shots} shots) and {second} ({other.shots} shots) have no query at the "
            "same number of shots in common."
        )
    return Comparison(one, other, differing, rows)


def _by_shots(folder: Path) -> dict[int, dict[str, float]]:
    """Shots -> query id -> score with its real pictures, averaged over seeds."""
    cells = cells_of(read_predictions(folder / PREDICTIONS_FILE))
    shots = {shots for condition, shots, _ in cells if condition == "real"}
    return {
        k: per_query([cell for (c, s, _), cell in cells.items() if (c, s) == ("real", k)])["score"]
        for k in shots
    }


def comparison_table(comparison: Comparison) -> Table:
    """The comparison for the terminal."""
    name = comparison.first.headline
    title = f"{label(name)}: A = {comparison.first.model}, B = {comparison.second.model}"
    table = Table("shots", "queries", "A", "B", "B - A", "95% interval", "p", title=title)
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
    if comparison.differing:
        table.caption = "Not made in the same way. " + "; ".join(comparison.differing)
    return table


def signed(name: str, value: float) -> str:
    """A difference with its sign."""
    return ("+" if value >= 0 else "-") + number(name, abs(value))
