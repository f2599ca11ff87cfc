"""Whatever ends a run of the real command, it goes on from its checkpoint as if undisturbed."""

import csv
import os
import signal
from pathlib import Path

import pytest
import torch
import yaml
from command import finish, start, start_ranks
from safetensors.torch import load_file

from miniflamingo.training.callbacks.preemption import REQUEUE
from miniflamingo.training.checkpoint import read_checkpoint

LAST = ["--ckpt_path", "last"]


@pytest.fixture
def recipe(config, tmp_path):
    """Write a recipe with one more callback, and return the line that trains it."""
    config["data"]["num_workers"] = 1
    config["trainer"]["val_check_interval"] = 3
    config["trainer"]["limit_val_batches"] = 1  # leaves a reading process behind that is not done
    config["data"]["validation"]["batch_size"] = 1
    usual = config["trainer"]["callbacks"][:-1]
    for init_args in (  # as in the shipped recipes, in steps of three
        {"monitor": "val/loss", "filename": "best"},
        {"every_n_train_steps": 3, "save_top_k": 0, "save_last": True},
    ):
        init_args["enable_version_counter"] = False
        checkpoint = "lightning.pytorch.callbacks.ModelCheckpoint"
        usual.append({"class_path": checkpoint, "init_args": init_args})

    def recipe(run, callback=None, **init_args):
        extra = [{"class_path": "faults.Drawn", "init_args": {"file": f"{run}.drawn"}}]
        if callback:
            extra.append({"class_path": f"faults.{callback}", "init_args": init_args})
        config["trainer"]["callbacks"] = [*usual, *extra]
        config["trainer"]["default_root_dir"] = str(run)
        path = tmp_path / f"{run.name}.yaml"
        path.write_text(yaml.safe_dump(config))
        return ["fit", "--config", str(path)]

    return recipe


@pytest.fixture(scope="module")
def finished():
    """Folders of undisturbed runs, by number of ranks; each is made once."""
    return {}


@pytest.fixture
def undisturbed(recipe, finished, tmp_path):
    def undisturbed(ranks=1):
        if ranks not in finished:
            line, log = recipe(tmp_path / "whole"), tmp_path / "whole.log"
            processes = [start(line, log)] if ranks == 1 else start_ranks(line, log, ranks)
            assert [finish(process) for process in processes] == [0] * ranks, log.read_text()
            finished[ranks] = tmp_path / "whole"
        return finished[ranks]

    return undisturbed


def exported(run: Path):
    return load_file(run / "model" / "model.safetensors")


def has_best(run: Path) -> bool:
    """Whether ``best.ckpt`` is of the step with the lowest validation loss."""
    rows = [row for file in run.rglob("metrics.csv") for row in csv.DictReader(file.open())]
    losses = {int(row["step"]): float(row["val/loss"]) for row in rows if row.get("val/loss")}
    best = read_checkpoint(run / "checkpoints" / "best.ckpt")["global_step"]
    return len(losses) == 2 and best == min(losses, key=losses.__getitem__) + 1


def assert_equal(found, expected):
    assert found.keys() == expected.keys()
    assert not [name for name in expected if not torch.equal(found[name], expected[name])]


def drawn(run: Path) -> str:
    """What the random generators gave in each step."""
    return run.with_suffix(".drawn").read_text()


def steps_saved(run: Path) -> int:
    return read_checkpoint(run / "checkpoints" / "last.ckpt")["global_step"]


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP"])
def test_a_preempted_run_saves_and_goes_on(recipe, undisturbed, tmp_path, name):
    run, log = tmp_path / "run", tmp_path / "log"
    assert finish(start(recipe(run, "Signalled", step=4, name=name), log)) == REQUEUE
    assert steps_saved(run) == 5  # the step that it was in was finished
    assert f"got {name}: stopped after step 5. Go on with" in log.read_text()
    assert not (run / "model").exists()  # not a trained model yet

    assert finish(start([*recipe(run), *LAST], log)) == 0
    assert_equal(exported(run), exported(undisturbed()))
    assert drawn(run) == drawn(undisturbed())


