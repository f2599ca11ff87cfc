"""Averaged weights, held against averages taken by hand."""

from types import SimpleNamespace

import lightning as L
import pytest
import ranks
import torch
from safetensors.torch import load_file

from miniflamingo.model.gather import whole_state
from miniflamingo.training.callbacks.averaging import OwnWeightsEMA
from miniflamingo.training.sharding import ShardedStrategy


class Weights(L.Callback):
    """Keeps the weights after each step."""

    def __init__(self) -> None:
        self.steps = []

    def on_train_batch_end(self, trainer, pl_module, *_):
        state = whole_state(pl_module)
        self.steps.append({name: value.clone() for name, value in state.items()})


@pytest.fixture(scope="module")
def models(language_folder, clip_folder):
    return {"language": str(language_folder), "clip": str(clip_folder)}


def test_the_export_holds_the_averages_and_a_resume_goes_on(models, tmp_path):
    average, weights = OwnWeightsEMA(decay=0.6), Weights()
    run = {**models, "steps": 12}
    ranks.run(tmp_path / "whole", **run, callbacks=[average, weights])
    expected, *later = weights.steps
    for step in later:
        expected = {name: 0.6 * value + 0.4 * step[name] for name, value in expected.items()}
    exported = load_file(tmp_path / "whole/model/model.safetensors")
    torch.testing.assert_close(
        {f"model.{name}": value for name, value in exported.items()}, expected
    )
    assert not torch.equal(exported["resampler.latents"], later[-1]["model.resampler.latents"])

    # The frozen parts are neither copied nor kept.
    copied = sum(p.numel() for p in average._average_model.module.parameters())
    assert copied < sum(value.numel() for value in exported.values())
    checkpoint = torch.load(tmp_path / "whole/step=10.ckpt", weights_only=True)
    assert checkpoint["state_dict"].keys() == checkpoint["current_model_state"].keys()
    assert checkpoint["state_dict"].keys() == expected.keys()

    resume = str(tmp_path / "whole/step=10.ckpt")
    ranks.run(tmp_path / "resumed", **run, resume=resume, callbacks=[OwnWeightsEMA(decay=0.6)])
    resumed = load_file(tmp_path / "resumed/model/model.safetensors")
    torch.testing.assert_close(resumed, exported, rtol=0, atol=0)


def test_sharded_weights_are_not_averaged():
    trainer = SimpleNamespace(strategy=ShardedStrategy())
    with pytest.raises(ValueError, match="does not average sharded weights; use"):
        OwnWeightsEMA().setup(trainer, None, "fit")
