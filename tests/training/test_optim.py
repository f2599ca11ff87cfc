"""Optimiser groups and schedule, by hand."""

import math

import lightning as L
import pytest
import torch

from miniflamingo.training.optim import (
    OptimConfig,
    make_optimizer,
    parameter_groups,
    planned_steps,
    rate_factor,
)


@pytest.mark.parametrize("train_input_rows", [True, False])
def test_only_matrices_decay(build, train_input_rows):
    model = build(train_input_rows=train_input_rows)
    config = OptimConfig(lr=1e-3, resampler_lr=2e-4, weight_decay=0.05)
    groups = {group["name"]: group for group in parameter_groups(model, config)}
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    members = {
        name: {names[id(parameter)] for parameter in group["params"]}
        for name, group in groups.items()
    }
    layers = [f"resampler.layers.{i}" for i in range(2)]
    blocks = [f"language.model.layers.{i}.xattn" for i in (1, 2)]
    attention = [f"{x}.attention" for x in layers]
    rows = {"token_rows.output_rows"} | ({"token_rows.input_rows"} if train_input_rows else set())
    assert members == {
        "resampler": {
            "resampler.project.weight",
            *(f"{x}.{part}.weight" for x in attention for part in ("to_q", "to_kv", "to_out")),
            *(f"{x}.ffw.{i}.weight" for x in layers for i in (1, 3)),
        },
        "resampler-no-decay": {
            "resampler.latents",
            "resampler.frame_positions",
            "resampler.norm.weight",
            "resampler.norm.bias",
            *(f"{x}.{norm}.{part}" for x in attention for norm in ("norm_media", "norm_latents")
              for part in ("weight", "bias")),
            *(f"{x}.ffw.0.{part}" for x in layers for part in ("weight", "bias")),
        },
        "language": {
            *(f"media_projection.to_kv.{i}.weight" for i in range(2)),
            *(f"{x}.{part}.weight" for x in blocks for part in ("to_q", "to_out")),
            *(f"{x}.ffw.{i}.weight" for x in blocks for i in (1, 3)),
        },
        "language-no-decay": rows | {
            *(f"{x}.{gate}" for x in blocks for gate in ("attention_gate", "ffw_gate")),
            *(f"{x}.{norm}.{part}" for x in blocks for norm in ("norm", "ffw.0")
              for part in ("weight", "bias")),
        },
    }  # fmt: skip
    settings = {name: (group["lr"], group["weight_decay"]) for name, group in groups.items()}
    assert settings == {
        "resampler": (2e-4, 0.05),
        "resampler-no-decay": (2e-4, 0.0),
        "language": (1e-3, 0.05),
        "language-no-decay": (1e-3, 0.0),
    }


def test_the_resampler_takes_the_common_rate_unless_told(build):
    groups = parameter_groups(build(), OptimConfig(lr=3e-4))
    assert {group["lr"] for group in groups} == {3e-4}


@pytest.mark.parametrize(
    ("schedule", "step", "factor"),
    [
        ("constant", 0, 0.25), ("constant", 1, 0.5), ("constant", 3, 1.0), ("constant", 4, 1.0),
        ("constant", 10**6, 1.0),
        ("cosine", 0, 0.25), ("cosine", 3, 1.0), ("cosine", 4, 1.0),
        ("cosine", 9, 0.05 + 0.95 * 0.5), ("cosine", 14, 0.05), ("cosine", 99, 0.05),
        ("cosine", 4 + 10 / 3, 0.05 + 0.95 * 0.75),
    ],
)  # fmt: skip
def test_schedule(schedule, step, factor):
    config = OptimConfig(warmup_steps=4, schedule=schedule, final_fraction=0.05)
    assert rate_factor(step, config, total_steps=14) == pytest.approx(factor)


def test_no_warm_up():
    assert rate_factor(0, OptimConfig(warmup_steps=0), 10) == 1.0


def test_the_optimiser_follows_the_schedule(build):
    config = OptimConfig(lr=1e-2, resampler_lr=1e-3, warmup_steps=2, schedule="cosine")
    optimizer, scheduler = make_optimizer(build(), config, total_steps=4)
    rates = []
    for _ in range(5):
        rates.append({group["name"]: group["lr"] for group in optimizer.param_groups})
        optimizer.step()
        scheduler.step()
    half = 0.05 + 0.95 / 2
    expected = [0.5, 1.0, 1.0, half, 0.05]
    assert [rate["language"] for rate in rates] == pytest.approx([1e-2 * f for f in expected])
    assert [rate["resampler"] for rate in rates] == pytest.approx([1e-3 * f for f in expected])
    assert isinstance(optimizer, torch.optim.AdamW)
    assert optimizer.defaults["betas"] == (0.9, 0.98)


@pytest.mark.parametrize("total_steps", [math.inf, -1, 0])
def test_a_cosine_needs_a_last_step(build, total_steps):
    with pytest.raises(ValueError, match="needs to know the last step"):
        make_optimizer(build(), OptimConfig(schedule="cosine"), total_steps)
    make_optimizer(build(), OptimConfig(schedule="constant"), total_steps)


@pytest.mark.parametrize(
    ("limits", "steps"),
    [
        ({"max_steps": 7}, 7),
        ({"max_epochs": -1}, math.inf),
        ({"max_epochs": 3}, math.inf),  # an epoch of an endless loader has no end
        ({"max_epochs": 3, "limit_train_batches": 5}, 15),
        ({"max_epochs": 3, "limit_train_batches": 5, "accumulate_grad_batches": 2}, 9),
        ({"max_epochs": 3, "limit_train_batches": 5, "max_steps": 8}, 8),
    ],
)
def test_planned_steps_without_asking_a_loader(limits, steps):
    assert planned_steps(L.Trainer(accelerator="cpu", logger=False, **limits)) == steps
