"""Metrics over batches and over ranks."""

import socket
from pathlib import Path

import pytest
import torch
from torch import distributed

from miniflamingo.evaluation.metrics.answers import Answered
from miniflamingo.evaluation.metrics.table import METRICS, metric_for

ANSWERS = ["a cat", "two dogs", "a red bus.", "“quoted” naïve\nline", "a cat", "a big dog"]
REFERENCES = [[text, f"{text} here", "a dog"][i % 2 :] for i, text in enumerate(ANSWERS)]
TEXTS = [Answered(*pair) for pair in zip(ANSWERS, REFERENCES, strict=True)]
CHOSEN = [
    Answered("yes" if margin > 0 else "no", [true], {"no": -3.0, "yes": margin - 3.0})
    for margin, true in zip([2, -1, 0.5, -0.25, -2, 1], ["yes", "no"] * 3, strict=True)
]
ANSWERED = {name: CHOSEN if name == "roc_auc" else TEXTS for name in METRICS}
MEANS = [name for name in METRICS if metric_for(name).headline_is_mean]


def whole(name: str) -> tuple[dict[str, float], list[float]]:
    metric = metric_for(name)
    metric.update(ANSWERED[name])
    return metric.compute(), metric.per_query()


@pytest.mark.parametrize("name", MEANS)
def test_the_headline_is_the_mean_of_the_queries(name):
    scores, each = whole(name)
    assert len(each) == len(ANSWERS)
    assert scores[metric_for(name).headline] == pytest.approx(sum(each) / len(each), abs=1e-12)
    assert scores[metric_for(name).headline] > 0


@pytest.mark.parametrize("name", METRICS)
def test_batches_add_up(name):
    metric = metric_for(name)
    for start in (0, 2, 4):
        metric.update(ANSWERED[name][start : start + 2])
    assert (metric.compute(), metric.per_query()) == whole(name)
    metric.reset()
    metric.update(ANSWERED[name][:1])
    assert len(metric.per_query()) == 1


def on_rank(rank: int, shares: list[slice], port: int, folder: str) -> None:
    torch.set_num_threads(1)
    address = f"tcp://127.0.0.1:{port}"
    distributed.init_process_group("gloo", init_method=address, rank=rank, world_size=len(shares))
    results = {}
    for name in METRICS:
        metric = metric_for(name)
        metric.update(ANSWERED[name][shares[rank]])
        results[name] = metric.compute(), metric.per_query()
    torch.save(results, Path(folder) / f"{rank}.pt")
    distributed.destroy_process_group()


@pytest.mark.parametrize(
    "shares", [[slice(0, 2), slice(2, 6)], [slice(0, 6), slice(6, 6)]], ids=["uneven", "one empty"]
)
def test_two_ranks_score_as_one(shares, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.start_processes(
        on_rank, (shares, port, str(tmp_path)), nprocs=2, start_method="fork"
    )
    for rank in range(2):
        assert torch.load(tmp_path / f"{rank}.pt") == {name: whole(name) for name in METRICS}


def test_every_answer_needs_a_reference():
    with pytest.raises(ValueError, match="every answer needs at least one reference"):
        metric_for("vqa").update([Answered("a cat", [])])


def test_nothing_to_score_is_told():
    metric = metric_for("accuracy")
    metric.update([])
    with pytest.raises(ValueError, match="no answers to score"):
        metric.compute()


def test_an_unknown_metric_names_the_known_ones():
    with pytest.raises(ValueError, match=r"no metric 'bleu'.*captioning, vqa, accuracy, roc_auc"):
        metric_for("bleu")
