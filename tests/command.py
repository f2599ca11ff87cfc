"""The real command in processes of its own, forked from one that has imported everything."""

import multiprocessing
import os
import resource
import signal
import socket
import sys
from pathlib import Path
from typing import Any

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["miniflamingo.cli.fit", "torch.utils.tensorboard"])


def _run(argv: list[str], log: str, environment: dict[str, str], most_bytes: int | None) -> None:
    os.setsid()  # a process group of its own, as a job of a scheduler has
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(out, 1)
    os.dup2(out, 2)
    # As in a terminal, also where whatever runs the tests has these ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    os.environ.update(environment)
    if most_bytes is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, resource.RLIM_INFINITY))
    multiprocessing.set_start_method("fork", force=True)  # as in a process that was not forked
    sys.argv = argv
    from miniflamingo.__main__ import main

    main()


def start(
    arguments: list[str],
    log: Path,
    environment: dict[str, str] | None = None,
    most_bytes: int | None = None,
) -> Any:
    """Start ``miniflamingo ARGUMENTS``.

    Args:
        arguments: Of the command line.
        log: File that gets what is printed.
        environment: Added to this process's.
        most_bytes: Size at which writing a file fails, as on a full disk.

    Returns:
        The process; ``exitcode`` is negative if a signal ended it.
    """
    process = FORKS.Process(
        target=_run, args=(["miniflamingo", *arguments], str(log), environment or {}, most_bytes)
    )
    process.start()
    return process


def finish(process: Any, seconds: float = 300) -> int:
    """Wait for a process and return its exit code; one that hangs is killed and fails the test."""
    process.join(seconds)
    if process.exitcode is None:
        process.kill()
        process.join()
        raise AssertionError(f"the command had not ended after {seconds} seconds")
    return process.exitcode


def start_ranks(arguments: list[str], log: Path, ranks: int = 2) -> list[Any]:
    """Start the ranks of one run as torchrun does; rank n prints into ``log`` with ``.n``."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": str(ranks),
        "LOCAL_WORLD_SIZE": str(ranks),
        "GROUP_RANK": "0",
        "TORCHELASTIC_RUN_ID": "tests",
        "CUDA_VISIBLE_DEVICES": "",
    }
    return [
        start(
            [*arguments, "--trainer.devices", str(ranks), "--trainer.strategy", "ddp"],
            log.with_suffix(f".{rank}"),
            shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
        )
        for rank in range(ranks)
    ]
