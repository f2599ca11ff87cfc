"""What every layout reads: text, JSON, fields of it, and where pictures lie."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from miniflamingo.data.layouts.members import IMAGE_ENDINGS
from miniflamingo.errors import UserError

PICTURE_ENDINGS = {f".{ending}" for ending in IMAGE_ENDINGS}


def read_text(file: str | Path) -> str:
    """Read an annotation file.

    Raises:
        UserError: If it is not there or no UTF-8.
    """
    if not Path(file).is_file():
        raise UserError(
            f"there is no file {file}. docs/evaluation.md says where each data set is to be had; "
            "correct the path in the task's YAML if it is elsewhere."
        )
    try:
        return Path(file).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{file} is no UTF-8 text: {error}") from error


def read_json(file: str | Path, text: str | None = None) -> Any:
    """Parse an annotation file, or one line of it.

    Raises:
        UserError: If it is not there or does not parse.
    """
    try:
        return json.loads(read_text(file) if text is None else text)
    except json.JSONDecodeError as error:
        raise UserError(f"{file} is no JSON: {error}") from error


def get(entry: Any, name: str, file: str | Path, place: int | None = None) -> Any:
    """A field of an annotation.

    Raises:
        UserError: If it is not there, naming file, entry and field.
    """
    if isinstance(entry, Mapping) and name in entry:
        return entry[name]
    where = file if place is None else f"{file}, entry {place}"
    found = sorted(entry) if isinstance(entry, Mapping) else type(entry).__name__
    raise UserError(
        f"{where} lacks the field {name!r} (it holds {found}). Is this the layout that the task's "
        "YAML names?"
    )


def pictures_in(folder: str) -> list[Path]:
    """All pictures of a folder at any depth, sorted.

    Raises:
        UserError: If there are none.
    """
    found = sorted(p for p in Path(folder).rglob("*") if p.suffix.lower() in PICTURE_ENDINGS)
    if not found:
        raise UserError(f"there are no pictures ({', '.join(IMAGE_ENDINGS)}) under {folder!r}.")
    return found
