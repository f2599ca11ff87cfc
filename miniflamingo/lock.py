"""A folder that one process at a time may write."""

from __future__ import annotations

import atexit
import json
import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from miniflamingo.errors import UserError

if os.name == "posix":
    import fcntl

log = logging.getLogger(__name__)

LOCK = ".lock"


def started_at(pid: int) -> str:
    """When a process of this machine started, in its kernel's own count; empty if not known."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    return status.rpartition(")")[2].split()[19]  # the name before it may hold anything


def hold(folder: Path) -> IO[str] | None:
    """Let this process alone write a folder, until it ends.

    The system gives the lock up with the process, however that ends. What the file says is for
    people.

    Args:
        folder: It is there.

    Returns:
        The open file, which is the lock; None on Windows, where there is none.

    Raises:
        UserError: If another process holds it, with its host, id and start.
    """
    if os.name != "posix":
        return None
    path = folder / LOCK
    file = path.open("a+")
    file.seek(0)
    before = file.read()
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        raise UserError(
            f"{folder} is being written by another process ({holder(before)}). Stop that one, or "
            "wait for its end; two would damage each other's files."
        ) from error
    if before:
        log.info("%s: the process that held it is gone (%s).", path, holder(before))
    file.seek(0)
    file.truncate()
    described = {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "started": time.strftime("%Y-%m-%d %H:%M:%S"),
        "ticks": started_at(os.getpid()),
    }
    file.write(json.dumps(described) + "\n")
    file.flush()
    atexit.register(release, file)
    return file


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold a folder while the context lasts; raises as ``hold``."""
    file = hold(folder)
    try:
        yield
    finally:
        if file is not None:
            release(file)


def holder(text: str) -> str:
    """Say who holds a lock, as far as its file tells."""
    try:
        found = json.loads(text)
        return f"process {found['pid']} on {found['host']}, since {found['started']}"
    except (ValueError, KeyError, TypeError):
        return "which has not said who it is"


def release(file: IO[str]) -> None:
    """Give a lock up, and leave no name behind. Called again, or in a copy, it does nothing."""
    if file.closed or str(os.getpid()) not in os.fsdecode(Path(file.name).read_bytes()):
        return
    file.seek(0)
    file.truncate()
    file.close()
