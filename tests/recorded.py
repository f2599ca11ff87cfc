"""Training on two ranks that writes down what it read, in a process without threads of autograd."""

import json
import os
import signal

import lightning as L
import torch
from command import FORKS, finish

from miniflamingo import MiniFlamingoProcessor
from miniflamingo.data.datamodule import InterleavedData
from miniflamingo.data.source import SourceConfig
from miniflamingo.tokens import load_tokenizer

STEPS = 12


class Records(L.LightningModule):
    """Trains one number and writes down the keys and losses of each step."""

    def __init__(self, folder, killed_at=None):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.folder, self.killed_at = folder, killed_at

    def training_step(self, batch, batch_idx):
        if self.global_step == self.killed_at:
            os.kill(os.getpid(), signal.SIGKILL)
        losses = [(self.weight - part.pixels.mean()) ** 2 for part in batch.values()]
        keys = {name: part.keys for name, part in batch.items()}
        with (self.folder / f"{self.global_rank}.jsonl").open("a") as file:
            file.write(json.dumps([self.global_step, keys, [x.item() for x in losses]]) + "\n")
        return torch.stack(losses).sum()

    def validation_step(self, batch, batch_idx):
        with (self.folder / f"{self.global_rank}.validation").open("a") as file:
            file.write(json.dumps(batch.keys) + "\n")

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def _train(folder, language, preprocessing, workers, mixture, checkpoint, killed_at):
    def source(name, **settings):
        return SourceConfig(f"{folder.parent}/{name}/*.tar", 2, shuffle=3, **settings)

    data = InterleavedData(
        MiniFlamingoProcessor(load_tokenizer(language), preprocessing),
        {"pairs": source("pairs"), "documents": source("documents", weight=2.0)},
        source("validation"),
        num_workers=workers,
        mixture=mixture,
    )
    trainer = L.Trainer(
        accelerator="cpu",
        strategy="ddp_fork",
        devices=2,
        max_steps=STEPS,
        val_check_interval=5,
        num_sanity_val_steps=0,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[L.pytorch.callbacks.ModelCheckpoint(folder, "last", every_n_train_steps=3)],
    )
    trainer.fit(Records(folder, killed_at), data, ckpt_path=checkpoint, weights_only=True)


def train(
    folder, language, preprocessing, workers=0, mixture="all", checkpoint=None, killed_at=None
):
    """Train two ranks on the sources beside a folder, which gets what each reads.

    Returns:
        The exit code; 0 if training came to its end.
    """
    settings = (folder, language, preprocessing, workers, mixture, checkpoint, killed_at)
    process = FORKS.Process(target=_train, args=settings)
    process.start()
    return finish(process)
