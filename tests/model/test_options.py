"""The paper's options and ablations, each against a calculation of its own."""

import math

import pytest
import tiny
import torch

from miniflamingo import Chunk, Document, MiniFlamingo
from miniflamingo.model.attention import feed_forward
from miniflamingo.model.config import ResamplerConfig, XattnConfig
from miniflamingo.model.gated_xattn import GatedCrossAttention
from miniflamingo.model.media_mask import latest_media, media_slots, read_latest
from miniflamingo.model.resamplers.perceiver import PerceiverResampler


def normed(x, layer):
    """Layer norm by its definition."""
    centred = x - x.mean(-1, keepdim=True)
    variance = centred.square().mean(-1, keepdim=True)
    return centred / (variance + layer.eps).sqrt() * layer.weight + layer.bias


def attended(queries, keys, values, heads):
    """Softmax attention, one head and one query at a time."""
    width = queries.shape[-1] // heads
    out = torch.zeros_like(queries)
    for head in range(heads):
        part = slice(head * width, (head + 1) * width)
        for place, query in enumerate(queries[:, part]):
            scores = keys[:, part] @ query / math.sqrt(width)
            weights = scores.exp() / scores.exp().sum()
            out[place, part] = weights @ values[:, part]
    return out


ACTIVATIONS = {
    "squared_relu": lambda x: torch.where(x > 0, x * x, torch.zeros_like(x)),
    "gelu": lambda x: x * 0.5 * (1 + torch.erf(x / math.sqrt(2))),
}


def resampled_by_hand(resampler, patches, config):
    """The resampler of one media item of (F, V, E) patches, written out. Source: appendix A.1.1."""
    media = torch.cat(
        [frame + resampler.frame_positions[place] for place, frame in enumerate(patches)]
    )
    latents = resampler.latents
    if config.depth == 0:
        latents = latents + sum(media) / len(media)
    for layer in resampler.layers:
        own = normed(latents, layer.attention.norm_latents)
        read = normed(media, layer.attention.norm_media)
        if config.read_latents:
            read = torch.cat([read, own])
        keys, values = (read @ layer.attention.to_kv.weight.T).chunk(2, dim=-1)
        found = attended(own @ layer.attention.to_q.weight.T, keys, values, config.heads)
        latents = latents + found @ layer.attention.to_out.weight.T
        hidden = normed(latents, layer.ffw[0]) @ layer.ffw[1].weight.T
        latents = latents + ACTIVATIONS[config.activation](hidden) @ layer.ffw[3].weight.T
    return normed(latents, resampler.norm)


