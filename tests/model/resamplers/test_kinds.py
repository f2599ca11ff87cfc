"""Every kind of resampler does what the rest of the model asks of one."""

import pytest
import tiny
import torch
from conftest import RESAMPLER
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from miniflamingo import Chunk, Document, MiniFlamingo
from miniflamingo.cost.flops import DocumentShape, step_flops
from miniflamingo.cost.memory import memory
from miniflamingo.cost.meta_model import outline
from miniflamingo.model.checkpointing import checkpoint_activations
from miniflamingo.model.compiling import compile_in_place
from miniflamingo.model.config import ResamplerConfig
from miniflamingo.model.parameters import count_parameters
from miniflamingo.model.resamplers import KINDS, MeanResampler, build_resampler
from miniflamingo.training.optim import OptimConfig, parameter_groups

EVERY_KIND = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture
def batch(processor):
    return processor.batch(
        [Document([Chunk(tiny.picture(2 * n + m), "a cup.") for m in (0, 1)]) for n in (0, 1)]
    )


@EVERY_KIND
@pytest.mark.parametrize("frames", [1, 3])
def test_any_number_of_patches_becomes_q_tokens(kind, frames):
    config = ResamplerConfig(**RESAMPLER | {"kind": kind, "max_frames": 3})
    resampler = build_resampler(config, 24)
    for patches in (1, 4, 50):
        tokens = resampler(torch.randn(2, frames, patches, 24))
        assert tokens.shape == (2, resampler.tokens_per_item, resampler.width) == (2, 3, 16)
    with pytest.raises(ValueError, match="has 4 frames but the resampler has positions for 3"):
        resampler(torch.randn(2, 4, 5, 24))


@EVERY_KIND
def test_what_comes_out_depends_on_the_picture_alone_in_its_batch(kind):
    resampler = build_resampler(ResamplerConfig(**RESAMPLER | {"kind": kind}), 24)
    patches = torch.randn(3, 1, 5, 24)
    together = resampler(patches)
    torch.testing.assert_close(together[1:2], resampler(patches[1:2]), rtol=1e-5, atol=1e-6)
    assert not torch.allclose(together[0], together[1])


@EVERY_KIND
def test_flops_are_what_torch_counts(kind):
    resampler = build_resampler(ResamplerConfig(**RESAMPLER | {"kind": kind}), 24)
    patches = torch.randn(1, 1, 7, 24)
    forward, backward = resampler.flops(7)
    # The CPU's own kernel is none that the counter knows.
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        resampler(patches)
    assert counter.get_total_flops() == forward
    assert forward <= backward <= 2 * forward  # to the last FLOP in tests/cost, with its model


@EVERY_KIND
def test_a_model_of_it_learns_is_described_and_comes_back(kind, build, batch, tmp_path):
    model = build(opened=True, resampler={"kind": kind})
    tiny.loss_of(model, batch).backward()
    weights = dict(model.resampler.named_parameters())
    assert weights
    assert all(
        weight.grad is not None and weight.grad.abs().sum() > 0 for weight in weights.values()
    )
    grouped = {id(p) for g in parameter_groups(model, OptimConfig()) for p in g["params"]}
    assert all(id(weight) in grouped for weight in weights.values())

    described = outline(model.config)
    assert count_parameters(described) == count_parameters(model)
    documents = [DocumentShape(20, 2, 10)]
    assert step_flops(described, documents)["resampler"].total > 0
    for checkpointed in (False, True):
        held = memory(described, documents, checkpoint_activations=checkpointed)
        assert all(size >= 0 for size in held.values())

    model.save_pretrained(tmp_path)
    again = MiniFlamingo.from_pretrained(tmp_path)
    assert again.config.resampler.kind == kind
    with torch.no_grad():
        model.eval()
        assert torch.equal(
            again(batch.input_ids, batch.media).logits, model(batch.input_ids, batch.media).logits
        )
        assert again.generate(batch.input_ids, batch.media, max_new_tokens=2).shape[0] == 2


@EVERY_KIND
def test_checkpointed_layers_change_no_gradient(kind, build, batch):
    gradients = []
    for checkpointed in (False, True):
        model = build(opened=True, resampler={"kind": kind})
        if checkpointed:
            checkpoint_activations(model.language, model.resampler)
        tiny.loss_of(model, batch).backward()
        gradients.append([weight.grad for weight in model.resampler.parameters()])
    torch.testing.assert_close(*gradients)


@EVERY_KIND
def test_its_layers_are_compiled_with_the_rest(kind, build, monkeypatch):
    model = build(resampler={"kind": kind})
    compiled = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda module: compiled.append(module))
    compile_in_place(model)
    assert [layer for layer in model.resampler.layers if layer in compiled] == list(
        model.resampler.layers
    )


def test_an_unknown_kind_is_told():
    with pytest.raises(ValueError, match=r"resampler\.kind='slots' is unknown; it is perceiver or"):
        build_resampler(ResamplerConfig(kind="slots"), 8)


def test_the_mean_resampler_by_hand():
    """Four patches to two tokens: means of the first two and of the last two."""
    resampler = MeanResampler(ResamplerConfig(latents=2, width=2), 2)
    resampler.standardise(torch.tensor([[[1.0, 0.0], [3.0, 4.0]]]))
    with torch.no_grad():
        resampler.project.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 2.0]]))
        resampler.project.bias.copy_(torch.tensor([0.5, 0.0]))
    patches = torch.tensor([[1.0, 2.0], [3.0, 6.0], [2.0, 0.0], [6.0, 4.0]])
    mean, std = torch.tensor([2.0, 2.0]), torch.tensor([2.0, 8.0]).sqrt()
    pooled = torch.stack([patches[:2].mean(0), patches[2:].mean(0)])
    expected = (pooled - mean) / std * torch.tensor([1.0, 2.0]) + torch.tensor([0.5, 0.0])
    expected = torch.nn.functional.layer_norm(expected, (2,))
    torch.testing.assert_close(resampler(patches[None, None])[0], expected)
