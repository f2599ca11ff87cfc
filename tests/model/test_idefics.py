"""Agreement with transformers' Idefics, a Flamingo of other hands, by copying its weights.

The same mathematics: the resampler (keys and values over patches and latents, both normed; the
layers' order; the final norm) and masked, gated cross-attention. Not the same, and bridged below by
giving ours Idefics' part, or shown by a test of its own:

- the resampler's feed-forward has a ReLU, where the paper's is squared;
- it has no positions of frames: a clip is a picture with more patches;
- queries and keys may be normed once more, head by head (``qk_layer_norms``);
- the blocks norm the text by its root mean square alone, as llama does, where ours is a LayerNorm;
- their feed-forward is llama's gated one, where the paper's has one way in;
- the mask is added to the scores, and what a token without a picture reads is zeroed after;
- a picture is no longer read after the end of the text it stood in, where ours is read to the end
  of the document.
"""

from types import SimpleNamespace

import pytest
import torch
from agreement import assert_agrees
from torch import Tensor, nn
from transformers import IdeficsConfig
from transformers.models.idefics.modeling_idefics import IdeficsGatedCrossAttentionLayer
from transformers.models.idefics.perceiver import IdeficsPerceiverResampler
from transformers.models.idefics.processing_idefics import (
    IMAGE_TOKEN,
    image_attention_mask_for_packed_input_ids,
)

from miniflamingo.model.attention import SquaredReLU
from miniflamingo.model.config import ResamplerConfig, XattnConfig
from miniflamingo.model.gated_xattn import GatedCrossAttention, MediaProjection
from miniflamingo.model.media_mask import latest_media, media_slots, read_latest
from miniflamingo.model.resamplers.perceiver import PerceiverResampler

# Shapes: B rows, L tokens, N media, T media of a row, V patches, Q latents, D and E widths.
D, E, Q, V, HEADS, DEPTH = 48, 32, 5, 9, 4, 3
IS_MEDIA = torch.tensor(
    [
        [0, 0, 1, 0, 0, 1, 0, 0, 0, 1, 0, 0],  # text before the first picture
        [1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],  # text alone
    ]
).bool()


def idefics_config(**settings) -> IdeficsConfig:
    config = IdeficsConfig(
        hidden_size=D,
        intermediate_size=2 * D,
        num_attention_heads=HEADS,
        num_hidden_layers=1,
        vision_config={"embed_dim": E},
        alpha_initializer="random",
        alphas_initializer_range=1.0,
        alpha_type="vector",
        rms_norm_eps=1e-5,  # LayerNorm's
        **settings,
    )
    config._attn_implementation = "eager"
    return config