@pytest.mark.parametrize("activation", ["squared_relu", "gelu"])
@pytest.mark.parametrize("read_latents", [True, False])
@pytest.mark.parametrize(
    ("latents", "depth", "frames"), [(1, 1, 1), (5, 1, 1), (2, 3, 1), (3, 2, 4), (2, 0, 3)]
)
def test_resampler_of_any_size(latents, depth, frames, activation, read_latents):
    torch.manual_seed(0)
    config = ResamplerConfig(
        latents=latents,
        depth=depth,
        heads=2,
        head_width=3,
        ffw_mult=2,
        max_frames=4,
        activation=activation,
        read_latents=read_latents,
    )
    resampler = PerceiverResampler(config, 8).double()
    patches = torch.randn(2, frames, 5, 8).double()
    with torch.no_grad():
        resampler.frame_positions.normal_()
        out = resampler(patches)
        expected = torch.stack([resampled_by_hand(resampler, item, config) for item in patches])
    assert out.shape == (2, latents, 8)
    torch.testing.assert_close(out, expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("train", [True, False])
def test_latents_train_or_stay_as_drawn(train):
    resampler = PerceiverResampler(ResamplerConfig(latents=2, depth=1, train_latents=train), 16)
    resampler(torch.randn(1, 1, 4, 16)).square().sum().backward()
    assert resampler.latents.requires_grad == train
    assert (resampler.latents.grad is not None) == train
    assert resampler.layers[0].attention.to_q.weight.grad is not None


def test_the_order_of_frames_matters_and_that_of_patches_does_not():
    torch.manual_seed(0)
    resampler = PerceiverResampler(ResamplerConfig(latents=2, depth=1, max_frames=3), 16)
    with torch.no_grad():
        resampler.frame_positions.normal_()
        clip = torch.randn(1, 3, 4, 16)
        out = resampler(clip)
        torch.testing.assert_close(resampler(clip.flip(2)), out, rtol=1e-4, atol=1e-5)
        assert not torch.allclose(resampler(clip.flip(1)), out, atol=1e-2)


def test_more_frames_than_positions_are_refused():
    resampler = PerceiverResampler(ResamplerConfig(latents=2, depth=1, max_frames=3), 16)
    with pytest.raises(ValueError, match=r"4 frames but .* positions for 3; raise resampler.max_f"):
        resampler(torch.randn(1, 4, 2, 16))


@pytest.mark.parametrize(
    ("activation", "expected"), [("squared_relu", [4.0, 0.0]), ("gelu", [1.9545, -0.0455])]
)
def test_activation_of_two_and_minus_two(activation, expected):
    applied = feed_forward(2, 1, activation)[2](torch.tensor([2.0, -2.0]))
    torch.testing.assert_close(applied, torch.tensor(expected), rtol=0, atol=1e-4)


def block_and_inputs(**options):
    """A block with random weights, text of five tokens and two media, read by four of them."""
    torch.manual_seed(0)
    block = GatedCrossAttention(8, XattnConfig(heads=2, head_width=4, ffw_mult=2, **options))
    is_media = torch.tensor([[0, 1, 0, 1, 0]]).bool()
    reading = read_latest(media_slots(is_media), latest_media(is_media), 2)
    return block, torch.randn(1, 5, 8), torch.randn(2, 3, 16), reading


def test_one_gate_a_layer():
    block, x, keys_values, reading = block_and_inputs(start="closed_gates")
    with torch.no_grad():
        assert torch.equal(block(x, keys_values, reading), x)
        block.attention_gate.fill_(0.3)
        update = block.read(x, keys_values, reading)
        out = block(x, keys_values, reading)
    assert block.attention_gate.shape == block.ffw_gate.shape == (1,)
    torch.testing.assert_close(out, x + math.tanh(0.3) * update)
    assert torch.equal(out[:, 0], x[:, 0])  # before any media


def test_one_gate_a_channel():
    block, x, keys_values, reading = block_and_inputs(gate="channel")
    assert block.attention_gate.shape == block.ffw_gate.shape == (8,)
    with torch.no_grad():
        assert torch.equal(block(x, keys_values, reading), x)
        block.attention_gate[3] = -0.7
        block.ffw_gate[5] = 0.4
        update = block.read(x, keys_values, reading)
        between = x.clone()
        between[..., 3] -= math.tanh(0.7) * update[..., 3]
        expected = between.clone()
        expected[..., 5] += math.tanh(0.4) * block.ffw(between)[..., 5]
        torch.testing.assert_close(block(x, keys_values, reading), expected)


def test_no_gate():
    block, x, keys_values, reading = block_and_inputs(gate="none", start="random")
    assert {name for name, _ in block.named_parameters() if "gate" in name} == set()
    with torch.no_grad():
        between = x + block.read(x, keys_values, reading)
        expected = between + block.ffw(between)
        torch.testing.assert_close(block(x, keys_values, reading), expected)
    assert not torch.allclose(expected, x, atol=0.1)
    block, x, keys_values, reading = block_and_inputs(gate="none", start="zero_outputs")
    assert torch.equal(block(x, keys_values, reading), x)


def test_no_gate_cannot_be_closed():
    with pytest.raises(ValueError, match=r"xattn\.gate=none leaves no gates .* use xattn\.start"):
        block_and_inputs(gate="none")


def test_tokens_read_by_hand():
    block, x, keys_values, reading = block_and_inputs()
    with torch.no_grad():
        update = block.read(x, keys_values, reading)[0]
        queries = normed(x[0], block.norm) @ block.to_q.weight.T
        for token, media in ((1, 0), (2, 0), (3, 1), (4, 1)):
            keys, values = keys_values[media].chunk(2, dim=-1)
            found = attended(queries[token : token + 1], keys, values, heads=2)
            torch.testing.assert_close(update[token], (found @ block.to_out.weight.T)[0])
    assert not update[0].any()


@pytest.mark.parametrize("gate", ["scalar", "channel", "none"])
def test_every_gate_trains_saves_and_loads(gate, build, processor, tmp_path):
    model = build(gate=gate, start="random")
    batch = processor.batch([Document([Chunk(tiny.picture(0), "a red cat.")])])
    loss = tiny.loss_of(model, batch)
    loss.backward()
    assert all(p.grad.abs().max() > 0 for p in model.parameters() if p.requires_grad)
    model.save_pretrained(tmp_path)
    again = MiniFlamingo.from_pretrained(tmp_path)
    with torch.no_grad():
        logits = [each(batch.input_ids, pixels=batch.pixels).logits for each in (model, again)]
    assert torch.equal(*logits)
