"""Mean pooling: the simplest thing that makes Q tokens of any number of patches.

Shapes: N media, F frames, V patches per frame, E vision width, W resampler width, Q tokens.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from miniflamingo.model.arithmetic import matrix_size
from miniflamingo.model.config import ResamplerConfig
from miniflamingo.model.resamplers.base import Resampler


class MeanResampler(Resampler):
    """Means of Q runs of patches, each through one linear layer and a norm.

    The patches of all frames, in reading order, are cut into Q runs of as equal a length as
    possible (overlapping by one where Q does not divide them); with fewer patches than Q some runs
    are the same. A run gives the mean of its patches, so nothing is learned about which of them
    matter.

    Source: adaptive average pooling, as in DeCo, arXiv:2405.20985. Departures: along the row of
    patches instead of in two dimensions; the linear layer stands behind the pool.
    """

    def __init__(self, config: ResamplerConfig, vision_width: int) -> None:
        super().__init__(config, vision_width)
        self.layers = nn.ModuleList()
        self.project = nn.Linear(vision_width, self.width)
        self.norm = nn.LayerNorm(self.width)

    def flops(self, patches: int) -> tuple[int, int]:
        """The linear layer alone: pooling adds, which is not counted.

        The backward pass is as long: what the layer reads needs no gradient.
        """
        forward = 2 * self.tokens * matrix_size(self.project)
        return forward, forward

    def forward(self, patches: Tensor) -> Tensor:
        """(N, F, V, E) features of the frozen encoder -> (N, Q, W).

        Raises:
            UserError: If a media item has more frames than ``max_frames``.
        """
        self.check_frames(patches)
        row = self.standardised(patches).flatten(1, 2).transpose(1, 2)  # (N, E, F*V)
        pooled = F.adaptive_avg_pool1d(row, self.tokens).transpose(1, 2)  # (N, Q, E)
        return self.norm(self.project(pooled))
