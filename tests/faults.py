"""Callbacks that do harm to a run at a step of one's choice, and one that watches."""

import os
import random
import signal
import subprocess
import time
from pathlib import Path

import lightning as L
import numpy as np
import torch


class Signalled(L.Callback):
    """Sends a signal to all processes of a rank, reading ones included, at the start of a step."""

    def __init__(self, step: int, name: str, rank: int = 0) -> None:
        self.step = step
        self.number = signal.Signals[name]
        self.rank = rank

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == self.step and trainer.global_rank == self.rank:
            # From outside, as a scheduler does: torch's reading processes forgive their parent.
            line = ["kill", f"-{self.number.value}", "--", f"-{os.getpgid(0)}"]
            subprocess.run(line, start_new_session=True, check=True)


class KilledInValidation(L.Callback):
    """Dies in the middle of the validation of a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_validation_batch_start(self, trainer, *rest):
        if trainer.global_step == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


class Late(L.Callback):
    """Holds rank 1 up before it looks for the others, when torchrun has started it again."""

    def __init__(self, seconds: float) -> None:
        if os.environ.get("TORCHELASTIC_RESTART_COUNT") == "1" and os.environ["RANK"] == "1":
            time.sleep(seconds)


class Poisoned(L.Callback):
    """Gives some steps pictures so bright that the image encoder overflows."""

    def __init__(self, steps: list[int], rank: int = 0) -> None:
        self.steps = steps
        self.rank = rank

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step in self.steps and trainer.global_rank == self.rank:
            batch["documents"].pixels.fill_(3e38)


class Drawn(L.Callback):
    """Writes a number of each random generator to a file, a line for each step."""

    def __init__(self, file: str) -> None:
        self.file = Path(file)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        numbers = random.random(), np.random.rand(), torch.rand(()).item()
        if trainer.is_global_zero:
            with self.file.open("a") as lines:
                lines.write(f"{trainer.global_step} {numbers}\n")
