"""Is it clustering? How well latents and k-means agree on which patches belong together.

Each patch of a picture is given to the latent that weighs it most; k-means groups the same patches
by their features. Two ways to measure agreement of two groupings, whatever their groups are called:
the adjusted Rand index (1 the same, 0 what chance gives) and normalised mutual information (1 the
same; chance gives more than 0, so it needs a chance row beside it).

Shapes: N pictures, F frames, V patches per frame, P = F*V, E vision width, Q latents.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score
from torch import Tensor

from miniflamingo.bootstrap import mean_interval
from miniflamingo.errors import UserError
from miniflamingo.latents.attention import assign_patches, resampler_attention
from miniflamingo.model.resamplers.perceiver import PerceiverResampler


class Mean(NamedTuple):
    """A mean and its 95% bootstrap interval."""

    value: float
    low: float
    high: float


class Agreement(NamedTuple):
    """Of one grouping with k-means.

    Attributes:
        condition: Whose grouping.
        layer: Of the resampler, counted from 0.
        ari: Adjusted Rand index.
        nmi: Normalised mutual information.
        groups: How many latents win a patch, mean over pictures.
    """

    condition: str
    layer: int
    ari: Mean
    nmi: Mean
    groups: float


def mean_and_interval(values: NDArray) -> Mean:
    """The mean and its 95% bootstrap interval.

    Args:
        values: (N,) of pictures or whatever else was drawn.
    """
    return Mean(float(values.mean()), *mean_interval(values))


def kmeans_groups(patches: Tensor, groups: int, seed: int = 0) -> NDArray:
    """Group the patches of one picture by their features.

    Args:
        patches: (P, E).
        groups: How many to make.
        seed: Of k-means.

    Returns:
        (P,) whole numbers.
    """
    points = patches.float().cpu().numpy()
    return KMeans(groups, n_init="auto", random_state=seed).fit_predict(points)


def agreement(assignment: Tensor, patches: Tensor) -> tuple[float, float]:
    """Agreement of an assignment with k-means of the same patches, with as many groups.

    Args:
        assignment: (P,) as ``assign_patches`` gives it for one picture.
        patches: (P, E).

    Returns:
        Adjusted Rand index and normalised mutual information. Where one latent wins every patch,
        k-means makes two groups, so that both are 0.
    """
    mine = assignment.cpu().numpy()
    theirs = kmeans_groups(patches, max(2, len(np.unique(mine))))
    return adjusted_rand_score(theirs, mine), float(normalized_mutual_info_score(theirs, mine))


@torch.no_grad()
def redrawn(resampler: PerceiverResampler, seed: int, latents_only: bool) -> PerceiverResampler:
    """A copy before training: with its latents drawn anew, or with all its weights.

    Args:
        resampler: Left as it is. The copy keeps its statistics of patches.
        seed: Of the drawing.
        latents_only: Whether trained layers are kept.
    """
    copied = copy.deepcopy(resampler)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        copied.latents.copy_(torch.randn(copied.latents.shape))
        if not latents_only:
            for module in copied.modules():
                if isinstance(module, torch.nn.Linear | torch.nn.LayerNorm):
                    module.reset_parameters()
            copied.frame_positions.copy_(torch.randn(copied.frame_positions.shape) * 0.02)
    return copied


def assignments(resampler: PerceiverResampler, patches: Tensor) -> Tensor:
    """(N, F, V, E) patches -> (layers, N, P), the latent that each patch is given to."""
    return torch.stack([assign_patches(each) for each in resampler_attention(resampler, patches)])


def shuffled(assigned: Tensor, seed: int) -> Tensor:
    """(layers, N, P) with the patches of each picture in random order: groups of the same sizes."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.rand(assigned.shape, generator=generator).argsort(-1)
    return assigned.cpu().gather(-1, order)


def cluster_agreement(
    resampler: PerceiverResampler, patches: Tensor, draws: int = 3
) -> list[Agreement]:
    """Hold the trained latents against k-means, and three things to compare them with.

    Args:
        resampler: Any with layers.
        patches: (N, F, V, E) features of held-out pictures.
        draws: How often what is random is drawn; a picture counts with its mean over draws.

    Returns:
        For each condition and layer: ``trained``; ``latents drawn anew`` in trained layers;
        ``untrained`` resampler; ``chance``, the trained assignment on shuffled patches.

    Raises:
        UserError: If the resampler has no layers, or there are fewer than two pictures.
    """
    if not resampler.layers or len(patches) < 2:
        raise UserError(
            f"a resampler of {len(resampler.layers)} layers and {len(patches)} pictures: agreement "
            "needs a layer at least, and two pictures for an interval."
        )
    trained = assignments(resampler, patches)
    conditions: dict[str, Callable[[int], Tensor]] = {
        "trained": lambda _: trained,
        "latents drawn anew": lambda draw: assignments(redrawn(resampler, draw, True), patches),
        "untrained": lambda draw: assignments(redrawn(resampler, draw, False), patches),
        "chance": lambda draw: shuffled(trained, draw),
    }
    points = resampler.standardised(patches).flatten(1, 2)  # (N, P, E)
    found = []
    for name, assigned in conditions.items():
        drawn = [assigned(draw) for draw in range(1 if name == "trained" else draws)]
        for layer in range(len(trained)):
            scores = np.array(
                [
                    [agreement(*pair) for pair in zip(each[layer], points, strict=True)]
                    for each in drawn
                ]
            ).mean(0)  # (N, 2)
            groups = np.mean([len(row.unique()) for each in drawn for row in each[layer]])
            ari, nmi = (mean_and_interval(column) for column in scores.T)
            found.append(Agreement(name, layer, ari, nmi, float(groups)))
    return found
