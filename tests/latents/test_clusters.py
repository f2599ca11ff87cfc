"""Agreement of groupings that are known."""

import numpy as np
import pytest
import torch

from miniflamingo.latents.clusters import (
    agreement,
    cluster_agreement,
    mean_and_interval,
    redrawn,
    shuffled,
)
from miniflamingo.latents.start import cluster_centres
from miniflamingo.model.config import ResamplerConfig
from miniflamingo.model.resamplers.perceiver import PerceiverResampler

CONFIG = {"latents": 4, "depth": 2, "heads": 2, "head_width": 8, "width": 16}


def make(**changes):
    torch.manual_seed(0)
    return PerceiverResampler(ResamplerConfig(**CONFIG | changes), vision_width=12)


def far_apart(groups: int, each: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(P,) groups and (P, 12) points around a centre of each."""
    torch.manual_seed(1)
    group = torch.arange(groups).repeat_interleave(each)
    return group, 10 * torch.eye(12)[group] + 0.1 * torch.randn(groups * each, 12)


def test_the_same_grouping_by_other_names_agrees_wholly():
    group, points = far_apart(3, 8)
    assert agreement((group + 1) % 3, points) == pytest.approx((1, 1))


def test_a_grouping_across_the_clusters_agrees_by_chance_alone():
    _, points = far_apart(4, 9)
    ari, nmi = agreement(torch.arange(36) % 3, points)
    assert abs(ari) < 0.1
    assert nmi < 0.1


def test_one_latent_that_wins_everything_agrees_with_nothing():
    _, points = far_apart(2, 8)
    assert agreement(torch.zeros(16, dtype=torch.long), points) == (0, 0)


def test_the_interval_is_that_of_a_mean_and_interval():
    values = np.random.default_rng(0).normal(0.3, 0.1, 400)
    mean = mean_and_interval(values)
    assert mean.value == pytest.approx(values.mean())
    assert (mean.high - mean.low) / 2 == pytest.approx(1.96 * 0.1 / 20, rel=0.15)
    assert mean_and_interval(np.zeros(5)) == (0, 0, 0)


def test_every_condition_and_layer_is_measured():
    found = cluster_agreement(make(), torch.randn(5, 1, 9, 12), draws=2)
    assert [(row.condition, row.layer) for row in found] == [
        (name, layer)
        for name in ("trained", "latents drawn anew", "untrained", "chance")
        for layer in (0, 1)
    ]
    assert all(row.ari.low <= row.ari.value <= row.ari.high for row in found)
    by_name = {(row.condition, row.layer): row for row in found}
    assert by_name["chance", 1].groups == by_name["trained", 1].groups  # sizes are kept


def test_a_resampler_that_clusters_is_seen_to():
    """Latents that are the clusters' centres, and layers that let them look for their like."""
    resampler = make(latents=3, depth=1, heads=1, head_width=16, width=None)
    _, points = far_apart(3, 12)
    with torch.no_grad():
        attention = resampler.layers[0].attention
        eye = torch.eye(16, 12)
        attention.to_q.weight.copy_(8 * eye)
        attention.to_kv.weight[:16].copy_(eye)
        resampler.latents.copy_(cluster_centres(resampler, points))
        resampler.frame_positions.zero_()
    order = [torch.randperm(36, generator=torch.Generator().manual_seed(i)) for i in range(4)]
    patches = torch.stack([points[each] for each in order])[:, None]
    trained, chance = (
        next(row for row in cluster_agreement(resampler, patches) if row.condition == name)
        for name in ("trained", "chance")
    )
    assert trained.ari.value == pytest.approx(1)
    assert chance.ari.high < 0.2 < 0.9 < trained.ari.low


def test_shuffled_groups_keep_their_sizes():
    assigned = torch.tensor([[[0, 0, 0, 1], [2, 2, 1, 1]]])
    other = shuffled(assigned, 0)
    assert torch.equal(other.sort(-1).values, assigned.sort(-1).values)


def test_redrawn_copies_leave_the_trained_one_alone():
    resampler = make()
    resampler.standardise(torch.randn(50, 12) * 3)
    before = {name: value.clone() for name, value in resampler.state_dict().items()}
    latents_only, everything = redrawn(resampler, 7, True), redrawn(resampler, 7, False)
    for name, value in resampler.state_dict().items():
        assert torch.equal(value, before[name])
        changed = not torch.equal(value, latents_only.state_dict()[name])
        assert changed == (name == "latents")
    assert torch.equal(everything.patch_std, resampler.patch_std)
    weight = "layers.1.attention.to_q.weight"
    assert not torch.equal(everything.state_dict()[weight], before[weight])


def test_centres_are_those_of_the_clusters():
    resampler = make(latents=3, width=None)
    _, points = far_apart(3, 20)
    centres = cluster_centres(resampler, points)
    nearest = torch.cdist(torch.eye(12)[:3] * 10, centres).min(1).values
    assert (nearest < 0.2).all()


def test_too_few_patches_for_the_latents():
    with pytest.raises(ValueError, match="3 patches have no 4 clusters"):
        cluster_centres(make(), torch.randn(3, 12))


def test_agreement_needs_layers_and_pictures():
    with pytest.raises(ValueError, match="0 layers and 5 pictures"):
        cluster_agreement(make(depth=0), torch.randn(5, 1, 9, 12))
    with pytest.raises(ValueError, match="2 layers and 1 pictures"):
        cluster_agreement(make(), torch.randn(1, 1, 9, 12))
