"""Figures of latents that can be said beforehand."""

import pytest
import torch

from miniflamingo.latents.geometry import (
    dead_latents,
    distances,
    effective_rank,
    norms,
    pairwise_cosines,
)


def test_norms_and_distances():
    start = torch.tensor([[3.0, 4.0], [0.0, 2.0]])
    moved = torch.tensor([[3.0, 4.0], [0.0, 3.0]])
    assert norms(moved).tolist() == [5.0, 3.0]
    assert distances(moved, start).tolist() == [0.0, 0.5]


def test_every_pair_has_one_cosine():
    latents = torch.tensor([[1.0, 0.0], [0.0, 2.0], [-3.0, 0.0]])
    assert pairwise_cosines(latents).tolist() == [0.0, -1.0, 0.0]
    assert pairwise_cosines(latents[:1]).tolist() == []


@pytest.mark.parametrize(
    ("latents", "rank"),
    [
        (torch.eye(5, 8) * 7, 5.0),
        (torch.ones(5, 8), 1.0),
        (torch.eye(8)[[0, 0, 1, 1]], 2.0),
    ],
)
def test_effective_rank_of_what_shares_nothing_everything_or_half(latents, rank):
    assert effective_rank(latents) == pytest.approx(rank, rel=1e-4)


def test_a_latent_without_its_hundredth_of_the_gradient_is_dead():
    assert dead_latents(torch.tensor([1.0, 0.0, 0.005, 0.02])).tolist() == [
        False,
        True,
        False,
        False,
    ]
    assert dead_latents(torch.tensor([1.0, 1.0, 1.0, 0.005])).tolist() == [
        False,
        False,
        False,
        True,
    ]
    assert dead_latents(torch.zeros(2)).tolist() == [True, True]
