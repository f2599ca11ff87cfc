"""One example of a task: a picture, perhaps a question, and what people said."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from miniflamingo.document import ImageSource
from miniflamingo.errors import UserError
from miniflamingo.generation.reader import picture_id


class Example(NamedTuple):
    """A query, or a member of the support set.

    Attributes:
        key: Unique in its file.
        image: The picture.
        answers: Captions, annotators' answers or the class; empty where an annotator's vote was.
        file: Where it was read, for messages.
        question: What is asked about the picture; empty for captioning.
        facts: Fact -> its true values, where a task scores them.
        support: Examples that belong to this query alone; empty where a task has one support set.
    """

    key: str
    image: ImageSource
    answers: tuple[str, ...]
    file: str
    question: str = ""
    facts: Mapping[str, Sequence[str]] = {}  # read only
    support: tuple[Any, ...] = ()

    @property
    def written(self) -> tuple[str, ...]:
        """The answers that are not empty, at least one: a prompt shows these alone."""
        return tuple(filter(None, self.answers))


def make_example(
    key: str,
    image: ImageSource,
    answers: Iterable[str],
    file: str | Path,
    question: str = "",
    votes: bool = False,
    **own: Any,
) -> Example:
    """Make an example of raw annotations: white space evened out, empty answers left out.

    Args:
        key: Unique in its file.
        image: The picture.
        answers: As people wrote them.
        file: Where that was read.
        question: As people wrote it.
        votes: Whether each answer is a vote that counts, so that an empty one stays.
        **own: ``facts`` and ``support``.

    Raises:
        UserError: If no answer is left.
    """
    clean = tuple(" ".join(answer.split()) for answer in answers)
    if not votes:
        clean = tuple(filter(None, clean))
    if not any(clean):
        raise UserError(
            f"{file}: {key!r} has no answer or caption that is not empty. Write one, or take the "
            "example out."
        )
    return Example(key, image, clean, str(file), " ".join(question.split()), **own)


def picture_content(source: ImageSource) -> str:
    """The same text for pictures of the same bytes, whatever their files are called.

    Args:
        source: A picture; of a path that holds no file the name stands for it.
    """
    if not isinstance(source, str | Path):
        return picture_id(source)
    path = Path(source)
    if not path.is_file():
        return path.name
    stat = path.stat()
    return _hash_of(path, stat.st_size, stat.st_mtime_ns)


@cache
def _hash_of(path: Path, size: int, changed: int) -> str:
    """Hash a file once, as long as its size and time of change stay."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint(examples: Iterable[Example]) -> str:
    """Hash ids, questions and answers, and the bytes of the pictures."""
    digest = hashlib.sha256()
    for each in examples:
        picture = picture_content(each.image)
        digest.update(repr((each.key, each.question, each.answers, picture)).encode())
        digest.update(fingerprint(each.support).encode() if each.support else b"")
    return digest.hexdigest()
