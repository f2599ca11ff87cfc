"""Cells: every query once whatever the ranks, scores and losses as computed by hand."""

import json
import socket
from pathlib import Path

import pytest
import tiny
import torch
from torch import distributed

from miniflamingo.evaluation.example import make_example
from miniflamingo.evaluation.looking import looking_cells, looking_line
from miniflamingo.evaluation.prediction import Prediction
from miniflamingo.evaluation.prompts import continuation, permuted
from miniflamingo.evaluation.ranks import ALONE, Ranks, join, leave
from miniflamingo.evaluation.runner import Cell, Evaluation, prompts_of, run_cell
from miniflamingo.evaluation.summary import Score, Summary
from miniflamingo.evaluation.support import at_random
from miniflamingo.evaluation.tasks import Task, TaskData
from miniflamingo.generation.complete import Decoding
from miniflamingo.generation.likelihood import log_likelihoods
from miniflamingo.generation.reader import Reader

WORDS = ["a cat", "a dog", "two cups"]


def data_of(queries: int) -> TaskData:
    made = [
        make_example(f"{name}{i}", tiny.encoded(tiny.picture(100 * at + i)), [WORDS[i % 3]], "f")
        for at, (name, count) in enumerate((("q", queries), ("s", 6)))
        for i in range(count)
    ]
    return TaskData(made[:queries], made[queries:], sorted(WORDS), {})


def evaluation(model, processor, queries: int, ranks: Ranks = ALONE, **changes) -> Evaluation:
    task = Task("t", {}, template="Output: {answer}", decoding=Decoding(4, 1), **changes)
    data = data_of(queries)
    return Evaluation(Reader(model, processor), task, data, at_random(data), 2, 3, ranks)


def on_rank(rank: int, model, processor, queries: int, port: int, folder: Path) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group(
        "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=3
    )
    run = evaluation(model, processor, queries, Ranks(rank, 3))
    cells = [Cell("real", 2, 0), Cell("query_swapped", 2, 0)]
    found = [run_cell(run, cell, run.data.queries, {"q1", "q2"}) for cell in cells]
    (folder / f"{rank}.json").write_text(json.dumps(found))
    leave()


@pytest.mark.parametrize("queries", [7, 2], ids=["uneven", "one without queries"])
def test_three_ranks_score_each_query_exactly_once(model, processor, queries, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.start_processes(
        on_rank,
        (model, processor, queries, port, tmp_path),
        nprocs=3,
        start_method="fork",
    )
    alone = evaluation(model, processor, queries)
    for at, condition in enumerate(("real", "query_swapped")):
        expected = run_cell(alone, Cell(condition, 2, 0), alone.data.queries, {"q1", "q2"})
        assert [each.key for each in expected] == [f"q{i}" for i in range(queries)]
        for rank in range(3):
            rows = json.loads((tmp_path / f"{rank}.json").read_text())[at]
            for row, whole in zip(rows, expected, strict=True):
                found = Prediction(*row)._replace(support=tuple(row[4]))
                assert found.loss == pytest.approx(whole.loss, abs=1e-5)
                assert found._replace(loss=None) == whole._replace(loss=None)


def test_without_torchrun_there_is_one_rank(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert join() == ALONE
    assert ALONE.gather(ALONE.share([1, 2])) == [1, 2]
    assert ALONE.agree(3) == 3


def test_losses_are_those_of_the_reference_and_differ_without_pictures(model, processor):
    run = evaluation(model, processor, 3)
    queries = run.data.queries
    (prompt, *_) = prompts_of(run.task, queries, run.choose, 1, 0)
    text = continuation(run.task, "", queries[0].answers[0])
    ((score,),) = log_likelihoods(run.reader, [prompt.document], [[text]])
    real = run_cell(run, Cell("real", 1, 0), queries, {"q0"})
    tokens = len(processor.tokenizer(text)["input_ids"]) + 1
    assert real[0].loss == pytest.approx(-score / tokens, abs=1e-5)
    assert [each.loss is None for each in real] == [False, True, True]
    blank = run_cell(run, Cell("no_media", 1, 0), queries, {"q0"})
    assert abs(blank[0].loss - real[0].loss) > 1e-3


def test_classes_are_averaged_over_orders_of_the_shots(model, processor):
    run = evaluation(model, processor, 2, metric="accuracy", classify=True)
    found = run_cell(run, Cell("real", 3, 0), run.data.queries)
    prompts = prompts_of(run.task, run.data.queries, run.choose, 3, 0)
    for prompt, prediction in zip(prompts, found, strict=True):
        texts = [f" {name}" for name in run.data.classes]
        orders = [permuted(prompt.document, i) for i in range(2)]
        both = log_likelihoods(run.reader, orders, [texts, texts])
        mean = {c: (a + b) / 2 for c, a, b in zip(run.data.classes, *both, strict=True)}
        assert prediction.likelihoods == pytest.approx(mean, abs=1e-5)
        assert prediction.answer == max(mean, key=mean.get)
        assert prediction.score == float(prediction.answer in prediction.references)


def test_zero_shots_have_no_support_to_shuffle():
    queries = data_of(2).queries
    conditions = [(cell.condition, cell.shots) for cell in looking_cells([0, 4], 1, queries)]
    assert conditions == [
        ("query_swapped", 0),
        ("no_media", 0),
        ("support_shuffled", 4),
        ("query_swapped", 4),
        ("no_media", 4),
    ]
    assert looking_cells([0, 4], 1, queries[:1]) == []


def test_one_line_says_what_is_due_to_pictures():
    def summary(condition: str, score: float, loss: float, real: float | None = None) -> Summary:
        return Summary(condition, 4, [0], 10, {"cider": Score(score)}, loss, real)

    summaries = [
        summary("real", 8.1, 0.25),  # of all queries; the others' are of a subset
        summary("no_media", 0.4, 2.5, 8.0),
        summary("query_swapped", 0.8, 4.0, 8.0),
        summary("support_shuffled", 7.2, 0.5, 8.0),
    ]
    assert looking_line(summaries, "cider") == (
        "Is it looking? At 4 shots cider is 8, 95% of it due to pictures (0.4 without), 90% of it "
        "due to the query's own (0.8 without), 10% of it due to those of its support (7.2 "
        "without). Loss of the reference, nats a token: real 0.25, support shuffled 0.50, query "
        "swapped 4.00, no media 2.50."
    )