@torch.no_grad()
def with_random_norms(module: nn.Module) -> nn.Module:
    """Norms start at one and zero, which would hide a swapped or forgotten one."""
    for name, parameter in module.named_parameters():
        if "norm" in name or ".ln." in name:
            parameter.normal_(float(name.endswith("weight")), 0.3)
    return module


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def idefics_resampler(qk_layer_norms: bool = False) -> IdeficsPerceiverResampler:
    config = idefics_config(perceiver_config={"qk_layer_norms_perceiver": qk_layer_norms})
    theirs = IdeficsPerceiverResampler(config, E, DEPTH, HEADS, E // HEADS, Q)
    return with_random_norms(theirs)


def resampler_names(theirs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Idefics' resampler weights, or their gradients, under our names."""
    ours = {"latents": theirs["latents"]}
    for end in ("weight", "bias"):
        ours[f"norm.{end}"] = theirs[f"layer_norm.{end}"]
    for layer in range(DEPTH):
        attention, ffw = f"blocks.{layer}.0", f"blocks.{layer}.1"
        for end in ("weight", "bias"):
            norms = f"layers.{layer}.attention.norm"
            ours[f"{norms}_media.{end}"] = theirs[f"{attention}.context_layer_norm.{end}"]
            ours[f"{norms}_latents.{end}"] = theirs[f"{attention}.latents_layer_norm.{end}"]
            ours[f"layers.{layer}.ffw.0.{end}"] = theirs[f"{ffw}.ln.{end}"]
        keys_values = [theirs[f"{attention}.{part}_proj.weight"] for part in "kv"]
        ours[f"layers.{layer}.attention.to_q.weight"] = theirs[f"{attention}.q_proj.weight"]
        ours[f"layers.{layer}.attention.to_kv.weight"] = torch.cat(keys_values)
        ours[f"layers.{layer}.attention.to_out.weight"] = theirs[f"{attention}.output_proj.weight"]
        ours[f"layers.{layer}.ffw.1.weight"] = theirs[f"{ffw}.fc.weight"]
        ours[f"layers.{layer}.ffw.3.weight"] = theirs[f"{ffw}.c_proj.weight"]
    return ours


def our_resampler(theirs: IdeficsPerceiverResampler, max_frames: int = 1) -> PerceiverResampler:
    """Ours with Idefics' weights and no positions of frames."""
    config = ResamplerConfig(Q, DEPTH, HEADS, E // HEADS, max_frames=max_frames)
    ours = PerceiverResampler(config, E)
    missing, unexpected = ours.load_state_dict(resampler_names(theirs.state_dict()), strict=False)
    assert missing == ["frame_positions", "patch_mean", "patch_std"]
    assert not unexpected
    nn.init.zeros_(ours.frame_positions)
    return ours


def test_resampler_outputs_and_gradients():
    theirs = idefics_resampler()
    ours = our_resampler(theirs)
    for layer in ours.layers:
        layer.ffw[2] = nn.ReLU()
    drawn = torch.randn(3, V, E)
    patches = [drawn.clone().requires_grad_() for _ in range(2)]
    weights = torch.randn(3, Q, E)  # of the outputs in what is differentiated

    expected, resampled = theirs(patches[0]), ours(patches[1].unsqueeze(1))
    assert_agrees(resampled, expected)
    (expected * weights).sum().backward()
    (resampled * weights).sum().backward()
    assert_agrees(patches[1].grad, patches[0].grad)
    gradients = resampler_names({name: p.grad for name, p in theirs.named_parameters()})
    assert gradients.keys() == {name for name, _ in ours.named_parameters()} - {"frame_positions"}
    for name, gradient in gradients.items():
        assert_agrees(ours.get_parameter(name).grad, gradient)


def test_attention_of_one_resampler_layer():
    theirs = idefics_resampler()
    ours = our_resampler(theirs)
    patches, latents = torch.randn(3, V, E), torch.randn(3, Q, E)
    for (attention, _), layer in zip(theirs.blocks, ours.layers, strict=True):
        assert_agrees(layer.attention(patches, latents), attention(patches, latents))


def test_resampler_differs_by_the_square_in_its_feed_forward_alone():
    theirs = idefics_resampler()
    ours = our_resampler(theirs)
    patches = torch.randn(3, V, E)
    resampled = ours(patches.unsqueeze(1))
    assert (resampled - theirs(patches)).abs().max() > 0.1
    for _, ffw in theirs.blocks:
        ffw.act = SquaredReLU()
    assert_agrees(resampled, theirs(patches))


def test_a_clip_is_a_picture_with_more_patches_until_frames_have_positions():
    theirs = idefics_resampler()
    ours = our_resampler(theirs, max_frames=3)
    for layer in ours.layers:
        layer.ffw[2] = nn.ReLU()
    frames = torch.randn(2, 3, V, E)
    expected = theirs(frames.flatten(1, 2))
    assert_agrees(ours(frames), expected)
    nn.init.normal_(ours.frame_positions)
    assert (ours(frames) - expected).abs().max() > 0.1


def test_norms_of_each_heads_queries_and_keys_are_idefics_alone():
    plain, normed = idefics_resampler(), idefics_resampler(qk_layer_norms=True)
    normed.load_state_dict(plain.state_dict(), strict=False)
    patches, latents = torch.randn(3, V, E), torch.randn(3, Q, E)
    ours = our_resampler(plain).layers[0].attention(patches, latents)
    assert (ours - normed.blocks[0][0](patches, latents)).abs().max() > 0.01


class Blocks:
    """Idefics' gated layer, ours with its attention's weights and gates, and what both read."""

    def __init__(self) -> None:
        self.theirs = with_random_norms(IdeficsGatedCrossAttentionLayer(idefics_config(), 0))
        config = XattnConfig(heads=HEADS, head_width=D // HEADS, gate="channel")
        self.ours = GatedCrossAttention(D, config)
        self.projection = MediaProjection(E, 1, config)
        attention = self.theirs.cross_attn
        with torch.no_grad():
            self.ours.norm.weight.copy_(self.theirs.input_layernorm.weight)
            self.ours.to_q.weight.copy_(attention.q_proj.weight)
            self.ours.to_out.weight.copy_(attention.o_proj.weight)
            self.ours.attention_gate.copy_(self.theirs.alpha_cross_attn.flatten())
            self.ours.ffw_gate.copy_(self.theirs.alpha_dense.flatten())
            self.projection.to_kv[0].weight.copy_(
                torch.cat([attention.k_proj.weight, attention.v_proj.weight])
            )
        self.slots, self.reads = media_slots(IS_MEDIA), latest_media(IS_MEDIA)

    def take_their_norm_and_feed_forward(self) -> None:
        self.ours.norm = self.theirs.input_layernorm
        self.ours.ffw = nn.Sequential(self.theirs.post_attention_layernorm, self.theirs.mlp)

    def run_ours(self, text: Tensor, media: Tensor) -> Tensor:
        """(B, L, D) text and (N, Q, E) media -> (B, L, D)."""
        return self.ours(
            text, *self.projection(media), read_latest(self.slots, self.reads, len(media))
        )

    def run_theirs(self, text: Tensor, media: Tensor, gate: Tensor | None = None) -> Tensor:
        """The same by Idefics' layer, which takes each row's media in a row."""
        reads = self.reads[..., None] == torch.arange(self.slots.shape[1])  # (B, L, T)
        mask = reads.repeat_interleave(Q, dim=-1)[:, None]
        return self.theirs(
            text,
            image_hidden_states=media[self.slots].flatten(1, 2),
            image_attention_mask=torch.where(mask, 0.0, torch.finfo(text.dtype).min),
            cross_attention_gate=reads.any(-1).float() if gate is None else gate,
        )


def centred(text: Tensor) -> Tensor:
    """Text whose tokens have mean 0, for which LayerNorm without bias and RMSNorm are the same."""
    return text - text.mean(-1, keepdim=True)


def text_and_media() -> tuple[Tensor, Tensor]:
    return torch.randn(*IS_MEDIA.shape, D), torch.randn(int(IS_MEDIA.sum()), Q, E)


def test_cross_attention_outputs_and_gradients_where_the_norms_are_the_same():
    blocks = Blocks()
    with torch.no_grad():
        blocks.theirs.alpha_dense.zero_()
        blocks.ours.ffw_gate.zero_()
    drawn = text_and_media()
    inputs = [[each.clone().requires_grad_() for each in drawn] for _ in range(2)]
    weights = torch.randn(*IS_MEDIA.shape, D)
    results = []
    for run, (text, media) in zip((blocks.run_ours, blocks.run_theirs), inputs, strict=True):
        results.append(run(centred(text), media))
        (results[-1] * weights).sum().backward()
    assert_agrees(*results)
    for ours, theirs in zip(*inputs, strict=True):
        assert_agrees(ours.grad, theirs.grad)
    attention = blocks.theirs.cross_attn
    assert_agrees(blocks.ours.norm.weight.grad, blocks.theirs.input_layernorm.weight.grad)
    assert_agrees(blocks.ours.to_q.weight.grad, attention.q_proj.weight.grad)
    assert_agrees(blocks.ours.to_out.weight.grad, attention.o_proj.weight.grad)
    assert_agrees(blocks.ours.attention_gate.grad, blocks.theirs.alpha_cross_attn.grad.flatten())
    keys_values = torch.cat([attention.k_proj.weight.grad, attention.v_proj.weight.grad])
    assert_agrees(blocks.projection.to_kv[0].weight.grad, keys_values)


def test_gated_block_with_idefics_norm_and_feed_forward():
    blocks = Blocks()
    blocks.take_their_norm_and_feed_forward()
    text, media = text_and_media()
    assert_agrees(blocks.run_ours(text, media), blocks.run_theirs(text, media))


def test_norms_differ_by_the_mean_of_the_text():
    blocks = Blocks()
    text, _ = text_and_media()
    ours, theirs = blocks.ours.norm, blocks.theirs.input_layernorm
    assert (ours(text) - theirs(text)).abs().max() > 0.1
    assert_agrees(ours(text), theirs(centred(text)))


def test_text_before_any_picture_reads_exactly_nothing_in_both():
    blocks = Blocks()
    blocks.take_their_norm_and_feed_forward()
    text, media = text_and_media()
    with torch.no_grad():
        blocks.theirs.alpha_dense.zero_()
        blocks.ours.ffw_gate.zero_()
    blind = blocks.reads < 0
    assert torch.equal(blocks.run_ours(text, media)[blind], text[blind])
    assert torch.equal(blocks.run_theirs(text, media)[blind], text[blind])
    # Theirs by its gate: the mask alone is the same for all pictures, so they would all be read.
    without_gate = blocks.run_theirs(text, media, gate=torch.ones(IS_MEDIA.shape))
    assert (without_gate[blind] - text[blind]).abs().max() > 0.01


def test_each_token_reads_the_latest_picture_as_in_idefics_packed_rows():
    image, end = 7, 2
    tokenizer = SimpleNamespace(
        convert_tokens_to_ids={IMAGE_TOKEN: image}.__getitem__, eos_token_id=end
    )
    ids = torch.where(IS_MEDIA, image, 9)
    reads, _ = image_attention_mask_for_packed_input_ids(ids, tokenizer, "pt")
    assert torch.equal(latest_media(IS_MEDIA), reads)
    ids[1, 6] = end  # after an end of text Idefics reads no picture until the next
    reads, _ = image_attention_mask_for_packed_input_ids(ids, tokenizer, "pt")
    differs = latest_media(IS_MEDIA) != reads
    assert differs[1].tolist() == [False] * 7 + [True] * 5
    assert (reads[1, 7:] == -1).all()
    assert not differs[[0, 2]].any()
