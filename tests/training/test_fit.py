"""``miniflamingo fit`` on a toy world: it learns, resumes exactly, and says what is wrong."""

import csv
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
import torch
import yaml
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from miniflamingo import MiniFlamingo, MiniFlamingoProcessor
from miniflamingo.__main__ import main
from miniflamingo.model.export import is_own_weight
from miniflamingo.training.checkpoint import read_checkpoint


@pytest.fixture
def fit(write, monkeypatch):
    """Run the command in this process and return its folder."""

    def fit(config, *arguments, command="fit"):
        line = ["miniflamingo", command, "--config", write(config), *arguments]
        monkeypatch.setattr(sys, "argv", line)
        main()
        return Path(config["trainer"]["default_root_dir"])

    return fit


def weights(run):
    return load_file(run / "model" / "model.safetensors")


def logged(run, name):
    """A column of the CSV log, {step: value}."""
    (file,) = run.rglob("metrics.csv")
    rows = list(csv.DictReader(file.open()))
    return {int(row["step"]): float(row[name]) for row in rows if row.get(name)}


def assert_same_weights(run, other):
    mine, others = weights(run), weights(other)
    assert mine.keys() == others.keys()
    different = [name for name in mine if not torch.equal(mine[name], others[name])]
    assert not different


@pytest.mark.parametrize("workers", [0, 2])
def test_a_killed_run_goes_on_to_exactly_the_same_weights(fit, config, tmp_path, workers):
    config["data"]["num_workers"] = workers
    whole = fit(config).rename(tmp_path / "whole")

    killed = {"class_path": "tiny.Killed", "init_args": {"step": 5}}
    callbacks = config["trainer"]["callbacks"]
    config["trainer"]["callbacks"] = [*callbacks, killed]
    with pytest.raises(SystemExit):
        fit(config)
    config["trainer"]["callbacks"] = callbacks
    run = fit(config, "--ckpt_path", "last")
    assert_same_weights(run, whole)

    # It was step 3 that it went on from, not the beginning.
    assert "warm_start/recall" not in (run / "csv/version_1/metrics.csv").read_text()
    assert min(logged_from(run / "csv/version_1/metrics.csv")) >= 3


def logged_from(file):
    return [int(row["step"]) for row in csv.DictReader(file.open()) if row["step"]]


