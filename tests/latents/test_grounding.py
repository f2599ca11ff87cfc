"""Closing parts of the road does what closed gates would, and leaves nothing behind."""

import copy

import pytest
import tiny
import torch

from miniflamingo import Chunk, Document
from miniflamingo.batch import PixelMedia
from miniflamingo.latents.grounding import (
    closed,
    grounding,
    losses_of,
    losses_without_each_latent,
    without_latent,
)

TEXTS = [["a red cat.", "two blue cups."], ["three dogs.", "a green dog."]]


@pytest.fixture
def batch(processor):
    pages = [
        Document([Chunk(tiny.picture(10 * page + i), text) for i, text in enumerate(texts)])
        for page, texts in enumerate(TEXTS)
    ]
    return processor.batch(pages)


def with_gates(model, attention, ffw, layers):
    """A copy whose gates are closed by hand."""
    model = copy.deepcopy(model)
    with torch.no_grad():
        for layer, block in enumerate(model.gated_blocks()):
            if layer in layers:
                block.attention_gate.mul_(attention)
                block.ffw_gate.mul_(ffw)
    return model


def loss(model, batch):
    return losses_of(model, batch)


@pytest.mark.parametrize(
    ("name", "attention", "ffw", "layers"),
    [
        ("real", 1, 1, []),
        ("attention_closed", 0, 1, [0, 1]),
        ("both_closed", 0, 0, [0, 1]),
        ("attention_closed/0", 0, 1, [0]),
        ("attention_closed/1", 0, 1, [1]),
        ("both_closed/1", 0, 0, [1]),
    ],
)
def test_a_condition_is_what_closed_gates_give(model, batch, name, attention, ffw, layers):
    expected = loss(with_gates(model, attention, ffw, layers), batch)
    torch.testing.assert_close(grounding(model, batch)[name], expected)


def test_conditions_differ_and_leave_the_model_as_it_was(model, batch):
    before = loss(model, batch)
    found = grounding(model, batch)
    assert len(found) == 8
    means = {round(float(values.mean()), 5) for values in found.values()}
    assert len(means) == 8
    assert torch.equal(loss(model, batch), before)
    assert not any(module._forward_hooks for module in model.modules())


def test_a_model_without_gates_can_be_closed(build, batch):
    model = build(gate="none", start="random")
    (before,) = {float(loss(model, batch).mean())}
    with closed(model.gated_blocks(), ffw=True):
        shut = loss(model, batch)
    plain = with_gates(build(start="closed_gates"), 0, 0, [0, 1])
    torch.testing.assert_close(shut, loss(plain, batch))
    assert before != pytest.approx(float(shut.mean()), rel=1e-4)


def test_an_error_inside_opens_the_road_again(model, batch):
    before = loss(model, batch)

    def fail():
        with closed(model.gated_blocks(), ffw=False):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert torch.equal(loss(model, batch), before)


def test_swapped_pictures_are_the_other_documents(model, batch):
    other = batch._replace(media=PixelMedia(batch.pixels[[2, 3, 0, 1]]))
    torch.testing.assert_close(grounding(model, batch)["swapped"], losses_of(model, other))


def test_a_lone_document_has_no_other_pictures(model, processor):
    batch = processor.batch([Document([Chunk(tiny.picture(0), "a red cat.")])])
    assert set(grounding(model, batch, layers=False)) == {"real", "attention_closed", "both_closed"}


def test_a_latent_left_out_is_not_read(model, batch):
    tokens = model.resample(batch.media).values
    with without_latent(model, 1):
        assert torch.equal(model.resample(batch.media).values, tokens[:, [0, 2]])
    found = losses_without_each_latent(model, [batch])
    assert found.shape == (3,)
    assert (found != loss(model, batch).mean()).all()


@pytest.mark.parametrize("latent", [-1, 3])
def test_a_latent_out_of_range(model, latent):
    with pytest.raises(ValueError, match=f"latent {latent} cannot be left out of 3"):
        without_latent(model, latent)
