"""From predictions to scores: means, deviations over seeds, intervals over queries."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from statistics import mean, stdev
from typing import NamedTuple

from miniflamingo.evaluation.bootstrap import mean_interval
from miniflamingo.evaluation.metrics import metric_for
from miniflamingo.evaluation.prediction import Prediction

Key = tuple[str, int, int]
"""Condition, shots and seed."""

Cell = list[Prediction]
"""Predictions of one condition, number of shots and seed."""


class Score(NamedTuple):
    """One score at one number of shots.

    Attributes:
        mean: Over seeds.
        sd: Standard deviation over seeds (of a sample); None with one seed.
        low: Lower end of the 95% bootstrap interval over queries, each query's score averaged over
            seeds first; None for scores that are no mean over queries, as BLEU.
        high: Upper end.
    """

    mean: float
    sd: float | None = None
    low: float | None = None
    high: float | None = None


class Summary(NamedTuple):
    """The scores under one condition at one number of shots.

    Attributes:
        condition: As in ``Prediction``.
        shots: As in ``Prediction``.
        seeds: Those of the cells.
        queries: How many were asked.
        scores: By name, the task's headline first.
        loss: Mean query loss in nats, where it was measured.
        real: What the real pictures score on the same queries (headline) and seeds; None for the
            real pictures themselves and where they were not asked the same.
    """

    condition: str
    shots: int
    seeds: list[int]
    queries: int
    scores: dict[str, Score]
    loss: float | None = None
    real: float | None = None


def cells_of(predictions: Iterable[Prediction]) -> dict[Key, Cell]:
    """Sort predictions into cells: (condition, shots, seed) -> those of that cell."""
    cells: dict[Key, Cell] = defaultdict(list)
    for each in predictions:
        cells[each.condition, each.shots, each.seed].append(each)
    return dict(cells)


def answers_of(cell: Sequence[Prediction]) -> tuple[list[str], list[list[str]]]:
    """Answers and references, as metrics take them."""
    return [each.answer for each in cell], [each.references for each in cell]


def with_scores(predictions: Sequence[Prediction], metric: str) -> list[Prediction]:
    """Fill in the score of each query.

    Args:
        predictions: Of one cell, all of it: CIDEr's document frequencies are taken from the set.
        metric: As a task names it.
    """
    answers, references = answers_of(predictions)
    scores = metric_for(metric).score_each(answers, references)
    return [p._replace(score=score) for p, score in zip(predictions, scores, strict=True)]


def cell_scores(cell: Sequence[Prediction], metric: str) -> dict[str, float]:
    """All scores of one cell, the headline first, the share of each fact right last."""
    scores = metric_for(metric)
    scores.update(*answers_of(cell))
    facts = {name: mean(p.facts[name] for p in cell) for name in cell[0].facts}
    return scores.compute() | facts


def per_query(cells: Sequence[Cell]) -> dict[str, dict[str, float]]:
    """What is known of each query: the score and each fact, averaged over cells (seeds).

    Args:
        cells: Of the same queries, with scores filled in.

    Returns:
        Name -> query id -> value. The score has the name ``score``.
    """
    values: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for cell in cells:
        for each in cell:
            assert each.score is not None, "scores are filled in by with_scores"
            for name, value in ({"score": each.score} | each.facts).items():
                values[name][each.key].append(value)
    return {name: {k: mean(v) for k, v in by_key.items()} for name, by_key in values.items()}


def over_seeds(values: Sequence[float]) -> Score:
    """Mean and, of several, standard deviation."""
    return Score(mean(values), stdev(values) if len(values) > 1 else None)


def summarise(predictions: Iterable[Prediction], metric: str) -> list[Summary]:
    """Means, deviations over seeds and intervals over queries.

    Args:
        predictions: Of any number of cells, with scores filled in.
        metric: As a task names it.

    Returns:
        Sorted by shots; the real pictures first, other conditions in the order they come.
    """
    cells = cells_of(predictions)
    groups: dict[tuple[str, int], dict[int, Cell]] = defaultdict(dict)
    for (condition, shots, seed), cell in cells.items():
        groups[condition, shots][seed] = cell
    summaries = []
    for (condition, shots), by_seed in groups.items():
        real = groups.get(("real", shots), {}) if condition != "real" else {}
        summaries.append(_summary(condition, shots, by_seed, real, metric))
    return sorted(summaries, key=lambda each: (each.shots, each.condition != "real"))


def _summary(
    condition: str, shots: int, by_seed: Mapping[int, Cell], real: Mapping[int, Cell], metric: str
) -> Summary:
    cells = list(by_seed.values())
    each = [cell_scores(cell, metric) for cell in cells]
    headline = metric_for(metric).headline
    queries = per_query(cells)
    known = {headline: queries.pop("score"), **queries}
    scores = {}
    for name in each[0]:
        scores[name] = over_seeds([values[name] for values in each])
        if name in known:
            low, high = mean_interval(list(known[name].values()))
            scores[name] = scores[name]._replace(low=low, high=high)
    losses = [p.loss for cell in cells for p in cell if p.loss is not None]
    return Summary(
        condition,
        shots,
        sorted(by_seed),
        len(cells[0]),
        scores,
        mean(losses) if losses else None,
        _real_on_the_same(by_seed, real, metric),
    )


def with_more_scores(
    summaries: Sequence[Summary], more: Mapping[Key, Mapping[str, float]]
) -> list[Summary]:
    """Add scores that were computed apart.

    Args:
        summaries: To add to.
        more: As ``cells_of`` names the cells, their scores by name.
    """
    added = []
    for each in summaries:
        own = [s for (c, shots, _), s in more.items() if (c, shots) == (each.condition, each.shots)]
        names = own[0] if own else ()
        extra = {name: over_seeds([scores[name] for scores in own]) for name in names}
        added.append(each._replace(scores=each.scores | extra))
    return added


def _real_on_the_same(
    by_seed: Mapping[int, Cell], real: Mapping[int, Cell], metric: str
) -> float | None:
    """The headline of the real pictures on just these queries: CIDEr depends on the set."""
    values = []
    for seed, cell in by_seed.items():
        keys = {each.key for each in cell}
        same = [each for each in real.get(seed, []) if each.key in keys]
        if len(same) != len(cell):
            return None
        values.append(mean(each.score or 0.0 for each in with_scores(same, metric)))
    return mean(values)
