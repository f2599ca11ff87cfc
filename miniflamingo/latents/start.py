"""Another start for the latents: centres of clusters of patches instead of random numbers.

What the latents would be if they were what they are sometimes taken for.
"""

from __future__ import annotations

import lightning as L
import torch
from sklearn.cluster import KMeans
from torch import Tensor

from miniflamingo.data.datamodule import InterleavedData
from miniflamingo.errors import UserError
from miniflamingo.latents.attention import perceiver
from miniflamingo.latents.held_out import patches_of
from miniflamingo.model.flamingo import MiniFlamingo
from miniflamingo.model.resamplers.perceiver import PerceiverResampler


@torch.no_grad()
def cluster_centres(resampler: PerceiverResampler, patches: Tensor, seed: int = 0) -> Tensor:
    """Centres of as many clusters of patches as there are latents, where the latents live.

    Args:
        resampler: Whose projection to take, once its statistics are fixed.
        patches: (..., E) features of an encoder.
        seed: Of k-means.

    Returns:
        (Q, W).

    Raises:
        UserError: If there are fewer patches than latents.
    """
    points = (
        resampler.project(resampler.standardised(patches)).flatten(0, -2).float().cpu()
    )  # (points, W)
    count = len(resampler.latents)
    if len(points) < count:
        raise UserError(
            f"{len(points)} patches have no {count} clusters; take more pictures than that."
        )
    found = KMeans(count, n_init="auto", random_state=seed).fit(points.numpy())
    return torch.from_numpy(found.cluster_centers_).to(resampler.latents)


class LatentsFromClusters(L.Callback):
    """Sets the latents to k-means centres of patches, before anything trains.

    A run that resumes does not repeat it.
    """

    def __init__(self, pictures: int = 200, seed: int = 0) -> None:
        """Describe the start.

        Args:
            pictures: How many of the first training source to take, at least.
            seed: Of k-means.
        """
        self.pictures = pictures
        self.seed = seed

    @torch.no_grad()
    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Encode pictures, standardise by them, cluster.

        Raises:
            UserError: If the pictures have too few patches.
        """
        if stage != "fit" or trainer.ckpt_path is not None:
            return
        model, data = pl_module.model, trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(model, MiniFlamingo)
        assert isinstance(data, InterleavedData)
        patches: list[Tensor] = []
        for batch in data.source_loader(next(iter(data.sources))):
            patches += patches_of(model, batch)
            if len(patches) >= self.pictures:
                break
        together = torch.stack(patches)
        resampler = perceiver(model.resampler)
        resampler.standardise(together)
        resampler.latents.copy_(cluster_centres(resampler, together, self.seed))
        # Every rank read pictures of its own.
        model.resampler.load_state_dict(trainer.strategy.broadcast(model.resampler.state_dict()))
