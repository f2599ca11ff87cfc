"""A task is data: what to ask of which pictures, how to show examples, to decode and to score."""

from __future__ import annotations

import logging
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from string import Formatter
from typing import Any, NamedTuple

import yaml

from miniflamingo.errors import UserError
from miniflamingo.evaluation.example import Example, picture_content
from miniflamingo.evaluation.layouts.source import check_source, read_source
from miniflamingo.evaluation.metrics.table import CLASSIFYING, metric_for
from miniflamingo.files import read_json
from miniflamingo.generation.complete import Decoding

TASKS = Path("configs/tasks")
Vocabulary = dict[str, dict[str, list[str]]]


log = logging.getLogger(__name__)

PIPE = re.compile(r"(^|[\s,{]|::)pipe:", re.IGNORECASE)
"""Where a ``pipe:`` command may begin in a list of urls, as webdataset expands them."""

VQA_ANSWERS = 4
"""The fewest answers to a question with which VQA accuracy can be 1."""


@dataclass(frozen=True)
class Task:
    """What a few-shot evaluation does.

    Attributes:
        name: For reports.
        queries: Layout of the files that are asked about, and its arguments (``layouts``).
        support: The same for the files that examples are drawn from. None where each query comes
            with examples of its own (layout ``shards``).
        metric: ``captioning``, ``vqa``, ``accuracy`` or ``roc_auc`` (of two classes).
        template: A solved example's text. ``{answer}`` stands at its end, ``{question}`` may stand
            before; the prompt of a query ends where its answer would begin.
        separator: Ends each solved example's text, before its end of chunk.
        stop: A completion is cut where one of these begins.
        classify: Whether to choose the most likely of all answers that occur instead of writing.
        text_examples: Examples that a prompt of 0 shots shows without their pictures, so that the
            model knows what is asked. Source: Flamingo, section 3.1 (two).
        support_size: Examples to draw the support set from all those in ``support``.
            Source: Flamingo, appendix B.2.1 (2,048).
        vocabulary: JSON file, fact -> value -> words that mention it; None scores no facts.
        decoding: How to decode.
    """

    name: str
    queries: dict[str, Any]
    support: dict[str, Any] | None = None
    metric: str = "captioning"
    template: str = "{answer}"
    separator: str = ""
    stop: list[str] = field(default_factory=lambda: ["\n"])
    classify: bool = False
    text_examples: int = 2
    support_size: int = 2048
    vocabulary: str | None = None
    decoding: Decoding = field(default_factory=Decoding)


class TaskData(NamedTuple):
    """The examples of a task.

    Attributes:
        queries: To be asked.
        support: To draw shots from; empty where each query has its own.
        classes: All answers that occur, sorted, where a task classifies; else none.
        vocabulary: Fact -> value -> words that mention it.
    """

    queries: list[Example]
    support: list[Example]
    classes: list[str]
    vocabulary: Vocabulary

    def support_of(self, query: Example) -> Sequence[Example]:
        """The examples that a query's shots are drawn from."""
        return query.support or self.support


