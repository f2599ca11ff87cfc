"""Recomputed attention weights against the fused kernel that the model runs on."""

from dataclasses import replace

import pytest
import tiny
import torch
from agreement import assert_agrees

from miniflamingo import Chunk, Document
from miniflamingo.latents import assign_patches, resampler_attention, share_on_patches
from miniflamingo.latents.attention import entering, gated_attention, on_patches
from miniflamingo.model.attention import split_heads
from miniflamingo.model.config import ResamplerConfig
from miniflamingo.model.media_mask import latest_media, media_slots
from miniflamingo.model.resamplers.perceiver import PerceiverResampler

CONFIG = ResamplerConfig(latents=5, depth=3, heads=2, head_width=8, width=16, max_frames=3)


@pytest.fixture(params=[True, False], ids=["latents are keys", "patches alone are keys"])
def resampler(request):
    """One by itself, whose attention is far from even."""
    torch.manual_seed(0)
    config = replace(CONFIG, read_latents=request.param)
    resampler = PerceiverResampler(config, vision_width=24)
    with torch.no_grad():
        for layer in resampler.layers:
            layer.attention.to_q.weight.mul_(8)
    return resampler


@pytest.mark.parametrize("frames", [1, 3])
@torch.no_grad()
def test_a_resamplers_weights_are_those_of_the_fused_kernel(resampler, frames):
    patches = torch.randn(2, frames, 6, 24)
    layers = [layer.attention for layer in resampler.layers]
    with entering(layers) as inputs, entering(layer.to_out for layer in layers) as fused:
        resampler(patches)
    found = resampler_attention(resampler, patches)
    assert len(found) == 3
    for layer, (media, latents), (heads_joined,), weights in zip(
        layers, inputs, fused, found, strict=True
    ):
        assert weights.shape == (2, 2, 5, 6 * frames + 5)
        assert_agrees(weights.sum(-1), torch.ones(2, 2, 5), 1e-6)
        assert weights.max() > 3 / weights.shape[-1]  # else any weights would do
        read = torch.cat([layer.norm_media(media), layer.norm_latents(latents)], dim=1)
        assert (weights[..., 6 * frames :].sum() > 0) == layer.read_latents
        values = split_heads(layer.to_kv(read).chunk(2, dim=-1)[1], layer.heads)
        assert_agrees((weights @ values).transpose(1, 2).flatten(-2), heads_joined)


def test_listening_leaves_nothing_behind(resampler):
    resampler_attention(resampler, torch.randn(1, 1, 6, 24))
    assert not any(module._forward_pre_hooks for module in resampler.modules())


@pytest.mark.parametrize("attend", ["latest", "all_previous"])
@torch.no_grad()
def test_a_gated_blocks_weights_are_those_of_the_fused_kernel(build, processor, attend):
    model = build(opened=True, attend=attend)
    for block in model.gated_blocks():
        block.to_q.weight.mul_(8)
    pages = [
        [Chunk(None, "two cats"), Chunk(tiny.picture(1), "a dog."), Chunk(tiny.picture(2), "a")],
        [Chunk(tiny.picture(3), "a red cat on a green background.")],
    ]
    batch = processor.batch([Document(page) for page in pages])
    is_media = batch.input_ids == model.tokens.image
    slots, reads = media_slots(is_media), latest_media(is_media)
    blocks = list(model.gated_blocks())
    with entering(blocks) as inputs, entering(block.to_out for block in blocks) as fused:
        model.read(batch.input_ids, batch.media, position_ids=batch.position_ids)
    for block, entered, (heads_joined,) in zip(blocks, inputs, fused, strict=True):
        weights = gated_attention(block, *entered)  # (B, L, H, S)
        sees = (reads >= 0).float()
        assert 0 < sees.mean() < 1
        assert_agrees(weights.sum(-1), sees[..., None].expand(-1, -1, 2), 1e-6)
        _, values = entered[1].chunk(2, dim=-1)  # (N, Q, H*K)
        for row in range(2):
            for place in range(reads.shape[1]):
                read = slots[row, reads[row, place] :][:1] if attend == "latest" else slots[row]
                by_head = split_heads(values[read].flatten(0, 1)[None], 2)[0]  # (H, S, K)
                joined = (weights[row, place, :, None] @ by_head).flatten()
                torch.testing.assert_close(
                    joined, heads_joined[row, place], rtol=0, atol=1e-5 * heads_joined.abs().max()
                )


def test_shares_and_assignment_of_weights_made_by_hand():
    # One media item, one head, two latents, three patches; then the two latents.
    weights = torch.tensor([[[[0.5, 0.2, 0.1, 0.1, 0.1], [0.3, 0.3, 0.0, 0.4, 0.0]]]])
    assert on_patches(weights).shape == (1, 1, 2, 3)
    torch.testing.assert_close(share_on_patches(weights), torch.tensor([[[0.8, 0.6]]]))
    assert assign_patches(weights).tolist() == [[0, 1, 0]]


def test_the_assignment_is_by_the_mean_over_heads():
    heads = torch.tensor([[[0.9, 0.1], [0.2, 0.8]], [[0.0, 1.0], [0.8, 0.2]]])  # 2 heads, P = 0 + Q
    patches = torch.tensor([[[0.9], [0.2]], [[0.0], [0.8]]])
    weights = torch.cat([patches, heads], dim=-1)[None]
    assert assign_patches(weights).tolist() == [[1]]  # 0.45 against 0.5
