"""Tokens gathered by picture against torch's flex_attention, which is told who reads what."""

import pytest
import torch
from agreement import assert_agrees
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

from miniflamingo.model.attention import split_heads
from miniflamingo.model.config import XattnConfig
from miniflamingo.model.gated_xattn import GatedCrossAttention
from miniflamingo.model.media_mask import READINGS, latest_media, media_slots

WIDTH, LATENTS = 32, 4
IS_MEDIA = torch.tensor(
    [
        [0, 0, 1, 0, 0, 1, 0, 1, 0, 0],  # text before the first picture reads nothing
        [1, 1, 0, 0, 0, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    ]
).bool()


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("attend", ["latest", "all_previous"])
def test_gathered_attention_is_flex_attention_over_all_pictures_of_a_row(attend):
    torch.manual_seed(0)
    block = GatedCrossAttention(WIDTH, XattnConfig(heads=2, head_width=16, attend=attend))
    x = torch.randn(*IS_MEDIA.shape, WIDTH)
    keys_values = torch.randn(int(IS_MEDIA.sum()), LATENTS, 2 * 2 * 16)
    slots, reads = media_slots(IS_MEDIA), latest_media(IS_MEDIA)

    def may_read(row, head, token, latent):
        slot = latent // LATENTS
        return slot == reads[row, token] if attend == "latest" else slot <= reads[row, token]

    (rows, tokens), latents = IS_MEDIA.shape, slots.shape[1] * LATENTS
    mask = create_block_mask(may_read, rows, None, tokens, latents, device="cpu")
    keys, values = keys_values[slots].flatten(1, 2).chunk(2, dim=-1)
    with torch.no_grad():  # a CPU has no backward pass of it
        queries = block.to_q(block.norm(x))
        out = flex_attention(*(split_heads(y, 2) for y in (queries, keys, values)), block_mask=mask)
        expected = block.to_out(out.transpose(1, 2).flatten(-2))
        ours = block.read(x, keys_values, READINGS[attend](slots, reads, len(keys_values)))
    assert (ours[reads < 0] == 0).all()
    assert_agrees(ours, expected)
