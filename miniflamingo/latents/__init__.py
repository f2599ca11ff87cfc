"""What the learned latents are, what they look at, how they came about and what they are worth."""

from miniflamingo.latents.attention import (
    assign_patches,
    gated_attention,
    on_patches,
    resampler_attention,
    share_on_patches,
)
from miniflamingo.latents.clusters import Agreement, agreement, cluster_agreement, kmeans_groups
from miniflamingo.latents.curves import draw_film, draw_history
from miniflamingo.latents.geometry import (
    dead_latents,
    distances,
    effective_rank,
    norms,
    pairwise_cosines,
)
from miniflamingo.latents.grid import patch_grid
from miniflamingo.latents.grounding import (
    closed,
    grounding,
    losses_without_each_latent,
    without_latent,
)
from miniflamingo.latents.history import LatentsHistory
from miniflamingo.latents.look import Look, as_numbers, look_at
from miniflamingo.latents.panel import GroundingPanel
from miniflamingo.latents.pictures import draw, draw_layer, draw_words
from miniflamingo.latents.proof import Proof, prove
from miniflamingo.latents.snapshot import History, Snapshot, read_history
from miniflamingo.latents.start import LatentsFromClusters, cluster_centres
from miniflamingo.latents.words import patch_maps, word_attention

__all__ = [
    "Agreement",
    "GroundingPanel",
    "History",
    "LatentsFromClusters",
    "LatentsHistory",
    "Look",
    "Proof",
    "Snapshot",
    "agreement",
    "as_numbers",
    "assign_patches",
    "closed",
    "cluster_agreement",
    "cluster_centres",
    "dead_latents",
    "distances",
    "draw",
    "draw_film",
    "draw_history",
    "draw_layer",
    "draw_words",
    "effective_rank",
    "gated_attention",
    "grounding",
    "kmeans_groups",
    "look_at",
    "losses_without_each_latent",
    "norms",
    "on_patches",
    "pairwise_cosines",
    "patch_grid",
    "patch_maps",
    "prove",
    "read_history",
    "resampler_attention",
    "share_on_patches",
    "without_latent",
    "word_attention",
]
