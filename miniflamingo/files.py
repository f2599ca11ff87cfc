"""Files of the program's own: written whole or not at all, read with their name in every error."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from miniflamingo.errors import UserError

MODE = 0o644
"""Everyone may read what is written, as safetensors alone would not let them."""


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a place to write to, which becomes the file once it is complete and on the disk.

    The place has a name that no other process uses, so that two that write the same file cannot
    damage it: the one that ends last wins. An error leaves the file as it was.

    Args:
        path: Where the file is to be; its folder is there.

    Yields:
        A path beside it, to be written and closed within the context.
    """
    unfinished = path.with_name(f".{path.name}.{os.getpid()}-{uuid.uuid4().hex[:8]}.part")
    try:
        yield unfinished
        with unfinished.open("rb+") as file:
            os.fsync(file.fileno())
        unfinished.chmod(MODE)
        unfinished.replace(path)
        flush_folder(path.parent)
    finally:
        unfinished.unlink(missing_ok=True)


def write_whole(path: Path, text: str) -> None:
    """Write a text in UTF-8, whole or not at all.

    Args:
        path: Where the file is to be; its folder is there.
        text: What it holds.
    """
    with whole_file(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def flush_folder(folder: Path) -> None:
    """Ask the system to keep a folder's names, so that a rename outlives a power cut."""
    if os.name == "nt":  # Windows opens no folders, and keeps names by itself
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Args:
        path: A file that is there.

    Raises:
        UserError: If it holds no JSON in UTF-8.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(
            f"{path} holds no JSON ({error}). It is damaged, or was edited: put the original there."
        ) from error
