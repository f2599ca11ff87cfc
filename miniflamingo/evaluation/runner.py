"""Run a few-shot evaluation cell by cell: prompts, answers, scores."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from tqdm import tqdm

from miniflamingo.document import Document
from miniflamingo.evaluation.example import Example
from miniflamingo.evaluation.metrics.facts import facts_right
from miniflamingo.evaluation.prediction import Prediction, read_predictions, write_predictions
from miniflamingo.evaluation.prompts import (
    Prompt,
    clean,
    continuation,
    make_prompt,
    permuted,
    with_pictures,
)
from miniflamingo.evaluation.ranks import ALONE, Ranks
from miniflamingo.evaluation.summary import with_scores
from miniflamingo.evaluation.support import Choose
from miniflamingo.evaluation.tasks import Task, TaskData
from miniflamingo.generation.complete import complete
from miniflamingo.generation.likelihood import log_likelihoods, mean_losses
from miniflamingo.generation.reader import Reader

Progress = Callable[[int], object]

LIKELIHOODS_KEPT = 5


class Cell(NamedTuple):
    """One run over the queries.

    Attributes:
        condition: As in ``Prediction``.
        shots: How many solved examples each prompt shows.
        seed: Draws them.
    """

    condition: str
    shots: int
    seed: int

    def file(self, folder: Path) -> Path:
        """Where its predictions are kept."""
        return folder / f"{self.shots}-{self.seed}-{self.condition.replace(' ', '_')}.jsonl"


@dataclass(frozen=True)
class Evaluation:
    """What is the same for all cells.

    Attributes:
        reader: The model.
        task: What to do.
        data: Its examples.
        choose: How shots are chosen.
        permutations: Orders of the shots over which a classifying task averages.
        batch_size: Prompts (classes, where a task classifies) at a time.
        ranks: The processes that share the queries.
        bar: Whether rank 0 shows a progress bar.
    """

    reader: Reader
    task: Task
    data: TaskData
    choose: Choose
    permutations: int = 1
    batch_size: int = 32
    ranks: Ranks = ALONE
    bar: bool = True


class Answer(NamedTuple):
    """What a model made of a prompt.

    Attributes:
        completion: As written, or the most likely class.
        text: The cleaned completion, which is scored.
        likelihoods: Of the likeliest classes, where a task classifies.
    """

    completion: str
    text: str
    likelihoods: dict[str, float]


def prompts_of(
    task: Task, queries: Sequence[Example], choose: Choose, shots: int, seed: int
) -> list[Prompt]:
    """The prompts of all queries at one number of shots."""
    count = shots or task.text_examples
    return [make_prompt(task, query, choose(query, count, seed), shots, seed) for query in queries]


def write_answers(
    run: Evaluation, documents: Sequence[Document], blank: bool, progress: Progress
) -> list[Answer]:
    """Let the model write its answers."""
    texts = complete(run.reader, documents, run.task.decoding, run.batch_size, blank, progress)
    return [Answer(text, clean(text, run.task.stop), {}) for text in texts]


def choose_answers(
    run: Evaluation,
    prompts: Sequence[Prompt],
    documents: Sequence[Document],
    blank: bool,
    progress: Progress,
) -> list[Answer]:
    """Find the class that the model finds most likely, averaged over orders of the shots.

    Source: Flamingo, appendix B.2.1.
    """
    classes = run.data.classes
    texts = [[continuation(run.task, p.query.question, name) for name in classes] for p in prompts]
    sums = [[0.0] * len(classes) for _ in prompts]
    for permutation in range(run.permutations):
        orders = [permuted(document, permutation) for document in documents]
        found = log_likelihoods(run.reader, orders, texts, run.batch_size, blank, progress)
        for row, more in zip(sums, found, strict=True):
            row[:] = [old + new / run.permutations for old, new in zip(row, more, strict=True)]
    answers = []
    for row in sums:
        ranked = sorted(zip(classes, row, strict=True), key=lambda pair: -pair[1])
        answers.append(Answer(ranked[0][0], ranked[0][0], dict(ranked[:LIKELIHOODS_KEPT])))
    return answers


def judge(
    run: Evaluation,
    cell: Cell,
    prompts: Sequence[Prompt],
    answers: Sequence[Answer],
    losses: dict[str, float],
) -> list[Prediction]:
    """Hold answers against references and facts; scores come when all ranks' are together."""
    vocabulary = run.data.vocabulary
    predictions = []
    for (query, _, _, support), (completion, text, likelihoods) in zip(
        prompts, answers, strict=True
    ):
        facts = {name: query.facts[name] for name in vocabulary}
        predictions.append(
            Prediction(
                *cell,
                key=query.key,
                support=support,
                completion=completion,
                answer=text,
                references=list(query.answers),
                facts=facts_right(text, facts, vocabulary),
                loss=losses.get(query.key),
                likelihoods=likelihoods,
            )
        )
    return predictions


def run_cell(
    run: Evaluation, cell: Cell, queries: Sequence[Example], measured: Collection[str] = ()
) -> list[Prediction]:
    """Answer the queries of one cell, each on one rank.

    Args:
        run: What is the same for all cells.
        cell: Shots, seed and condition.
        queries: To be answered.
        measured: Ids of those whose first reference's loss is measured too.

    Returns:
        Predictions in the order of the queries, on every rank.
    """
    prompts = prompts_of(run.task, queries, run.choose, cell.shots, cell.seed)
    documents = with_pictures(prompts, cell.condition)
    mine, shown = run.ranks.share(prompts), run.ranks.share(documents)
    blank = cell.condition == "no_media"
    name = f"{cell.shots} shots, seed {cell.seed}, {cell.condition}"
    total = len(mine) * (run.permutations if run.task.classify else 1)
    hidden = not run.bar or run.ranks.rank > 0
    with tqdm(total=total, desc=name, unit="prompt", disable=hidden) as bar:
        if run.task.classify:
            answers = choose_answers(run, mine, shown, blank, bar.update)
        else:
            answers = write_answers(run, shown, blank, bar.update)
    losses = query_losses(run, mine, shown, measured, blank)
    found = run.ranks.gather(judge(run, cell, mine, answers, losses))
    return with_scores(found, run.task.metric)


def query_losses(
    run: Evaluation,
    prompts: Sequence[Prompt],
    documents: Sequence[Document],
    measured: Collection[str],
    blank: bool,
) -> dict[str, float]:
    """Mean loss of the tokens of the first reference, in nats, of each query to be measured."""
    chosen = [
        (prompt.query, document)
        for prompt, document in zip(prompts, documents, strict=True)
        if prompt.query.key in measured
    ]
    texts = [continuation(run.task, query.question, query.written[0]) for query, _ in chosen]
    shown = [document for _, document in chosen]
    losses = mean_losses(run.reader, shown, texts, run.batch_size, blank)
    return {query.key: loss for (query, _), loss in zip(chosen, losses, strict=True)}


def kept_or_run(
    run: Evaluation,
    cell: Cell,
    folder: Path,
    compute: Callable[[], list[Prediction]],
) -> list[Prediction]:
    """Read a finished cell's predictions, or compute and keep them.

    Args:
        run: Whose ranks agree on what is finished: rank 0 reads and writes.
        cell: Which.
        folder: Of the cells.
        compute: Called on every rank.
    """
    file = cell.file(folder)
    if run.ranks.agree(file.is_file()):
        return run.ranks.agree(read_predictions(file) if run.ranks.rank == 0 else [])
    predictions = compute()
    if run.ranks.rank == 0:
        write_predictions(predictions, file)
    return predictions