def test_a_killed_run_goes_on_whatever_the_disk_holds_meanwhile(recipe, undisturbed, tmp_path):
    """It loses the steps since its last checkpoint; a full disk leaves that checkpoint as it is."""
    run, log = tmp_path / "run", tmp_path / "log"
    assert finish(start(recipe(run, "Signalled", step=5, name="SIGKILL"), log)) == -signal.SIGKILL
    assert steps_saved(run) == 3
    last = run / "checkpoints" / "last.ckpt"
    before = last.read_bytes()

    # The folder takes what is tried before training, but not a whole checkpoint.
    resume = [*recipe(run), *LAST]
    assert finish(start(resume, log, most_bytes=len(before) // 2)) == 2
    told = log.read_text()
    assert f"cannot write the checkpoint {last}: [Errno 27] File too large. The one before" in told
    assert last.read_bytes() == before
    assert {file.name for file in last.parent.iterdir()} == {"last.ckpt", "best.ckpt"}

    assert finish(start(resume, log)) == 0
    assert_equal(exported(run), exported(undisturbed()))
    assert has_best(run)


def validated(run):
    """Steps of which a validation loss is recorded."""
    rows = [row for file in run.rglob("metrics.csv") for row in csv.DictReader(file.open())]
    return sorted({int(row["step"]) for row in rows if row.get("val/loss")})


def test_a_run_killed_during_a_validation_makes_up_for_it(recipe, undisturbed, tmp_path):
    run, log = tmp_path / "run", tmp_path / "log"
    killed = recipe(run, "KilledInValidation", step=3)
    assert finish(start(killed, log)) == -signal.SIGKILL
    assert steps_saved(run) == 3
    assert not validated(run)
    first = recipe(tmp_path / "other", "KilledInValidation", step=6)
    assert finish(start(first, log)) == -signal.SIGKILL
    assert "Still running" in (tmp_path / "other" / "summary.md").read_text()
    assert finish(start([*recipe(run), *LAST], log)) == 0
    assert len(validated(run)) == len(validated(undisturbed()))
    assert_equal(exported(run), exported(undisturbed()))
    assert has_best(run)


def test_one_preempted_rank_stops_both(recipe, undisturbed, tmp_path):
    run, log = tmp_path / "run", tmp_path / "log"
    ranks = start_ranks(recipe(run, "Signalled", step=4, name="SIGUSR1", rank=1), log)
    assert [finish(rank) for rank in ranks] == [REQUEUE, 0]
    assert steps_saved(run) == 5
    assert "rank 1 got SIGUSR1" in (tmp_path / "log.1").read_text()
    assert [finish(rank) for rank in start_ranks([*recipe(run), *LAST], log)] == [0, 0]
    assert_equal(exported(run), exported(undisturbed(ranks=2)))


@pytest.mark.parametrize("killed", [1, pytest.param(0, marks=pytest.mark.slow)])
def test_a_lost_rank_stops_the_other(recipe, tmp_path, killed):
    run, log = tmp_path / "run", tmp_path / "log"
    line = recipe(run, "Signalled", step=4, name="SIGKILL", rank=killed)
    ranks = start_ranks(line, log)
    assert finish(ranks[killed]) == -signal.SIGKILL
    assert finish(ranks[1 - killed], 60) == 1  # 10 where it has a core of its own
    told = (tmp_path / f"log.{1 - killed}").read_text()
    assert f"rank {1 - killed} lost another rank" in told
    assert "--ckpt_path last" in told
    assert steps_saved(run) == 3


def test_a_step_without_a_finite_loss_is_skipped_and_counted(recipe, tmp_path):
    run, log = tmp_path / "run", tmp_path / "log"
    every = "--trainer.callbacks+=lightning.pytorch.callbacks.ModelCheckpoint"
    each = [every, "--trainer.callbacks.every_n_train_steps=1", "--trainer.callbacks.save_top_k=-1"]
    line = [*recipe(run, "Poisoned", steps=[3]), *each, "--trainer.callbacks.filename={step}"]
    assert finish(start(line, log)) == 0, log.read_text()
    told = log.read_text()
    (line,) = (line for line in told.splitlines() if "step 4 is skipped" in line)
    assert "rank 0: step 4 is skipped, its loss is not finite; samples: " in line
    assert line.count("documents/d") == 2
    assert line.count("pairs/p") == 3
    before, after, later = (
        read_checkpoint(run / "checkpoints" / f"step={step}.ckpt") for step in (3, 4, 5)
    )
    assert_equal(after["state_dict"], before["state_dict"])
    moments = [each["optimizer_states"][0]["state"] for each in (before, after)]
    assert all(torch.equal(moments[0][i]["exp_avg"], moments[1][i]["exp_avg"]) for i in moments[0])
    latents = "model.resampler.latents"
    assert not torch.equal(later["state_dict"][latents], after["state_dict"][latents])
    assert all(value.isfinite().all() for value in exported(run).values())
    (metrics,) = run.rglob("metrics.csv")
    counts = [row["train/non_finite_steps"] for row in csv.DictReader(metrics.open())]
    assert {float(count) for count in counts if count} == {1.0}


def test_too_many_in_a_row_stop_all_ranks_naming_the_samples(recipe, tmp_path):
    run, log = tmp_path / "run", tmp_path / "log"
    line = [*recipe(run, "Poisoned", steps=[2, 3, 4], rank=1), "--non_finite.most_in_a_row", "2"]
    assert [finish(rank) for rank in start_ranks(line, log)] == [2, 2]
    logs = [(tmp_path / f"log.{rank}").read_text() for rank in (0, 1)]
    ends = [log.split("miniflamingo fit: ")[1] for log in logs]
    assert ends[0] == ends[1]
    assert "3 steps in a row, up to step 5, gave no finite loss or gradients" in ends[0]
    assert "documents/d" in ends[0]


@pytest.mark.slow
def test_a_run_goes_on_with_another_number_of_ranks(recipe, tmp_path):
    run, log = tmp_path / "run", tmp_path / "log"
    ranks = start_ranks(recipe(run, "Signalled", step=3, name="SIGTERM"), log)
    assert [finish(rank) for rank in ranks] == [REQUEUE, 0]
    assert finish(start([*recipe(run), *LAST, "--trainer.max_steps", "6"], log)) == 0
    assert steps_saved(run) == 6
    ranks = start_ranks([*recipe(run), *LAST, "--trainer.max_steps", "9"], log)
    assert [finish(rank) for rank in ranks] == [0, 0]
    assert steps_saved(run) == 9


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small file system")
def test_a_full_file_system_leaves_the_checkpoint_before(recipe, tmp_path):
    run, log = tmp_path / "run", tmp_path / "log"
    run.mkdir()
    assert os.system(f"mount -t tmpfs -o size=4M tmpfs {run}") == 0
    try:
        assert finish(start([*recipe(run), "--trainer.max_steps", "3"], log)) == 0
        before = (run / "checkpoints" / "last.ckpt").read_bytes()
        free = os.statvfs(run).f_bavail * os.statvfs(run).f_frsize
        (run / "filler").write_bytes(bytes(free - len(before) // 2))
        line = [*recipe(run), *LAST]
        assert finish(start(line, log)) == 2
        assert "left, but checkpoints need" in log.read_text()  # told before anything is loaded
        assert (run / "checkpoints" / "last.ckpt").read_bytes() == before
    finally:
        os.system(f"umount {run}")
