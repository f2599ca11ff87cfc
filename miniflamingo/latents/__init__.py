"""What the learned latents are, and what they look at."""

from miniflamingo.latents.attention import (
    assign_patches,
    gated_attention,
    on_patches,
    resampler_attention,
    share_on_patches,
)
from miniflamingo.latents.grid import patch_grid
from miniflamingo.latents.look import Look, as_numbers, look_at
from miniflamingo.latents.pictures import draw, draw_layer, draw_words
from miniflamingo.latents.proof import Proof, prove
from miniflamingo.latents.words import patch_maps, word_attention

__all__ = [
    "Look",
    "Proof",
    "as_numbers",
    "assign_patches",
    "draw",
    "draw_layer",
    "draw_words",
    "gated_attention",
    "look_at",
    "on_patches",
    "patch_grid",
    "patch_maps",
    "prove",
    "resampler_attention",
    "share_on_patches",
    "word_attention",
]
