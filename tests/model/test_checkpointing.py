"""Activation checkpointing changes memory, not gradients."""

import tiny
import torch
from torch.autograd.graph import saved_tensors_hooks

from miniflamingo import Chunk, Document, MiniFlamingo
from miniflamingo.model.checkpointing import checkpoint_activations


def train_step(model, batch):
    """Gradients by name, and the bytes that the forward pass kept for the backward pass."""
    kept = {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    model.zero_grad()
    with saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = tiny.loss_of(model, batch)
    loss.backward()
    gradients = {
        name.replace("_checkpoint_wrapped_module.", ""): parameter.grad.clone()
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    return gradients, sum(size for place, size in kept.items() if place not in weights)


def test_it_changes_memory_and_not_gradients(build, processor, tmp_path):
    chunks = [Chunk(tiny.picture(seed), "two red cups on a blue background.") for seed in range(3)]
    batch = processor.batch([Document(chunks), Document(chunks[:1])])
    model = build(opened=True).train()
    expected, plain = train_step(model, batch)
    checkpoint_activations(model.language, model.resampler)
    gradients, checkpointed = train_step(model, batch)
    assert gradients.keys() == expected.keys()
    for name, gradient in gradients.items():
        assert torch.equal(gradient, expected[name]), name
    assert checkpointed < 0.4 * plain

    # What is saved is what would be saved without.
    model.save_pretrained(tmp_path)
    again = MiniFlamingo.from_pretrained(tmp_path)
    inputs = processor([Document([*chunks, Chunk(tiny.picture(9))])])
    settings = {"max_new_tokens": 5, "num_beams": 3}
    assert torch.equal(again.generate(**inputs, **settings), model.generate(**inputs, **settings))


def test_nothing_below_the_first_gated_layer_is_wrapped(build):
    model = build(first=2, opened=True)
    checkpoint_activations(model.language, model.resampler)
    wrapped = [
        hasattr(layer, "_checkpoint_wrapped_module") for layer in model.language.model.layers
    ]
    assert wrapped == [False, False, True]
