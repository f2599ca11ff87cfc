"""The warm start: the resampler alone learns to name what is in a picture."""

import copy

import pytest
import torch

from miniflamingo.model.config import ResamplerConfig
from miniflamingo.model.resamplers.perceiver import PerceiverResampler
from miniflamingo.training.callbacks.warm_start import (
    ResamplerWarmStart,
    name_targets,
    recall_of_words,
    telling_words,
    words_of,
)

CAPTIONS = ["A cat on red.", "a dog on red", "a cat, a dog on blue", "a cup on blue"]


def test_words():
    assert words_of("A cat, a Dog on-red 3.") == {"a", "cat", "dog", "on", "red", "3"}


def test_telling_words_are_neither_everywhere_nor_rare():
    # a, on: all 4; cat, dog, red, blue: 2; cup: 1.
    assert telling_words(CAPTIONS, most=0.6, least=2) == ["blue", "cat", "dog", "red"]
    assert telling_words(CAPTIONS, most=0.5, least=1) == ["cup"]
    assert telling_words(CAPTIONS, most=1.1, least=4) == ["a", "on"]


def test_targets_share_a_captions_words():
    targets = name_targets(CAPTIONS, ["cat", "cup", "dog"])
    assert targets.tolist() == [[1, 0, 0], [0, 0, 1], [0.5, 0, 0.5], [0, 1, 0]]
    assert name_targets(["nothing known"], ["cat"]).tolist() == [[0.0]]


def test_recall_by_hand():
    targets = torch.tensor([[0.5, 0.5, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]])
    logits = torch.tensor([[9.0, 1, 5, 0], [0, 1, 9, 0], [1, 2, 3, 4]])
    # One of two words among the two best guesses, one of one; the third has none to find.
    assert recall_of_words(logits, targets) == pytest.approx(0.75)
    assert recall_of_words(logits[2:], targets[2:]) == 0


@pytest.fixture(scope="module")
def toy():
    """Patches that show three of nine things each, far from standardised, and their captions."""
    generator = torch.Generator().manual_seed(0)
    things = torch.randn(9, 12, generator=generator)
    names = ["cat", "dog", "cup", "sun", "key", "pen", "hat", "bus", "owl"]
    shown = torch.stack([torch.randperm(9, generator=generator)[:3] for _ in range(200)])
    patches = things[shown] * 20 + 7  # (pictures, V, E)
    captions = [" and ".join(names[i] for i in row) for row in shown.tolist()]
    return patches[:, None].to(torch.bfloat16), captions


def make_resampler(width=8):
    torch.manual_seed(0)
    return PerceiverResampler(
        ResamplerConfig(latents=6, depth=1, heads=2, head_width=8, width=width), 12
    )


def test_it_learns_to_name(toy):
    patches, captions = toy
    resampler = make_resampler(16)
    before = copy.deepcopy(resampler.state_dict())
    settings = {"batch_size": 32, "most": 0.6, "lr": 3e-3}
    untrained = ResamplerWarmStart("pairs", steps=1, **settings).teach(
        make_resampler(16), patches, captions
    )
    recall = ResamplerWarmStart("pairs", steps=150, **settings).teach(resampler, patches, captions)
    assert untrained < 0.6  # a guess finds a third
    assert recall > 0.9
    moved = {
        name
        for name, value in resampler.state_dict().items()
        if not torch.equal(value, before[name])
    }
    assert moved == set(before)

    flat = patches.float().flatten(0, -2)
    torch.testing.assert_close(resampler.patch_mean, flat.mean(0))
    torch.testing.assert_close(resampler.patch_std, flat.std(0))


def test_it_is_the_same_every_time_and_leaves_the_seed_alone(toy):
    patches, captions = toy
    warm_start = ResamplerWarmStart("pairs", steps=3, most=0.6)
    resamplers = make_resampler(), make_resampler()
    torch.manual_seed(5)
    warm_start.teach(resamplers[0], patches, captions)
    drawn = torch.rand(3)
    torch.manual_seed(5)
    assert torch.equal(torch.rand(3), drawn)
    torch.manual_seed(6)
    warm_start.teach(resamplers[1], patches, captions)
    first, second = (resampler.state_dict() for resampler in resamplers)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_standardised_patches_have_mean_0_and_deviation_1(toy):
    patches, _ = toy
    resampler = make_resampler(12)
    resampler.standardise(patches)
    seen = []
    resampler.layers[0].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    with torch.no_grad():
        resampler.frame_positions.zero_()
        resampler(patches)
    flat = seen[0].flatten(0, -2)
    torch.testing.assert_close(flat.mean(0), torch.zeros(12), atol=1e-3, rtol=0)
    torch.testing.assert_close(flat.std(0), torch.ones(12), atol=1e-3, rtol=0)


def test_captions_without_telling_words_are_told(toy):
    patches, _ = toy
    captions = ["the same caption"] * len(patches)
    with pytest.raises(ValueError, match="no telling words"):
        ResamplerWarmStart("pairs", steps=1).teach(make_resampler(), patches, captions)
