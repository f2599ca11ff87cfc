"""A run's folder: that of one run, written by one process."""

from __future__ import annotations

import atexit
import json
import logging
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from miniflamingo.errors import UserError

if os.name == "posix":
    import fcntl

log = logging.getLogger(__name__)

RESULTS = ("checkpoints/*.ckpt", "model")
"""What only a run that has trained leaves behind. No rank can write any of it before all have
started, so that one which starts late does not take it for an earlier run's."""

RECORDS = (
    "checkpoints",
    "model",
    "csv",
    "samples",
    "latents",
    "fewshot",
    "events.out.tfevents.*",
    "summary.md",
    "curves.png",
    "config.yaml",
    ".validated",
)
"""All that a run, or the evaluation of its model, writes there."""

LOCK = ".lock"

RANK_NAMES = ("RANK", "LOCAL_RANK", "SLURM_PROCID")


def is_first_rank(environment: Mapping[str, str]) -> bool:
    """Tell whether this process is the run's first, before ranks know of each other.

    Args:
        environment: In which torchrun, Lightning's launcher or srun say which rank this is.
    """
    ranks = (environment[name] for name in RANK_NAMES if name in environment)
    return next(ranks, "0") == "0"


def check_unused(run: Path) -> None:
    """A new run needs a folder without an earlier one.

    Args:
        run: ``trainer.default_root_dir``.

    Raises:
        UserError: If there is an earlier run's checkpoint or model.
    """
    found = sorted(path for pattern in RESULTS for path in run.glob(pattern))
    if found:
        raise UserError(
            f"trainer.default_root_dir={str(run)!r} holds an earlier run "
            f"({found[0].relative_to(run)}). Go on with it: --ckpt_path last. Set it aside "
            "and train anew: --overwrite. Or give another --trainer.default_root_dir."
        )


def set_aside(run: Path) -> Path | None:
    """Move what an earlier run left into a folder of its own, and nothing else.

    It is not deleted: a new run that fails at its first step must not have cost a trained model.

    Args:
        run: The folder, which is there.

    Returns:
        ``RUN/earlier/N``; None if there was nothing.
    """
    found = [path for pattern in RECORDS for path in run.glob(pattern)]
    if not found:
        return None
    before = [int(path.name) for path in run.glob("earlier/*") if path.name.isdigit()]
    place = run / "earlier" / str(1 + max(before, default=0))
    place.mkdir(parents=True)
    for path in found:
        path.rename(place / path.name)
    log.info("%s: the earlier run is in %s now; delete it when you need it no more.", run, place)
    return place


def started_at(pid: int) -> str:
    """When a process of this machine started, in its kernel's own count; empty if not known."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    return status.rpartition(")")[2].split()[19]  # the name before it may hold anything


def hold(run: Path) -> IO[str] | None:
    """Let this process alone write a run's folder, until it ends.

    The system gives the lock up with the process, however that ends. What the file says is for
    people.

    Args:
        run: The folder, which is there.

    Returns:
        The open file, which is the lock; None on Windows, where there is none.

    Raises:
        UserError: If another process holds it, with its host, id and start.
    """
    if os.name != "posix":
        return None
    path = run / LOCK
    file = path.open("a+")
    file.seek(0)
    before = file.read()
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        raise UserError(
            f"{run} is being written by another process ({holder(before)}). Stop that one, or wait "
            "for its end; two would damage each other's checkpoints."
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
