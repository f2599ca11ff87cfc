"""Told to stop, by a scheduler or a person: save at the end of the step and leave."""

from __future__ import annotations

import logging
import os
import signal
from pathlib import Path
from types import FrameType
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import ModelCheckpoint

from miniflamingo.data.workers import PEOPLES, SCHEDULERS, hold_back, let_through

log = logging.getLogger(__name__)

REQUEUE = 75
"""Exit code of a run that was told to stop and can go on: EX_TEMPFAIL of sysexits.h."""

STOPPING = (
    b"\nminiflamingo fit: saves and stops after this step; Ctrl-C again stops at once, unsaved.\n"
)


class Preemption(L.Callback):
    """Told to stop, saves ``last.ckpt`` at the next step boundary and exits with REQUEUE.

    SIGTERM and SIGUSR1 are a scheduler's words for it, Ctrl-C and a closed terminal a person's. A
    second Ctrl-C stops at once, and saves nothing.

    One rank having got the signal is enough: all ranks stop at the same step. Of the ranks of a
    machine the first exits with the code and the others with 0: srun and Lightning's launcher
    would kill those still leaving as soon as one has failed. A validation that is running is
    finished first.

    Lightning's own handlers are replaced: in a run of several ranks they start a collective in the
    middle of whatever the rank was doing.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Hold the signals back until training starts, here and in the processes started now."""
        hold_back(SCHEDULERS)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Take the signals from here on, one held back included."""
        self.received = None
        for each in (*SCHEDULERS, *PEOPLES):
            if signal.getsignal(each) != signal.SIG_IGN:  # nohup ignores SIGHUP, and so do we
                signal.signal(each, self.remember)
        let_through(SCHEDULERS)

    def remember(self, number: int, frame: FrameType | None) -> None:
        """The signal handler: what is to be done is done between two steps.

        Raises:
            KeyboardInterrupt: At a second Ctrl-C.
        """
        if number == signal.SIGINT:
            if self.received is signal.SIGINT:
                raise KeyboardInterrupt
            # Not by print or log: this may interrupt one of their own calls.
            os.write(2, STOPPING)
        self.received = signal.Signals(number)

    def on_train_batch_end(
        self,
        trainer: L.Trainer,
        pl_module: L.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Save and exit, if a rank got a signal and the optimiser has stepped.

        Raises:
            SystemExit: With REQUEUE on the first rank of each machine and 0 on the others.
        """
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        told = self.received is not None
        if not trainer.strategy.reduce_boolean_decision(told, all=False):
            return
        path = checkpoint_place(trainer) / "last.ckpt"
        trainer.save_checkpoint(path)
        if self.received is not None:
            log.warning(
                "rank %d got %s: stopped after step %d. Go on with the same command and "
                "--ckpt_path last (%s).",
                trainer.global_rank,
                self.received.name,
                trainer.global_step,
                path,
            )
        raise SystemExit(REQUEUE if trainer.local_rank == 0 else 0)  # type: ignore[attr-defined]

    def on_exception(
        self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException
    ) -> None:
        """Hold nothing back any more."""
        let_through(SCHEDULERS)

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Hold nothing back any more, where there was nothing left to train."""
        let_through(SCHEDULERS)


def checkpoint_place(trainer: L.Trainer) -> Path:
    """Folder in which ``--ckpt_path last`` looks."""
    for callback in trainer.checkpoint_callbacks:
        if isinstance(callback, ModelCheckpoint) and callback.dirpath is not None:
            return Path(callback.dirpath)
    return Path(trainer.default_root_dir) / "checkpoints"
