"""Two ranks by the launchers that people use: each hands on what a preempted run says."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from miniflamingo.training.callbacks.preemption import REQUEUE
from miniflamingo.training.checkpoint import read_checkpoint

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.slow


@pytest.fixture
def preempted(config, write, tmp_path):
    """A recipe of which rank 0 gets SIGTERM in its fifth step, the first time."""
    signalled = {"class_path": "faults.Signalled", "init_args": {"step": 4, "name": "SIGTERM"}}
    config["trainer"]["callbacks"].append(signalled)
    return ["--config", write(config)]


def run(line, **environment):
    """Run a command of the repository in a process group of its own."""
    done = subprocess.run(
        line,
        cwd=ROOT,
        env=os.environ | environment | {"PYTHONPATH": f"{ROOT}:{ROOT}/tests"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        timeout=400,
        start_new_session=True,
    )
    return done.returncode, done.stdout


def test_lightning_hands_the_code_on(preempted, tmp_path):
    line = [sys.executable, "-m", "miniflamingo", "fit", *preempted]
    code, shown = run([*line, "--trainer.devices", "2", "--trainer.strategy", "ddp"])
    assert code == REQUEUE, shown
    assert read_checkpoint(tmp_path / "run" / "checkpoints" / "last.ckpt")["global_step"] == 5


def test_torchrun_starts_the_ranks_again(preempted, tmp_path):
    late = ["--trainer.callbacks+=faults.Late", "--trainer.callbacks.seconds=8"]
    line = ["configs/cluster/torchrun.sh", *preempted, "--trainer.accelerator", "cpu", *late]
    code, shown = run(line, PROCESSES="2", RESTARTS="1")
    assert code == 0, shown
    assert "MEMBER: 2/2" in shown  # the recipe says one device
    assert "rank 0 got SIGTERM: stopped after step 5" in shown
    assert "Restored all states from the checkpoint" in shown
    assert (tmp_path / "run" / "model" / "model.safetensors").is_file()
