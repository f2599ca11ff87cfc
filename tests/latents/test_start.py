"""Latents that start from clusters."""

from itertools import islice

import pytest
import torch

from miniflamingo.cli.fit import run_command
from miniflamingo.latents import cluster_centres

CLUSTERS = "--trainer.callbacks+=miniflamingo.latents.start.LatentsFromClusters"


@pytest.fixture
def short(config, write):
    """Two steps without a warm start, so that nothing else moves the latents."""
    config["trainer"]["callbacks"] = []
    config["trainer"]["max_steps"] = 2
    quiet = ["--trainer.enable_progress_bar=false", "--trainer.enable_checkpointing=false"]
    return ["fit", "--config", write(config), *quiet]


def test_frozen_latents_stay_the_centres_of_the_first_pictures_patches(short):
    frozen = "--model.resampler.train_latents=false"
    run = run_command([*short, CLUSTERS, "--trainer.callbacks.pictures=8", frozen])
    latents = run.model.model.resampler.latents
    assert not latents.requires_grad
    assert latents.grad is None

    # Drawn by the same seed.
    none = ["--trainer.max_steps=0", "--model.optim.schedule=constant"]
    untrained = run_command([*short, frozen, *none, "--overwrite"])
    model, data = untrained.model.model, untrained.datamodule
    assert not torch.allclose(latents, model.resampler.latents)
    assert torch.equal(model.resampler.patch_std, torch.ones_like(model.resampler.patch_std))
    batches = islice(data.source_loader(next(iter(data.sources))), 2)  # two of two documents
    patches = model.vision(torch.cat([batch.pixels for batch in batches]))
    model.resampler.standardise(patches)
    torch.testing.assert_close(latents, cluster_centres(model.resampler, patches))


def test_centres_that_train_move(short):
    quiet = ["--trainer.callbacks.pictures=8"]
    frozen = run_command([*short, CLUSTERS, *quiet, "--model.resampler.train_latents=false"])
    learned = run_command([*short, CLUSTERS, *quiet, "--overwrite"])
    before, after = (run.model.model.resampler.latents for run in (frozen, learned))
    assert 0 < (after - before).abs().max() < 0.1


def test_too_few_pictures_are_told(short):
    many = ["--trainer.callbacks.pictures=1", "--model.resampler.latents=200"]
    with pytest.raises(ValueError, match="patches have no 200 clusters"):
        run_command([*short, CLUSTERS, *many])
