"""The proof holds for our resampler, and would not hold for one that computes its queries."""

import json
from dataclasses import asdict

import pytest
import tiny
import torch

from miniflamingo import Chunk, Document
from miniflamingo.data.images import UnreadableImage
from miniflamingo.latents import prove
from miniflamingo.latents.report import statements
from miniflamingo.model.config import ResamplerConfig
from miniflamingo.model.resamplers.perceiver import PerceiverResampler

A, B = tiny.picture(1), tiny.picture(2)


class FromThePicture(PerceiverResampler):
    """What the project's question supposes: queries computed from the features."""

    def forward(self, patches):
        media = self.project(patches).flatten(1, 2)
        latents = self.latents + 1e-3 * media.mean(1, keepdim=True)
        for layer in self.layers:
            latents = layer(media, latents)
        return self.norm(latents)


class Shifted(PerceiverResampler):
    """The same for every picture, yet not the parameter."""

    def forward(self, patches):
        media = self.project(patches).flatten(1, 2)
        latents = (self.latents + 0.5).expand(len(patches), -1, -1)
        for layer in self.layers:
            latents = layer(media, latents)
        return self.norm(latents)


def test_the_queries_are_the_parameter(model, processor):
    proof = prove(model, processor, A, B)
    assert proof.queries_apart == 0
    assert proof.queries_from_parameter == 0
    assert proof.outputs_apart > proof.outputs_apart_mean > 0
    assert (proof.parameter, proof.shape, proof.requires_grad) == (
        "resampler.latents",
        (3, 16),
        True,
    )
    assert proof.mean == pytest.approx(float(model.resampler.latents.detach().mean()))
    assert proof.std == pytest.approx(float(model.resampler.latents.detach().std()))
    assert (
        "same numbers for both pictures: largest difference 0, and 0 from" in statements(proof)[0]
    )


def test_queries_that_are_computed_from_the_picture_are_found_out(model, processor):
    model.resampler.__class__ = FromThePicture
    proof = prove(model, processor, A, B)
    assert proof.queries_apart > 0
    assert proof.queries_from_parameter > 0
    assert "NOT just the parameter" in statements(proof)[0]


def test_queries_that_are_something_else_than_the_parameter_are_found_out(model, processor):
    model.resampler.__class__ = Shifted
    proof = prove(model, processor, A, B)
    assert proof.queries_apart == 0
    assert proof.queries_from_parameter == pytest.approx(0.5)
    assert "NOT just the parameter" in statements(proof)[0]


def test_the_gradient_reaches_the_latents_and_nothing_frozen(model, processor):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    proof = prove(model, processor, A, B, caption="a red cat.")
    assert len(proof.gradient_norms) == 3
    assert min(proof.gradient_norms) > 0
    assert set(proof.frozen) == {"frozen language model", "frozen image encoder"}
    for part in proof.frozen.values():
        assert part.parameters > 10
        assert (part.requiring_gradient, part.with_gradient) == (0, 0)
    assert 'caption "a red cat.", ' in statements(proof)[3]
    assert "reaches 3 of the 3 latents" in statements(proof)[3]
    assert "0 require a gradient and 0 got one" in statements(proof)[3]
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_gradient_is_that_of_the_captions_mean_loss(model, processor):
    proof = prove(model, processor, A, B, caption="a red cat.")
    latents = model.resampler.latents
    batch = processor.batch([Document([Chunk(A, "a red cat.")])])
    loss = model(batch.input_ids, pixels=batch.pixels, labels=batch.labels).loss
    (gradient,) = torch.autograd.grad(loss, latents)
    assert proof.loss == pytest.approx(float(loss.detach()), rel=1e-5)
    assert proof.gradient_norms == pytest.approx(gradient.norm(dim=-1).tolist(), rel=1e-4)


def test_an_unfrozen_language_model_is_found_out(model, processor):
    layer = model.language.model.layers[2].layer
    layer.mlp.down_proj.weight.requires_grad_(True)
    proof = prove(model, processor, A, B)
    part = proof.frozen["frozen language model"]
    assert (part.requiring_gradient, part.with_gradient) == (1, 1)
    assert "1 require a gradient and 1 got one" in statements(proof)[3]


@pytest.mark.parametrize("start", ["closed_gates", "zero_outputs"])
def test_at_either_start_the_very_first_gradient_of_the_latents_is_zero(build, processor, start):
    proof = prove(build(start=start), processor, A, B)
    assert proof.gradient_norms == [0.0] * 3
    assert "reaches none of the 3 latents (untrained gated layers add" in statements(proof)[3]


def test_latents_that_do_not_train(model, processor):
    model.resampler.latents.requires_grad_(False)
    proof = prove(model, processor, A, B)
    assert not proof.requires_grad
    assert proof.gradient_norms == [0.0] * 3
    assert "not trained" in statements(proof)[1]


def test_the_caption_is_what_the_model_says(model, processor):
    inputs = processor([Document([Chunk(A)])])
    said = processor.batch_decode(model.generate(**inputs, max_new_tokens=30, do_sample=False))
    assert prove(model, processor, A, B).caption == said[0]


def test_a_half_precision_language_model(language_folder, build, processor):
    model = build(opened=True)
    model.language.to(torch.bfloat16)
    for block in model.gated_blocks():
        block.float()
    proof = prove(model, processor, A, B)
    assert proof.queries_apart == 0
    assert min(proof.gradient_norms) > 0


def test_the_proof_is_plain_values(model, processor):
    proof = asdict(prove(model, processor, A, B))
    assert json.loads(json.dumps(proof))["shape"] == [3, 16]


def test_latents_are_drawn_as_the_proof_says():
    torch.manual_seed(0)
    config = ResamplerConfig(latents=64, depth=1, heads=1, head_width=8, width=256)
    latents = PerceiverResampler(config, vision_width=8).latents
    torch.manual_seed(0)
    assert torch.equal(latents, torch.randn(64, 256))


def test_a_picture_that_cannot_be_read_is_named(model, processor):
    with pytest.raises(UnreadableImage, match=r"nope\.png"):
        prove(model, processor, A, "nope.png")
