"""A quantised language model computes with the weights that its bits stand for."""

import bitsandbytes
import pytest
import tiny
import torch
from bitsandbytes.functional import dequantize_4bit

from miniflamingo import Chunk, Document, MiniFlamingo
from miniflamingo.cost.meta_model import outline
from miniflamingo.model import quantisation


@pytest.fixture
def language(tmp_path):
    """Wide enough for blocks of 64 weights, and with a head of its own."""
    return tiny.write_language(
        tmp_path / "wide", hidden_size=64, intermediate_size=128, initializer_range=0.08
    )


@pytest.fixture
def batch(processor):
    chunks = [Chunk(tiny.picture(seed), "two red cups on a blue background.") for seed in range(3)]
    return processor.batch([Document(chunks), Document(chunks[:1])])


def quantised(model):
    kinds = (bitsandbytes.nn.Linear4bit, bitsandbytes.nn.Linear8bitLt)
    return {name: m for name, m in model.language.named_modules() if isinstance(m, kinds)}


def unpacked(module):
    """The weight that a quantised one stands for."""
    if isinstance(module, bitsandbytes.nn.Linear4bit):
        return dequantize_4bit(module.weight.data, module.weight.quant_state)
    return module.weight.data * module.weight.SCB[:, None] / 127


@pytest.mark.parametrize(("bits", "tolerance"), [(4, 1e-5), (8, 1e-2)])  # 8: activations too
def test_it_computes_with_the_weights_that_its_bits_stand_for(
    build, language, batch, bits, tolerance
):
    model = build(language=language, opened=True, language_bits=bits)
    reference = build(language=language, opened=True)
    layers = quantised(model)
    assert len(layers) == 7 * tiny.LAYERS  # all matrices of all layers, and neither head nor gates
    whole = tiny.loss_of(reference, batch).item()
    with torch.no_grad():
        for name, module in layers.items():
            reference.language.get_submodule(name).weight.copy_(unpacked(module))
    loss, expected = tiny.loss_of(model, batch), tiny.loss_of(reference, batch)
    assert loss.item() == pytest.approx(expected.item(), rel=tolerance)
    assert abs(expected.item() - whole) > 1e-4  # the comparison can fail

    loss.backward()
    expected.backward()
    mine, others = model.resampler.latents.grad, reference.resampler.latents.grad
    torch.testing.assert_close(mine, others, rtol=0, atol=10 * tolerance * others.abs().max())


@pytest.mark.parametrize("bits", [4, 8])
def test_an_exported_model_is_loaded_with_its_bits(build, language, batch, bits, tmp_path):
    model = build(language=language, opened=True, language_bits=bits)
    model.save_pretrained(tmp_path / "model")
    again = MiniFlamingo.from_pretrained(tmp_path / "model")
    assert quantised(again).keys() == quantised(model).keys()
    with torch.no_grad():
        assert tiny.loss_of(again, batch) == tiny.loss_of(model, batch)


@pytest.mark.parametrize("bits", [4, 8])
def test_an_outline_knows_how_much_is_saved(build, language, bits):
    model = build(language=language, language_bits=bits)
    scales = sum(
        m.weight.quant_state.absmax.nbytes if bits == 4 else m.weight.SCB.nbytes
        for m in quantised(model).values()
    )
    held = sum(weight.nbytes for weight in model.language.parameters()) + scales
    plain = outline(model.config)
    saved = quantisation.saved_bytes(plain.language, bits)
    assert sum(weight.nbytes for weight in plain.language.parameters()) - saved == held


def test_other_bits_are_refused(build):
    with pytest.raises(ValueError, match="language_bits=3 is neither 8 nor 4"):
        build(language_bits=3)


def test_a_missing_library_is_told(build, monkeypatch):
    monkeypatch.setattr(quantisation, "is_bitsandbytes_available", lambda: False)
    with pytest.raises(ValueError, match=r"needs bitsandbytes .*miniflamingo\[quantised\]"):
        build(language_bits=8)
