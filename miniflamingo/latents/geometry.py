"""How latents lie: figures of any (Q, W) matrix, Q latents of width W."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

DEAD = 0.01
"""A latent whose gradient is below this share of the mean over all latents is called dead."""


def norms(latents: Tensor) -> Tensor:
    """(Q, W) -> (Q,) Euclidean lengths."""
    return latents.norm(dim=-1)


def distances(latents: Tensor, start: Tensor) -> Tensor:
    """How far each latent is from where it started, in lengths of the start.

    Args:
        latents: (Q, W).
        start: (Q, W).

    Returns:
        (Q,), 0 where nothing moved.
    """
    return norms(latents - start) / norms(start)


def pairwise_cosines(latents: Tensor) -> Tensor:
    """Cosine of each pair of latents once: (Q, W) -> (Q * (Q-1) / 2,)."""
    directions = F.normalize(latents, dim=-1)
    count = len(latents)
    above = torch.triu_indices(count, count, offset=1, device=latents.device)
    return (directions @ directions.T)[above[0], above[1]]


def effective_rank(latents: Tensor) -> float:
    """How many directions latents really use: 1 if all lie on a line, Q if they share nothing.

    Args:
        latents: (Q, W).

    Source: Roy and Vetterli, The effective rank (EUSIPCO 2007): the exponential of the entropy of
    the singular values, which are made to sum to 1.
    """
    values = torch.linalg.svdvals(latents.float())
    shares = values / values.sum()
    return float(torch.exp(torch.special.entr(shares).sum()))


def dead_latents(gradient_norms: Tensor) -> Tensor:
    """Which latents the loss does not ask anything of.

    Args:
        gradient_norms: (Q,) of one step.

    Returns:
        (Q,) bool: the gradient is below ``DEAD`` of the mean over the latents. All of them if none
        has a gradient.
    """
    return gradient_norms <= DEAD * gradient_norms.mean()
