"""What a reading process does before it reads."""

from __future__ import annotations

import os
import signal
import threading

STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
"""SIGTERM is what SLURM, Kubernetes and torchrun send; ``sbatch --signal=USR1@120`` the other."""


def hold_back_stop_signals() -> None:
    """Block the stop signals of this thread and of those, and of the processes, that it starts."""
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)


def obey_parent_alone(worker: int = 0) -> None:
    """Let the training process alone decide when to stop.

    A scheduler signals every process of a job. A reading process that ended by it would take the
    run with it before anything is saved. SIGTERM from the training process itself must end the
    reading process all the same: Python sends it to all children on its way out and then waits for
    them, so that one which blocked it would keep a run that has failed alive for ever.

    Args:
        worker: Number of the reading process, which torch hands to a ``worker_init_fn``.
    """
    if not hasattr(signal, "sigwaitinfo"):  # macOS does not tell who sent a signal
        return
    hold_back_stop_signals()
    threading.Thread(target=_end_when_told, args=(os.getppid(),), daemon=True).start()


def _end_when_told(parent: int) -> None:
    """Take stop signals for the whole process, and exit by a SIGTERM of its parent."""
    while True:
        signal_info = signal.sigwaitinfo(STOP_SIGNALS)
        if signal_info.si_signo == signal.SIGTERM and signal_info.si_pid == parent:
            os._exit(0)
