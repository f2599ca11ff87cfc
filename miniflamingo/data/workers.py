"""What a reading process does before it reads."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterable

SCHEDULERS = tuple(signal.Signals[name] for name in ("SIGTERM", "SIGUSR1") if hasattr(signal, name))
"""SIGTERM is what SLURM, Kubernetes and torchrun send; ``sbatch --signal=USR1@120`` the other."""

PEOPLES = tuple(signal.Signals[name] for name in ("SIGINT", "SIGHUP") if hasattr(signal, name))
"""Ctrl-C, and a terminal that is closed."""


def hold_back(signals: Iterable[signal.Signals]) -> None:
    """Block signals in this thread and in those, and in the processes, that it starts.

    Args:
        signals: Those to block; Windows, which cannot, is left as it is.
    """
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_BLOCK, signals)


def let_through(signals: Iterable[signal.Signals]) -> None:
    """Deliver signals that ``hold_back`` blocked, those that came meanwhile included.

    Args:
        signals: Those to unblock.
    """
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)


def obey_parent_alone(worker: int = 0) -> None:
    """Let the training process alone decide when to stop.

    A scheduler signals every process of a job, and a terminal every process of a command. A reading
    process that ended by it would take the
    run with it before anything is saved. SIGTERM from the training process itself must end the
    reading process all the same: Python sends it to all children on its way out and then waits for
    them, so that one which blocked it would keep a run that has failed alive for ever.

    Args:
        worker: Number of the reading process, which torch hands to a ``worker_init_fn``.
    """
    if not hasattr(signal, "sigwaitinfo"):  # macOS does not tell who sent a signal
        return
    hold_back((*SCHEDULERS, *PEOPLES))
    threading.Thread(target=_end_when_told, args=(os.getppid(),), daemon=True).start()


def _end_when_told(parent: int) -> None:
    """Take stop signals for the whole process, and exit by a SIGTERM of its parent."""
    while True:
        signal_info = signal.sigwaitinfo((*SCHEDULERS, *PEOPLES))
        if signal_info.si_signo == signal.SIGTERM and signal_info.si_pid == parent:
            os._exit(0)
