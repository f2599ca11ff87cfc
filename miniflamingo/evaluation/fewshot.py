"""A whole few-shot evaluation: all cells, and those that show whether the model is looking."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from miniflamingo.evaluation.baselines import text_only_completions
from miniflamingo.evaluation.example import Example
from miniflamingo.evaluation.looking import looking_cells
from miniflamingo.evaluation.prediction import Prediction
from miniflamingo.evaluation.prompts import check_context
from miniflamingo.evaluation.runner import (
    Answer,
    Cell,
    Evaluation,
    judge,
    kept_or_run,
    prompts_of,
    run_cell,
)
from miniflamingo.evaluation.summary import with_scores
from miniflamingo.evaluation.tasks import sample
from miniflamingo.generation.likelihood import encode_continuation
from miniflamingo.generation.reader import Reader
from miniflamingo.model.flamingo import MiniFlamingo


def evaluate(
    run: Evaluation, shots: Sequence[int], seeds: Sequence[int], looking: int, folder: Path
) -> list[Prediction]:
    """Run every cell that is not finished yet.

    Args:
        run: What is the same for all cells.
        shots: Numbers of shots.
        seeds: Of the drawing of shots.
        looking: How many queries are also asked with other pictures or none, with the first seed.
        folder: Keeps finished cells.

    Returns:
        All predictions, on every rank.

    Raises:
        UserError: If a prompt and its answer exceed the language model's context.
    """
    check_fit(run, shots, seeds)
    queries = run.data.queries
    some = sample(list(queries), looking, "looking") if looking else []
    others = looking_cells(shots, seeds[0], some)
    keys = {query.key for query in some} if others else set()
    predictions = []
    for cell in [Cell("real", k, seed) for k in shots for seed in seeds]:
        measured = keys if cell.seed == seeds[0] else set()
        predictions += kept_or_run(
            run, cell, folder, lambda c=cell, m=measured: run_cell(run, c, queries, m)
        )
    for cell in others:
        predictions += kept_or_run(run, cell, folder, lambda c=cell: run_cell(run, c, some, keys))
    return predictions


def check_fit(run: Evaluation, shots: Sequence[int], seeds: Sequence[int]) -> None:
    """Make sure that all prompts fit the context, before the first is answered.

    Raises:
        UserError: Saying how many shots fit.
    """
    new_tokens = run.task.decoding.max_new_tokens
    if run.task.classify:
        new_tokens = max(len(encode_continuation(run.reader, name)) for name in run.data.classes)
    for seed in seeds:
        prompts = prompts_of(run.task, run.data.queries, run.choose, max(shots), seed)
        check_context(run.reader, run.ranks.share(prompts), new_tokens)


def evaluate_baselines(run: Evaluation, shots: int, seed: int, folder: Path) -> list[Prediction]:
    """Score the plain language model on text alone, and the model before training."""
    queries = run.data.queries
    text_only = Cell("text-only language model", shots, seed)
    untrained = Cell("untrained model", shots, seed)
    predictions = kept_or_run(
        run, text_only, folder, lambda: run_text_only(run, text_only, queries)
    )

    def run_untrained() -> list[Prediction]:
        model = run.reader.model
        fresh = MiniFlamingo.build(model.config).eval().to(model.device)
        reader = Reader(fresh, run.reader.processor)
        return run_cell(replace(run, reader=reader), untrained, queries)

    return predictions + kept_or_run(run, untrained, folder, run_untrained)


def run_text_only(run: Evaluation, cell: Cell, queries: Sequence[Example]) -> list[Prediction]:
    """Let the plain language model continue the solved examples' text, one a line."""
    prompts = prompts_of(run.task, queries, run.choose, cell.shots, cell.seed)
    mine = run.ranks.share(prompts)
    model = run.reader.model
    lines = text_only_completions(
        model.config.language,
        [prompt.document for prompt in mine],
        run.task.decoding.max_new_tokens,
        run.batch_size,
    )
    answers = [Answer(line, line, {}) for line in lines]
    found = run.ranks.gather(judge(run, cell, mine, answers, {}))
    return with_scores(found, run.task.metric)
