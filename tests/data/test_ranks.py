"""Two ranks of a real trainer, killed and resumed."""

import json
import os
import signal
from collections import Counter

import lightning as L
import pytest
import tiny
import torch
from torch.multiprocessing import ProcessExitedException

from miniflamingo.data.datamodule import InterleavedData
from miniflamingo.data.source import SourceConfig

SIZES = {"pairs": [9, 1, 4, 13], "documents": [2, 7, 1, 5]}
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


@pytest.fixture
def fit(processor, tmp_path):
    """Train two ranks, forked from this process; returns what each wrote down."""
    for name, sizes in SIZES.items():
        for shard, size in enumerate(sizes):
            samples = {f"{name}{shard}-{i}": tiny.pair("a", 20 * shard + i) for i in range(size)}
            tiny.write_shard(tmp_path / name / f"{shard}.tar", samples)
    bad = {"png": b"no", "txt": b"a"}
    samples = {str(i): bad if i in (1, 3) else tiny.pair("a", i) for i in range(7)}
    tiny.write_shard(tmp_path / "validation" / "0.tar", samples)

    def source(name, **settings):
        return SourceConfig(f"{tmp_path}/{name}/*.tar", 2, shuffle=3, **settings)

    def fit(name, workers=0, mixture="all", checkpoint=None, **settings):
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        data = InterleavedData(
            processor,
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
        path = checkpoint and tmp_path / checkpoint / "last.ckpt"
        trainer.fit(Records(folder, **settings), data, ckpt_path=path, weights_only=True)
        return [read(folder / f"{rank}.jsonl") for rank in range(2)]

    return fit


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize(
    ("workers", "mixture"),
    [(0, "all"), pytest.param(2, "all", marks=pytest.mark.slow), (0, "sample")],
)
def test_two_ranks_killed_at_a_step_go_on_as_if_undisturbed(fit, workers, mixture):
    whole = fit("whole", workers, mixture)
    with pytest.raises(ProcessExitedException, match="SIGKILL"):
        fit("killed", workers, mixture, killed_at=8)
    rest = fit("rest", workers, mixture, checkpoint="killed")
    for mine, expected in zip(rest, whole, strict=True):
        assert mine == expected[6:]  # keys and losses alike, from the last checkpoint on
    if mixture == "sample":
        assert [list(step[1]) for step in whole[0]] == [list(step[1]) for step in whole[1]]


def test_uneven_shards_hold_up_nobody(fit, tmp_path):
    """Ranks come to the ends of their epochs at different steps."""
    ranks = fit("run")
    assert [len(steps) for steps in ranks] == [STEPS, STEPS]
    for name, sizes in SIZES.items():
        found = Counter(key for steps in ranks for step in steps for key in step[1][name])
        assert len(found) == sum(sizes)
    validated = [read(tmp_path / "run" / f"{rank}.validation") for rank in range(2)]
    assert validated == [[["0", "2"], ["4", "6"]] * 2, [["5", "5"], ["5", "5"]] * 2]
