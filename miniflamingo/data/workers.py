"""What a reading process does before it reads."""

from __future__ import annotations

import signal

STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
"""SIGTERM is what SLURM, Kubernetes and torchrun send; ``sbatch --signal=USR1@120`` the other."""


def hold_back_stop_signals(worker: int = 0) -> None:
    """Let the training process alone decide when to stop.

    A scheduler signals every process of a job. A reading process that ended by it would take the
    run with it before anything is saved.

    Args:
        worker: Number of the reading process, which torch hands to a ``worker_init_fn``.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
