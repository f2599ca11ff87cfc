"""Layouts of one's own files."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from miniflamingo.data.layouts.choose import to_document
from miniflamingo.data.shards import find_shards, read_samples
from miniflamingo.document import Chunk
from miniflamingo.errors import UserError
from miniflamingo.evaluation.example import Example, make_example
from miniflamingo.evaluation.layouts.files import get, pictures_in, read_text


def folder(images: str) -> list[Example]:
    """One's own pictures, each with a text file of the same name that holds a caption a line.

    Args:
        images: Folder, at any depth.
    """
    return [
        make_example(
            picture.relative_to(images).as_posix(),
            picture,
            read_text(picture.with_suffix(".txt")).splitlines(),
            picture.with_suffix(".txt"),
        )
        for picture in pictures_in(images)
    ]


def table(annotations: str, images: str | None = None) -> list[Example]:
    """One's own CSV with the columns ``image``, ``answer`` and perhaps ``question``.

    Rows of the same picture and question are several answers to one example.

    Args:
        annotations: The CSV file.
        images: Folder that the column ``image`` starts from; None for that of the CSV file.
    """
    rows = csv.DictReader(io.StringIO(read_text(annotations)))
    answers: dict[tuple[str, str], list[str]] = {}
    for place, row in enumerate(rows):
        image, text = (get(row, name, annotations, place) for name in ("image", "answer"))
        answers.setdefault((image, row.get("question") or ""), []).append(text or "")
    start = Path(annotations).parent if images is None else Path(images)
    return [
        make_example(f"{image} {question}".strip(), start / image, texts, annotations, question)
        for (image, question), texts in answers.items()
    ]


def shards(urls: str | list[str]) -> list[Example]:
    """Interleaved documents: the last chunk is the query, those before it its own support set.

    Args:
        urls: As of a training source.
    """
    examples = []
    for sample in read_samples(find_shards(urls)):
        document = to_document(sample)
        *solved, asked = document.chunks
        own = tuple(
            _of_chunk(f"{document.key}/{place}", each, sample["__url__"])
            for place, each in enumerate(solved)
        )
        query = _of_chunk(document.key, asked, sample["__url__"])
        examples.append(query._replace(support=own, facts=document.meta.get("facts", {})))
    return examples


def _of_chunk(key: str, chunk: Chunk, file: str) -> Example:
    if len(chunk.frames) != 1:
        raise UserError(
            f"{file}: chunk {key!r} holds {len(chunk.frames)} pictures; query and support "
            "examples need one each."
        )
    return make_example(key, chunk.frames[0], [chunk.text or ""], file)
