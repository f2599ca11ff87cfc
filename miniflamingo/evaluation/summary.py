"""From predictions to scores: means, deviations over seeds, intervals over queries.

Shapes: M queries, R sets drawn from them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import mean, stdev
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from miniflamingo.bootstrap import Statistic, interval, mean_of, once, wilson_interval
from miniflamingo.evaluation.metrics.answers import Answered
from miniflamingo.evaluation.metrics.table import metric_for
from miniflamingo.evaluation.prediction import Prediction

Key = tuple[str, int, int]
"""Condition, shots and seed."""

Cell = list[Prediction]
"""Predictions of one condition, number of shots and seed."""

Scorer = Callable[[NDArray], dict[str, NDArray]]
"""(R, M) how often each query of a cell counts -> name -> (R,) scores."""


class Score(NamedTuple):
    """One score at one number of shots.

    Attributes:
        mean: Over seeds.
        sd: Standard deviation over seeds (of a sample); None with one seed.
        low: Lower end of the 95% interval over queries: Wilson's for shares of queries, for all
            else a bootstrap's, each set that is drawn scored by the mean over seeds; None for
            scores that were computed apart (METEOR, CLIPScore).
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


def answers_of(cell: Sequence[Prediction]) -> list[Answered]:
    """What a metric scores."""
    return [Answered(each.answer, each.references, each.likelihoods) for each in cell]


def with_scores(predictions: Sequence[Prediction], metric: str) -> list[Prediction]:
    """Fill in the score of each query.

    Args:
        predictions: Of one cell, all of it: CIDEr's document frequencies are taken from the set.
        metric: As a task names it.
    """
    scores = metric_for(metric).statistics(answers_of(predictions))[0].tolist()
    return [p._replace(score=score) for p, score in zip(predictions, scores, strict=True)]


def scorer(cell: Sequence[Prediction], metric: str) -> Scorer:
    """All scores of sets drawn from a cell: the headline first, shares of facts right last."""
    rule = metric_for(metric)
    statistics = rule.statistics(answers_of(cell))
    facts = {name: mean_of([p.facts[name] for p in cell]) for name in cell[0].facts}
    return lambda counts: (
        rule.scores(statistics, counts) | {name: share(counts) for name, share in facts.items()}
    )


def headline_of(cells: Sequence[Sequence[Prediction]], metric: str) -> Statistic:
    """The headline of sets drawn from cells (seeds) of the same queries, averaged over cells.

    Args:
        cells: With scores filled in, which are used where the headline is their mean.
        metric: As a task names it.
    """
    rule = metric_for(metric)
    if rule.headline_is_mean:
        return mean_of(np.mean([scores_of(cell) for cell in cells], axis=0))
    scorers = [scorer(cell, metric) for cell in cells]
    return lambda counts: np.mean([each(counts)[rule.headline] for each in scorers], axis=0)


def scores_of(cell: Sequence[Prediction]) -> list[float]:
    """The queries' own scores, filled in by ``with_scores``."""
    assert all(each.score is not None for each in cell), "scores are filled in by with_scores"
    return [each.score or 0.0 for each in cell]


def headline_score(cell: Sequence[Prediction], metric: str) -> float:
    """The headline of one cell, scores filled in."""
    return float(headline_of([cell], metric)(once(len(cell)))[0])


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
    losses = [p.loss for cell in cells for p in cell if p.loss is not None]
    return Summary(
        condition,
        shots,
        sorted(by_seed),
        len(cells[0]),
        cell_scores(cells, metric),
        mean(losses) if losses else None,
        _real_on_the_same(by_seed, real, metric),
    )


def cell_scores(cells: Sequence[Cell], metric: str) -> dict[str, Score]:
    """All scores of cells (seeds) of the same queries in the same order."""
    size = len(cells[0])
    keys = [[each.key for each in cell] for cell in cells]
    assert all(each == keys[0] for each in keys), "seeds are drawn together, query by query"
    scorers = [scorer(cell, metric) for cell in cells]
    each = [rule(once(size)) for rule in scorers]
    names = list(each[0])

    def averaged(counts: NDArray) -> NDArray:
        found = [rule(counts) for rule in scorers]
        return np.stack([np.mean([scores[name] for scores in found], axis=0) for name in names])

    low, high, _ = interval(averaged, size)  # (names,) both
    found = {
        name: over_seeds([float(scores[name][0]) for scores in each])._replace(
            low=float(low[place]), high=float(high[place])
        )
        for place, name in enumerate(names)
    }
    for name in shares_of(cells, metric):
        # Seeds ask the same queries again: they add nothing to how many there are.
        ends = wilson_interval(found[name].mean, size)
        found[name] = found[name]._replace(low=ends[0], high=ends[1])
    return found


def shares_of(cells: Sequence[Cell], metric: str) -> list[str]:
    """Name the scores that are shares of queries answered right, wrong being the only other way.

    Args:
        cells: Seeds of the same queries.
        metric: As a task names it.
    """
    rule = metric_for(metric)
    names = list(cells[0][0].facts)
    own = np.concatenate([rule.statistics(answers_of(cell))[0] for cell in cells])
    if rule.headline_is_mean and np.isin(own, (0.0, 1.0)).all():
        names.append(rule.headline)
    return names


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
        values.append(headline_score(with_scores(same, metric), metric))
    return mean(values)
