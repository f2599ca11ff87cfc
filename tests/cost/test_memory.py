"""Estimated memory is what a tiny model that really runs holds."""

import pytest
import tiny
import torch
from torch.autograd.graph import saved_tensors_hooks

from miniflamingo.cost.flops import DocumentShape
from miniflamingo.cost.memory import activations, memory
from miniflamingo.model.checkpointing import checkpoint_activations

TOKENS, DOCUMENTS = 64, 4
BATCH = [DocumentShape(TOKENS, media=2, labels=32)] * DOCUMENTS


def measured(model, autocast):
    """Bytes of all that autograd saves in a real pass up to the logits, weights left out."""
    ids = torch.randint(1, 250, (DOCUMENTS, TOKENS))
    ids[:, 0] = ids[:, 30] = model.tokens.image
    positions = torch.arange(TOKENS).expand(DOCUMENTS, TOKENS)
    saved = []
    with (
        saved_tensors_hooks(lambda tensor: saved.append(tensor) or tensor, lambda tensor: tensor),
        torch.autocast("cpu", autocast, enabled=autocast is not None),
    ):
        pixels = torch.rand(2 * DOCUMENTS, 1, 3, 16, 16)
        logits = model(ids, position_ids=positions, pixels=pixels).logits
    assert logits.requires_grad
    weights = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    storages = {each.untyped_storage().data_ptr(): each.untyped_storage() for each in saved}
    return sum(storage.nbytes() for place, storage in storages.items() if place not in weights)


@pytest.mark.parametrize("autocast", [None, torch.bfloat16])
def test_checkpointed_layers_keep_what_they_read(autocast, build):
    """One of them at a time is computed again: that one's share comes on top of what is kept."""
    model = build(train_input_rows=False, resampler={"latents": 16})
    sizes = BATCH, autocast
    whole, again = (memory(model, *sizes, checkpoint_activations=each) for each in (False, True))
    plain = measured(model, autocast)
    checkpoint_activations(model.language, model.resampler)
    kept = measured(model, autocast)
    blocks = layers = len(list(model.gated_blocks()))
    recomputed = {
        "resampler and media projection": len(model.resampler.layers),
        "gated cross-attention": blocks,
        "frozen language model": layers,
    }
    one_layer = sum(whole[f"activations, {part}"] // n for part, n in recomputed.items())
    estimate = sum(again[f"activations, {part}"] for part in recomputed)
    assert estimate == pytest.approx(kept + one_layer, rel=0.25)
    assert estimate < 0.75 * plain


def test_sharded_weights_are_shared_and_some_are_whole_at_a_time(build):
    model = build(train_input_rows=False)
    one, four = (memory(model, BATCH, ranks=ranks) for ranks in (1, 4))
    for part in ("trained weights", "gradients", "optimizer"):
        assert four[part] == one[part] // 4
    buffers = sum(buffer.nbytes for buffer in model.buffers())
    assert four["frozen weights"] == pytest.approx(
        (one["frozen weights"] - buffers) / 4 + buffers, abs=1
    )
    layers = [sum(p.nbytes for p in layer.parameters()) for layer in model.language.model.layers]
    outside = [model.vision, *model.resampler.layers, *model.language.model.layers]
    inside = {id(p) for part in outside for p in part.parameters()}
    root = sum(p.nbytes for p in model.parameters() if id(p) not in inside)
    assert "gathered weights" not in one
    assert four["gathered weights"] == root + 2 * max(layers)


@pytest.mark.parametrize("autocast", [None, torch.bfloat16])
@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2", "opt", "qwen3", "phi3"])
def test_activations_are_those_that_autograd_keeps(family, autocast, build, tmp_path):
    language = tiny.write_language(tmp_path, family)
    model = build(language=language, train_input_rows=False, resampler={"latents": 16})
    kept = activations(model, BATCH, autocast)
    assert kept.pop("vocabulary projection") == DOCUMENTS * 32 * tiny.WIDTH * 4
    estimate = sum(kept.values())
    assert estimate == pytest.approx(measured(model, autocast), rel=0.15)


def test_nothing_is_kept_below_the_first_gated_layer(build):
    kept = [
        activations(build(first=first, every=3, train_input_rows=rows), BATCH)
        for first, rows in ((2, False), (1, False), (2, True))
    ]
    one, two, three = (each["frozen language model"] for each in kept)
    assert two == pytest.approx(2 * one, abs=2)
    assert three == pytest.approx(3 * one, abs=2)


def test_text_alone_keeps_nothing_of_media(build):
    kept = activations(build(), [DocumentShape(7, 0, 3)])
    assert kept["resampler and media projection"] == 0
    assert kept["gated cross-attention"] > 0


def test_weights_gradients_and_moments(build):
    model = build(train_input_rows=False)
    model.language.bfloat16()
    for block in model.gated_blocks():
        block.float()
    held = memory(model, BATCH)
    trained = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    assert held["trained weights"] == held["gradients"] == 4 * trained
    assert held["optimizer"] == 8 * trained
    frozen = sum(weight.nbytes for weight in model.state_dict().values()) - 4 * trained
    tied = model.language.get_input_embeddings().weight.nbytes  # named twice, there once
    unsaved = sum(buffer.nbytes for buffer in model.buffers()) - sum(
        model.state_dict()[name].nbytes
        for name, _ in model.named_buffers()
        if name in model.state_dict()
    )
    assert held["frozen weights"] == frozen - tied + unsaved
