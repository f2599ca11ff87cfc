"""Is it looking? What is left of loss and score with other pictures, or none."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from miniflamingo.evaluation.example import Example
from miniflamingo.evaluation.prediction import CONDITIONS
from miniflamingo.evaluation.runner import Cell
from miniflamingo.evaluation.summary import Summary

DUE_TO = {
    "no_media": "pictures",
    "query_swapped": "the query's own",
    "support_shuffled": "those of its support",
}
"""What a condition takes away."""


def looking_cells(shots: Sequence[int], seed: int, queries: Collection[Example]) -> list[Cell]:
    """The cells to run beside the real ones; none if no query has another to swap with.

    Without shots there are no support pictures to shuffle.
    """
    if len(queries) < 2:
        return []
    return [
        Cell(condition, k, seed)
        for k in shots
        for condition in CONDITIONS[1:]
        if k or condition != "support_shuffled"
    ]


def looking_line(summaries: Sequence[Summary], headline: str) -> str:
    """Say how much of the score at the most shots is due to pictures.

    Args:
        summaries: Of all conditions and numbers of shots.
        headline: What the score is called.
    """
    most = max(each.shots for each in summaries if each.condition == "no_media")
    found = {each.condition: each for each in summaries if each.shots == most}
    real = found["no_media"].real or 0.0
    shares = []
    for condition, due in DUE_TO.items():
        if condition in found and real:
            without = found[condition].scores[headline].mean
            shares.append(f"{1 - without / real:.0%} of it due to {due} ({without:.3g} without)")
    losses = [
        f"{condition.replace('_', ' ')} {found[condition].loss:.2f}"
        for condition in CONDITIONS
        if condition in found and found[condition].loss is not None
    ]
    return (
        f"Is it looking? At {most} shots {headline} is {real:.3g}"
        f"{', ' if shares else ''}{', '.join(shares)}. "
        f"Loss of the reference, nats a token: {', '.join(losses)}."
    )
