"""A validation that was due when a run was cut off is made up for when the run goes on."""

from __future__ import annotations

from pathlib import Path

import lightning as L
from lightning.pytorch.trainer.states import TrainerFn

from miniflamingo.files import write_whole

FILE = ".validated"
"""In the run's folder: the last step that was validated."""


class DueValidation(L.Callback):
    """Validates first where the checkpoint was written after a step but before its validation.

    Lightning writes a step's checkpoint, then validates, and a run that goes on starts with the
    next step: what was killed during a validation, or told to stop just before it, would never be
    validated at that step, and its best checkpoint be that of another. The checkpoint cannot tell
    whether its step was validated later, so a file beside it does.
    """

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Note the step that has been validated."""
        file = place(trainer)
        fitting = trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking
        if fitting and trainer.is_global_zero and file is not None:
            write_whole(file, f"{trainer.global_step}\n")

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Validate, if it was due at the step that the checkpoint is of."""
        epoch, file = trainer.fit_loop.epoch_loop, place(trainer)
        done, every = epoch.batch_progress.current.ready, trainer.val_check_batch
        if not trainer.enable_validation or not done or not isinstance(every, int) or done % every:
            return
        known = file is not None and file.is_file() and file.read_text().strip()
        if trainer.strategy.broadcast(known == str(trainer.global_step)):
            return
        trainer.validating = True  # so that what is logged is the validation's
        epoch.val_loop.run()
        trainer.training = True


def place(trainer: L.Trainer) -> Path | None:
    """Where the note lies; None where the run's folder is no local one."""
    run = str(trainer.default_root_dir)
    return None if "://" in run else Path(run) / FILE
