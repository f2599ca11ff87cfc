"""The replica in the documentation runs, and is what the text says it is."""

import doctest
from pathlib import Path

import pytest
import torch
from agreement import assert_agrees

from miniflamingo.model.config import ResamplerConfig
from miniflamingo.model.resamplers.perceiver import PerceiverResampler

FILE = Path(__file__).parents[2] / "docs" / "latents.md"


@pytest.fixture(scope="module")
def page():
    """What the page's examples define, after they ran."""
    names = {}
    test = doctest.DocTestParser().get_doctest(FILE.read_text(), names, FILE.name, str(FILE), 0)
    runner = doctest.DocTestRunner()
    runner.run(test, clear_globs=False)
    assert runner.tries > 10
    assert runner.failures == 0
    return test.globs


def test_the_same_latents_go_in_and_something_else_comes_out(page):
    assert torch.equal(*page["entered"])
    assert torch.equal(page["entered"][0][0], page["resampler"].latents)
    assert not torch.equal(page["of_cat"], page["of_dog"])


def test_the_gradient_reaches_the_latents_and_nothing_frozen(page):
    assert (page["resampler"].latents.grad.norm(dim=-1) > 0).all()
    assert all(parameter.grad is None for parameter in page["language"].parameters())
    assert len(list(page["language"].parameters())) > 0


def test_the_replica_computes_what_ours_does(page):
    torch.manual_seed(0)
    config = ResamplerConfig(latents=5, depth=3, heads=2, head_width=8, activation="gelu")
    ours = PerceiverResampler(config, vision_width=16)
    replica = page["Resampler"](latents=5, width=16, heads=2, depth=3)
    with torch.no_grad():
        ours.frame_positions.zero_()
    weights = {}
    for name, value in ours.state_dict().items():
        name = name.replace("attention.norm_media", "norm_patches")
        name = name.replace("attention.norm_latents", "norm_latents")
        weights[name.replace("to_out", "out_proj")] = value
    for layer in range(3):
        prefix = f"layers.{layer}.attention."
        joined = [weights.pop(f"{prefix}{name}.weight") for name in ("to_q", "to_kv")]
        weights[f"{prefix}in_proj_weight"] = torch.cat(joined)
    missing, unexpected = replica.load_state_dict(weights, strict=False)
    assert not missing
    assert set(unexpected) == {"frame_positions", "patch_mean", "patch_std"}
    patches = torch.randn(2, 9, 16)
    assert_agrees(replica(patches), ours(patches[:, None]))
