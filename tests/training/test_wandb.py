"""Weights & Biases by configuration alone, without a network."""

import json
from pathlib import Path

import pytest
import wandb
from lightning.pytorch.loggers.logger import DummyLogger
from matplotlib.figure import Figure

from miniflamingo.cli.fit import run_command
from miniflamingo.cli.latents import main as latents
from miniflamingo.evaluation.callbacks.sample_captions import show

HISTORY = {"class_path": "miniflamingo.latents.history.LatentsHistory", "init_args": {"every": 2}}


@pytest.fixture
def offline(monkeypatch):
    """No network, and no run left open."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    yield
    wandb.finish()


def test_a_run_logs_to_wandb_and_all_else_stays_as_it_is(offline, config, write, tmp_path):
    run = tmp_path / "run"
    config["trainer"]["callbacks"] = [HISTORY, *config["trainer"]["callbacks"]]
    config["trainer"]["callbacks"][-1]["init_args"].pop("dirpath")
    config["trainer"] |= {
        "max_steps": 3,
        "val_check_interval": 3,
        "logger": {
            "class_path": "lightning.pytorch.loggers.WandbLogger",
            "init_args": {"project": "flamingo", "id": "toy", "save_dir": str(run)},
        },
    }
    line = ["fit", "--config", write(config), "--trainer.enable_progress_bar=false"]
    run_command(line)
    assert wandb.run is not None
    seen = {**wandb.run.summary}
    assert wandb.run.config["model"]["xattn"]["start"] == "zero_outputs"
    (picture,) = seen["samples"]["filenames"]
    (file,) = Path(wandb.run.dir).glob(f"**/{Path(picture).name}")
    assert file.read_bytes() == (run / "samples" / "step_000003.png").read_bytes()
    scalars = {"train/loss/pairs", "val/loss", "gate/ffw/0", "latents/drift", "data/pairs/read"}
    assert scalars <= seen.keys()

    # Checkpoints, curves, summary and history lie where they lie without it.
    assert "val/loss" in (run / "summary.md").read_text()
    assert (run / "curves.png").is_file()
    latents(["history", "--run", str(run), "--out", str(tmp_path / "out")])
    assert json.loads((tmp_path / "out" / "history.json").read_text())
    assert (run / "checkpoints" / "last.ckpt").is_file()
    assert (run / "config.yaml").is_file()


def test_every_logger_that_takes_images_gets_the_samples():
    class Shelf(DummyLogger):
        def log_image(self, key, images, step):
            self.given = key, images, step

    shelf = Shelf()
    for logger in (shelf, DummyLogger()):
        show(logger, Figure(), Path("sheet.png"), 7)
    assert shelf.given == ("samples", ["sheet.png"], 7)