def load_task(name: str, allow_pipe: bool = False) -> Task:
    """Read a task by its name (``configs/tasks/NAME.yaml``) or file.

    Args:
        name: Of the task, or its file.
        allow_pipe: Whether its files may be ``pipe:`` commands, which are run.

    Raises:
        UserError: If there is no such file, its fields are not those of ``Task``, or it would run
            a command.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else TASKS / f"{name}.yaml"
    if not path.is_file():
        known = sorted(each.stem for each in TASKS.glob("*.yaml"))
        raise UserError(f"no task file {path}; known tasks: {', '.join(known) or 'none'}.")
    values = yaml.safe_load(path.read_text())
    if not isinstance(values, dict):
        raise UserError(f"{path} holds no fields; see configs/tasks/embedded.yaml.")
    unknown = values.keys() - {each.name for each in fields(Task)}
    missing = {"name", "queries"} - values.keys()
    if unknown or missing:
        raise UserError(
            f"{path}: unknown fields {sorted(unknown)}, missing fields {sorted(missing)}."
        )
    try:
        task = Task(**{**values, "decoding": Decoding(**values.get("decoding", {}))})
    except TypeError as error:
        raise UserError(f"{path}: field 'decoding': {error}") from error
    check_task(task, path)
    if not allow_pipe:
        check_no_command(values, path)
    return task


def check_no_command(value: Any, path: Path) -> None:
    """A task file is data, which people pass on: it runs nothing unless the user says so.

    Args:
        value: The file's content, or any part of it.
        path: The file, for the message.

    Raises:
        UserError: Naming the command.
    """
    if isinstance(value, dict):
        value = [*value.keys(), *value.values()]
    if isinstance(value, list):
        for each in value:
            check_no_command(each, path)
    elif isinstance(value, str) and PIPE.search(value):
        raise UserError(
            f"{path} would run a command: {value!r}. If you trust the file, add --allow-pipe."
        )


def check_task(task: Task, path: Path) -> None:
    """The parts of a task must fit together.

    Raises:
        UserError: Naming file and field.
    """
    for name, source in (("queries", task.queries), ("support", task.support)):
        try:
            if source is not None:
                check_source(source)
        except ValueError as error:
            raise UserError(f"{path}: field {name!r}: {error}") from error
    if not task.template.endswith("{answer}") or task.template.count("{answer}") != 1:
        raise UserError(
            f"{path}: field 'template' is {task.template!r}; it must end with {{answer}}, once: "
            "a prompt ends where the answer begins."
        )
    names = {name for _, name, _, _ in Formatter().parse(task.template) if name is not None}
    if names - {"question", "answer"}:
        raise UserError(
            f"{path}: field 'template' is {task.template!r}; it knows {{question}} and {{answer}} "
            "alone. Write other braces twice."
        )
    try:
        metric_for(task.metric)
    except ValueError as error:
        raise UserError(f"{path}: field 'metric': {error}") from error
    if task.classify and task.metric not in CLASSIFYING:
        raise UserError(
            f"{path}: a task that classifies has metric: {' or '.join(CLASSIFYING)}, not "
            f"{task.metric}."
        )
    if task.metric == "roc_auc" and not task.classify:
        raise UserError(
            f"{path}: metric: roc_auc is of two classes' log-likelihoods; add classify: true."
        )


def load_data(task: Task, limit: int | None = None) -> TaskData:
    """Read a task's examples and check them, before any model is loaded.

    Args:
        task: Names the files.
        limit: At most so many queries, the same ones each time.

    Raises:
        UserError: If files are missing, an example or picture is, an id is there twice, or a query
            is in its own support set.
    """
    queries = read_source(task.queries)
    support = read_source(task.support) if task.support else []
    classes = sorted({a for each in (*queries, *support) for a in each.answers})
    check_leaks(queries, support)
    check_two_classes(task, classes, queries)
    warn_of_few_answers(task, queries)
    queries = sample(queries, limit, "queries")
    support = sample(support, task.support_size, "support")
    vocabulary = load_vocabulary(task)
    check_facts(queries, vocabulary)
    for each in (*queries, *support):
        if isinstance(each.image, Path) and not each.image.is_file():
            raise UserError(
                f"{each.file}: the picture {each.image} of {each.key!r} is not there. Correct the "
                f"field 'images' of the task {task.name!r}, or take the example out."
            )
    return TaskData(queries, support, classes if task.classify else [], vocabulary)


def warn_of_few_answers(task: Task, queries: Sequence[Example]) -> None:
    """Say where VQA accuracy cannot reach 1, because too few people answered.

    It is the share of three other people who gave the same answer, so a right answer to a question
    of one, two or three people scores 0, 0.33 or 0.67 at most.

    Args:
        task: Whose metric is looked at.
        queries: All of its queries.
    """
    few = [query for query in queries if len(query.answers) < VQA_ANSWERS]
    if task.metric == "vqa" and few:
        log.warning(
            "task %r: %d of %d questions have fewer than %d answers (%s, %r has %d), so metric: "
            "vqa gives even a right answer less than 1. It is made for ten answers a question.",
            *(task.name, len(few), len(queries), VQA_ANSWERS),
            *(few[0].file, few[0].key, len(few[0].answers)),
        )


def sample(examples: list[Example], size: int | None, name: str) -> list[Example]:
    """At most so many examples, the same ones each time, in their own order."""
    if size is None or size >= len(examples):
        return examples
    chosen = random.Random(name).sample(range(len(examples)), size)
    return [examples[place] for place in sorted(chosen)]


def check_leaks(queries: Sequence[Example], support: Sequence[Example]) -> None:
    """No query's picture may be among its support set: the prompt would give the answer away.

    Raises:
        UserError: Naming file and id.
    """
    shared = {picture_content(each.image): each for each in support}
    for query in queries:
        picture = picture_content(query.image)
        own = {picture_content(each.image): each for each in query.support}
        if leak := (own or shared).get(picture):
            raise UserError(
                f"{query.file}: the picture of query {query.key!r} is also that of {leak.key!r} in "
                f"its support set ({leak.file}), which would give the answer away. Take it out of "
                "one of the two."
            )


def check_two_classes(task: Task, classes: Sequence[str], queries: Sequence[Example]) -> None:
    """ROC AUC needs two classes, and queries of both.

    Raises:
        UserError: Naming task and classes.
    """
    asked = sorted({answer for query in queries for answer in query.answers})
    if task.metric == "roc_auc" and not len(classes) == len(asked) == 2:
        shown = ", ".join(map(repr, classes[:4])) + (", ..." if len(classes) > 4 else "")
        raise UserError(
            f"task {task.name!r}: metric: roc_auc is of two classes, both of them among the "
            f"queries; its examples have {len(classes)} ({shown}), its queries {len(asked)}. Set "
            "metric: accuracy, or correct the task's files."
        )


def check_facts(queries: Sequence[Example], vocabulary: Vocabulary) -> None:
    """Every query needs the facts that the vocabulary can find.

    Raises:
        UserError: Naming the first query without one, and the fact.
    """
    for query in queries:
        missing = vocabulary.keys() - query.facts.keys()
        if missing:
            raise UserError(
                f"{query.file}: the json of {query.key!r} lacks the facts {sorted(missing)} that "
                "the task's vocabulary scores; add them under 'facts' or take them out of the "
                "vocabulary."
            )


def check_shots(data: TaskData, shots: Sequence[int]) -> None:
    """Every query needs as many support examples as the largest number of shots.

    Raises:
        UserError: If a support set is smaller.
    """
    smallest = min(data.queries, key=lambda query: len(data.support_of(query)))
    available = len(data.support_of(smallest))
    if max(shots) > available:
        raise UserError(
            f"--shots asks for {max(shots)} but the support set of {smallest.key!r} holds "
            f"{available} examples; ask for at most {available}."
        )


def load_vocabulary(task: Task) -> Vocabulary:
    """Read the words that mention facts; empty if the task scores none.

    Raises:
        UserError: If the task names a file that is not there.
    """
    if task.vocabulary is None:
        return {}
    path = Path(task.vocabulary)
    if not path.is_file():
        raise UserError(
            f"task {task.name!r}: there is no vocabulary file {path}. Correct the task's field "
            "'vocabulary', or leave it out to score captions alone."
        )
    return read_json(path)