def test_fit_trains_logs_checkpoints_and_exports(fit, config, capsys):
    run = fit(config)
    shown = capsys.readouterr().out
    assert "learned latents" in shown
    assert "exported to" in shown

    # A checkpoint holds the new weights and nothing frozen.
    checkpoint = torch.load(run / "checkpoints" / "step=3.ckpt", weights_only=True)
    names = {name.removeprefix("model.") for name in checkpoint["state_dict"]}
    assert names == set(weights(run))
    assert all(is_own_weight(name) for name in names)
    pairs = checkpoint["InterleavedData"]["pairs"]
    assert pairs["batches"] == 3
    assert pairs["counts"]["used"] == 9

    # The exported folder is the last step's model.
    model = MiniFlamingo.from_pretrained(run / "model")
    last = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    for name, value in model.state_dict().items():
        if is_own_weight(name):
            assert torch.equal(value, last[f"model.{name}"]), name
    MiniFlamingoProcessor.from_pretrained(run / "model")
    assert model.resampler.patch_std.max() != 1  # the warm start standardised

    for source in ("pairs", "documents"):
        losses = logged(run, f"train/loss/{source}")
        assert list(losses) == [1, 3, 5]
    validation = logged(run, "val/loss")
    assert validation[5] < validation[1]  # of the same documents, unlike a training step's
    assert set(validation) == set(logged(run, "val/loss_swapped"))
    assert logged(run, "val/loss") != logged(run, "val/loss_swapped")
    assert len(logged(run, "warm_start/recall")) == 1
    assert all(speed > 0 for speed in logged(run, "train/tokens_per_s").values())
    norms = logged(run, "grad_norm/learned_latents")
    gates = logged(run, "gate/attention/1")
    drift = logged(run, "latents/drift")
    assert list(norms) == list(gates) == list(drift) == [1, 3, 5]
    assert min(norms.values()) > 0  # of that step: at step 0 the outputs are still zero
    assert 0 == drift[1] < drift[3] < drift[5] < 1  # the first gradient was zero
    assert min(logged(run, "grad_norm/gated_crossattention").values()) > 0

    # One page about it, and what the model says of held-out pictures.
    page = (run / "summary.md").read_text()
    assert page.startswith("# run\n\nCame to its end, at step 6 of 6, after")
    last = f"{validation[5]:.4g}"
    assert re.search(rf"\| val/loss \| {validation[1]:.4g} \| {last} \| {last} \| 5 \|", page)
    assert (run / "curves.png").stat().st_size > 10_000
    sheets = sorted(file.name for file in (run / "samples").iterdir())
    assert sheets == ["step_000002.png", "step_000004.png", "step_000006.png"]
    events = EventAccumulator(str(run)).Reload()
    assert [image.step for image in events.Images("samples")] == [2, 4, 6]

    # What was read, in the log and as a table; the loss weight is the source's own.
    assert list(logged(run, "data/pairs/read").values()) == [6, 12, 18]
    assert logged(run, "data/documents/used") == {1: 4, 3: 8, 5: 12}
    assert re.search(r"pairs +│ read +│ +18 │ +│\n│ +│ used +│ +18 │ 100.00% │", shown)

    # The run's own configuration was saved with it and parses.
    saved = yaml.safe_load(next(run.rglob("config.yaml")).read_text())
    assert saved["model"]["optim"]["lr"] == 0.01

    fit(config, "--ckpt_path", str(run / "checkpoints" / "last.ckpt"), command="validate")
    assert "val/loss" in capsys.readouterr().out


def test_validation_by_hand(fit, config, processor, world):
    """The logged loss is the mean over tokens of all validation documents."""
    from miniflamingo.data.layouts.choose import to_document
    from miniflamingo.data.shards import find_shards, read_samples

    config["trainer"]["max_steps"] = 2
    run = fit(config)
    model = MiniFlamingo.from_pretrained(run / "model")
    shards = find_shards(f"{world}/validation/*.tar")
    batch = processor.batch([to_document(sample) for sample in read_samples(shards)])
    with torch.no_grad():
        losses = model.token_losses(batch.input_ids, batch.position_ids, batch.media, batch.labels)
        places = (batch.input_ids == model.tokens.image).cumsum(1)[:, 1:]
    places = places[batch.labels[:, 1:] != -100]
    assert logged(run, "val/loss")[1] == pytest.approx(losses.mean().item(), rel=1e-4)
    for place in (0, 1):
        expected = losses[places == place + 1].mean().item()
        assert logged(run, f"val/loss_by_place/{place}")[1] == pytest.approx(expected, rel=1e-4)


def test_a_misspelt_key_is_refused(fit, config, capsys):
    config["model"]["optim"]["learning_rate"] = 1.0
    with pytest.raises(SystemExit) as exit_:
        fit(config)
    assert exit_.value.code == 2
    assert "learning_rate" in capsys.readouterr().err


def test_a_misspelt_option_is_refused(fit, config, capsys):
    with pytest.raises(SystemExit) as exit_:
        fit(config, "--trainer.max_step", "3")
    assert exit_.value.code == 2
    assert "max_step" in capsys.readouterr().err


