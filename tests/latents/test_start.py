"""Latents that start from clusters."""

import pytest
import torch

from miniflamingo.cli.fit import run_command

CLUSTERS = "--trainer.callbacks+=miniflamingo.latents.start.LatentsFromClusters"


@pytest.fixture
def short(config, write):
    """Two steps without a warm start, so that nothing else moves the latents."""
    config["trainer"]["callbacks"] = []
    config["trainer"]["max_steps"] = 2
    quiet = ["--trainer.enable_progress_bar=false", "--trainer.enable_checkpointing=false"]
    return ["fit", "--config", write(config), *quiet]


def test_frozen_latents_stay_the_centres_of_patches(short):
    frozen = "--model.resampler.train_latents=false"
    run = run_command([*short, CLUSTERS, "--trainer.callbacks.pictures=8", frozen])
    model, data = run.model.model, run.datamodule
    latents = model.resampler.latents
    assert not latents.requires_grad
    assert latents.grad is None
    data.first_batch = 0
    batches = iter(data.source_loader("pairs"))
    pixels = torch.cat([next(batches).pixels for _ in range(4)])
    # The projection trains on, so centres are looked for in what it was: patches standardised.
    patches = model.vision(pixels)
    assert torch.allclose(model.resampler.patch_mean, patches.flatten(0, -2).mean(0), atol=1e-4)
    assert latents.norm() < 3 * latents.numel() ** 0.5
    drawn = run_command([*short, frozen]).model.model.resampler
    assert not torch.allclose(latents, drawn.latents)
    assert torch.equal(drawn.patch_std, torch.ones_like(drawn.patch_std))


def test_centres_that_train_move(short):
    quiet = ["--trainer.callbacks.pictures=8"]
    frozen = run_command([*short, CLUSTERS, *quiet, "--model.resampler.train_latents=false"])
    learned = run_command([*short, CLUSTERS, *quiet])
    before, after = (run.model.model.resampler.latents for run in (frozen, learned))
    assert 0 < (after - before).abs().max() < 0.1


def test_too_few_pictures_are_told(short):
    many = ["--trainer.callbacks.pictures=1", "--model.resampler.latents=200"]
    with pytest.raises(ValueError, match="patches have no 200 clusters"):
        run_command([*short, CLUSTERS, *many])
