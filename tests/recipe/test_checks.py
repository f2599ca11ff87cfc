"""A mistake in a recipe is told by its key, before anything is loaded."""

from contextlib import nullcontext

import pytest
import yaml
from conftest import RESAMPLER, XATTN

from miniflamingo.cli.describe import read_recipe
from miniflamingo.model import flamingo
from miniflamingo.recipe import checks
from miniflamingo.recipe.checks import check_disk, check_recipe, check_started


@pytest.fixture
def settings(tmp_path, language_folder, clip_folder, monkeypatch):
    """Write a recipe with three shards a source and some options, and parse it; nothing loads."""

    def refuse(*args, **kwargs):
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(flamingo, "load_language", refuse)
    monkeypatch.setattr(flamingo, "load_vision", refuse)
    for shard in range(3):
        (tmp_path / f"{shard}.tar").write_bytes(b"")
    recipe = {
        "model": {
            "language": str(language_folder),
            "vision": {"name": f"local-dir:{clip_folder}"},
            "resampler": RESAMPLER,
            "xattn": XATTN,
            "optim": {},
        },
        "data": {
            "sources": {"pairs": {"urls": f"{tmp_path}/*.tar", "batch_size": 2}},
            "validation": {"urls": f"{tmp_path}/0.tar", "batch_size": 2},
        },
        "trainer": {"devices": 1, "default_root_dir": str(tmp_path / "run")},
    }
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return lambda *options: read_recipe([str(path)], options)


def test_a_good_recipe_passes_and_leaves_an_empty_folder(settings, tmp_path):
    check_recipe(settings(), training=True)
    assert list((tmp_path / "run").iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--data.sources.pairs.batch_size=0"], r"data.sources.pairs.batch_size=0 must be at le"),
        (["--data.validation.batch_size=0"], r"data.validation.batch_size=0 must be at least 1"),
        (["--data.max_tokens=0"], r"data.max_tokens=0 must be at least 1"),
        (["--data.num_workers=-1"], r"data.num_workers=-1 must be at least 0"),
        (["--data.sources={}"], r"data.sources is empty"),
        (["--model.resampler.latents=0"], r"model.resampler.latents=0 must be at least 1"),
        (["--model.xattn.every=0"], r"model.xattn.every=0 must be at least 1"),
        (["--model.xattn.first=7"], r"xattn.first=7 leaves no layer to put a gated block before"),
        (["--model.vision.stages=[9]"], r"gives no patch features for vision.stages=\[9\]"),
        (["--model.language=/nowhere"], r"language='/nowhere' looks like a folder but nothing is"),
        (["--data.validation.urls=no/*.tar"], r"data.validation.urls: no shards at 'no/\*.tar'"),
        (["--data.num_workers=4"], r"data.sources.pairs: 3 shards of .* cannot feed 4 readers"),
        (
            ["--trainer.devices=2", "--trainer.num_nodes=2"],
            r"3 shards of .* cannot feed 4 readers \(ranks x",
        ),
        (["--trainer.devices=[0,1,2,3]"], r"3 shards of .* cannot feed 4 readers"),
        (["--trainer.devices=0,1,2,3"], r"3 shards of .* cannot feed 4 readers"),
        (["--model.optim.schedule=cosine"], r"cosine needs to know the last step; set trainer.max"),
        (
            ["--trainer.default_root_dir=/proc/run"],
            r"trainer.default_root_dir='/proc/run' takes no",
        ),
    ],
)
def test_a_mistake_is_told_by_its_key(settings, options, message):
    with pytest.raises(ValueError, match=message):
        check_recipe(settings(*options), training=True)


def test_devices_that_only_lightning_knows_are_not_counted(settings):
    check_recipe(settings("--trainer.devices=auto", "--data.num_workers=3"), training=True)


def test_a_named_checkpoint_must_be_there(settings):
    config = settings()
    for known in (None, "last", __file__):
        config["ckpt_path"] = known
        check_recipe(config, training=False)
    config["ckpt_path"] = "runs/lost.ckpt"
    with pytest.raises(ValueError, match=r"--ckpt_path runs/lost.ckpt: there is no such file"):
        check_recipe(config, training=False)


def test_a_file_in_the_way_of_the_run(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(ValueError, match="takes no files: File exists"):
        check_disk(tmp_path / "run", 0)


def test_a_folder_without_room(tmp_path, monkeypatch):
    usage = checks.shutil.disk_usage(tmp_path)
    monkeypatch.setattr(checks.shutil, "disk_usage", lambda path: usage._replace(free=5 * 10**9))
    check_disk(tmp_path, 10**9)
    with pytest.raises(ValueError, match=r"has 5 GB left, but checkpoints need 6 GB \(3 of 2 GB"):
        check_disk(tmp_path, 2 * 10**9)


def test_what_an_earlier_run_left_counts_but_not_for_what_is_being_written(tmp_path, monkeypatch):
    (tmp_path / "checkpoints").mkdir()
    for number in range(4):
        (tmp_path / "checkpoints" / f"step={number}.ckpt").write_bytes(bytes(1000))
    usage = checks.shutil.disk_usage(tmp_path)
    for free, enough in ((1000, True), (999, False)):
        monkeypatch.setattr(checks.shutil, "disk_usage", lambda _, f=free: usage._replace(free=f))
        with nullcontext() if enough else pytest.raises(ValueError, match="checkpoints need 3e-06"):
            check_disk(tmp_path, 1000)


@pytest.mark.parametrize(
    ("environment", "launcher"),
    [
        ({"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "2"}, "torchrun"),
        ({"SLURM_STEP_ID": "0", "SLURM_NTASKS": "2"}, "srun"),
    ],
)
def test_as_many_ranks_as_were_started(environment, launcher):
    for ranks in (2, None):
        check_started(ranks, environment)
    with pytest.raises(ValueError, match=f"{launcher} started 2 processes, but trainer.devices x"):
        check_started(1, environment)
    check_started(1, {})
