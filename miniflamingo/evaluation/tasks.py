"""A task is data: what to ask, with which examples, how to decode."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml

from miniflamingo.data.layouts.choose import to_document
from miniflamingo.data.shards import find_shards, read_samples
from miniflamingo.document import Chunk, Document
from miniflamingo.generation.complete import Decoding

TASKS = Path("configs/tasks")


@dataclass(frozen=True)
class Task:
    """Captioning of held-out queries, each with a support set of its own.

    Attributes:
        name: For reports.
        shards: Documents whose last chunk is the query and whose other chunks are its support.
        vocabulary: JSON file, fact -> value -> words that mention it; None scores no facts.
        decoding: How to decode.
    """

    name: str
    shards: str | list[str]
    vocabulary: str | None = None
    decoding: Decoding = field(default_factory=Decoding)


def load_task(name: str) -> Task:
    """Read a task by its name (``configs/tasks/NAME.yaml``) or file.

    Raises:
        ValueError: If there is no such file, or it has unknown or missing fields.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else TASKS / f"{name}.yaml"
    if not path.is_file():
        known = sorted(each.stem for each in TASKS.glob("*.yaml"))
        raise ValueError(f"no task file {path}; known tasks: {', '.join(known) or 'none'}.")
    values: dict[str, Any] = yaml.safe_load(path.read_text())
    unknown = values.keys() - {each.name for each in fields(Task)}
    missing = {"name", "shards"} - values.keys()
    if unknown or missing:
        raise ValueError(
            f"{path}: unknown fields {sorted(unknown)}, missing fields {sorted(missing)}."
        )
    try:
        return Task(**{**values, "decoding": Decoding(**values.get("decoding", {}))})
    except TypeError as error:
        raise ValueError(f"{path}: field 'decoding': {error}") from error


def load_queries(task: Task, limit: int | None = None) -> list[Document]:
    """Read the task's documents: support chunks, then the query with its true caption.

    Args:
        task: Names the shards.
        limit: At most so many, from the start.

    Raises:
        ValueError: If there are no shards, or a document has no query picture or caption.
    """
    documents = []
    for sample in read_samples(find_shards(task.shards)):
        document = to_document(sample)
        query = document.chunks[-1]
        if query.image is None or query.text is None:
            raise ValueError(
                f"task {task.name!r}: the last chunk of {document.key!r} is the query; it needs "
                "a picture and its true caption."
            )
        documents.append(document)
        if len(documents) == limit:
            break
    return documents


def load_vocabulary(task: Task) -> dict[str, dict[str, list[str]]]:
    """Read the words that mention facts; empty if the task scores none.

    Raises:
        ValueError: If the task names a file that is not there.
    """
    if task.vocabulary is None:
        return {}
    path = Path(task.vocabulary)
    if not path.is_file():
        raise ValueError(
            f"task {task.name!r}: there is no vocabulary file {path}. Correct the task's field "
            "'vocabulary', or leave it out to score captions alone."
        )
    return json.loads(path.read_text())


def check_facts(documents: list[Document], vocabulary: dict[str, dict[str, list[str]]]) -> None:
    """Every query needs the facts that the vocabulary can find.

    Raises:
        ValueError: Naming the first query without one, and the fact.
    """
    for document in documents:
        missing = vocabulary.keys() - document.meta.get("facts", {}).keys()
        if missing:
            raise ValueError(
                f"the json of {document.key!r} lacks the facts {sorted(missing)} that the task's "
                "vocabulary scores; add them under 'facts' or take them out of the vocabulary."
            )


def check_shots(documents: list[Document], shots: list[int]) -> None:
    """Every query needs as many support examples as the largest number of shots.

    Raises:
        ValueError: If a support set is smaller.
    """
    smallest = min(documents, key=lambda document: len(document.chunks))
    available = len(smallest.chunks) - 1
    if max(shots) > available:
        raise ValueError(
            f"--shots asks for {max(shots)} but the support set of {smallest.key!r} holds "
            f"{available} examples; ask for at most {available}."
        )


def prompt(document: Document, shots: int, seed: int, query: Chunk | None = None) -> Document:
    """Make the few-shot prompt of a query.

    Args:
        document: Support chunks, then the query.
        shots: How many of the support chunks to show, drawn by seed; fewer shots are the last of
            more, so a curve adds examples and changes none.
        seed: Of the drawing.
        query: Another query chunk whose picture to show instead.

    Returns:
        Solved chunks, then the open one. With 0 shots the query picture alone.
    """
    support = list(document.chunks[:-1])
    random.Random(f"{seed}-{document.key}").shuffle(support)
    shown = (query or document.chunks[-1]).image
    return Document([*support[len(support) - shots :], Chunk(shown)], document.key)