@pytest.mark.parametrize("where", ["sources", "validation"])
def test_no_shards_is_told_before_training(fit, config, capsys, tmp_path, where):
    part = config["data"]["validation"] if where == "validation" else None
    part = part or config["data"]["sources"]["pairs"]
    part["urls"] = f"{tmp_path}/nothing/*.tar"
    with pytest.raises(SystemExit) as exit_:
        fit(config)
    assert exit_.value.code == 2
    assert f"no shards at '{tmp_path}/nothing/*.tar'" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_checkpoint_of_another_model_is_refused_with_its_keys(fit, config, capsys):
    run = fit(config)
    config["model"]["resampler"] = config["model"]["resampler"] | {"depth": 1}
    with pytest.raises(SystemExit) as exit_:
        fit(config, "--ckpt_path", str(run / "checkpoints" / "last.ckpt"))
    assert exit_.value.code == 2
    error = capsys.readouterr().err
    assert "Missing: []" in error
    assert "Unexpected: ['model.resampler.layers.1.attention.norm_latents.bias'" in error


def test_a_cosine_needs_a_last_step(fit, config, capsys):
    config["trainer"]["max_steps"] = -1
    config["trainer"]["max_epochs"] = -1
    with pytest.raises(SystemExit) as exit_:
        fit(config)
    assert exit_.value.code == 2
    assert "optim.schedule=cosine needs to know the last step" in capsys.readouterr().err


def test_the_warm_start_needs_a_source_of_pairs(fit, config, capsys):
    warm_start = config["trainer"]["callbacks"][0]["init_args"]
    warm_start["source"] = "pears"
    with pytest.raises(SystemExit):
        fit(config)
    assert "asks for the source 'pears' but data.sources has" in capsys.readouterr().err
    warm_start["source"] = "documents"
    with pytest.raises(SystemExit):
        fit(config)
    assert "needs pairs of one picture and its caption" in capsys.readouterr().err


def test_logging_may_be_off(fit, config):
    config["trainer"]["log_every_n_steps"] = 0
    config["trainer"]["max_steps"] = 1
    assert weights(fit(config))


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
def test_gradients_are_clipped_in_every_precision(fit, config, tmp_path, precision):
    norms = {"class_path": "tiny.GradientNorms", "init_args": {"file": str(tmp_path / "norms")}}
    config["trainer"]["callbacks"] += [norms]
    config["trainer"] |= {"precision": precision, "gradient_clip_val": 0.01, "max_steps": 3}
    fit(config)
    clipped = [float(line) for line in (tmp_path / "norms").read_text().split()]
    assert clipped == pytest.approx([0.01] * 3, rel=1e-2)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "sharded"])
def test_two_ranks(write, config, processor, world, tmp_path, strategy):
    """They train one model, and together read every validation document once."""
    from miniflamingo.data.layouts.choose import to_document
    from miniflamingo.data.shards import find_shards, read_samples

    config["trainer"] |= {
        "devices": 2,
        "strategy": strategy,
        "max_steps": 4,
        "val_check_interval": 4,
    }
    line = [sys.executable, "-m", "miniflamingo", "fit", "--config", write(config)]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    subprocess.run(line, check=True, timeout=300, env=environment)
    run = tmp_path / "run"
    checkpoint = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 3
    model = MiniFlamingo.from_pretrained(run / "model")
    samples = read_samples(find_shards(f"{world}/validation/*.tar"))
    batch = processor.batch([to_document(sample) for sample in samples])
    with torch.no_grad():
        loss = tiny.loss_of(model, batch)
    assert logged(run, "val/loss")[3] == pytest.approx(loss.item(), rel=1e-4)


def test_secrets_in_urls_are_not_saved(fit, config):
    """The shards are read by the url as it is; what is kept of it says that something is hidden."""
    source = config["data"]["sources"]["pairs"]
    source["urls"] = f"pipe:echo http://h/?token=s3cret >&2; cat {source['urls'][:-5]}0.tar"
    run = fit(config)
    last = read_checkpoint(run / "checkpoints" / "last.ckpt")
    for kept in ((run / "config.yaml").read_text(), last["config"]):
        assert "s3cret" not in kept
        assert "token=***" in kept
    config["data"]["sources"]["pairs"]["urls"] = "http://h/a.tar?token=***"
    with pytest.raises(SystemExit):
        fit(config, "--overwrite")
