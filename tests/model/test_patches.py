"""Patch features computed beforehand stand in for pixels through every door of the model."""

import pytest
import tiny
import torch

from miniflamingo import Chunk, Document
from miniflamingo.batch import PatchMedia
from miniflamingo.model.config import VisionConfig
from miniflamingo.model.fingerprint import encoder_fingerprint
from miniflamingo.model.vision import load_vision


@pytest.fixture
def batch(processor):
    documents = [
        Document([Chunk(tiny.picture(seed), "two cups."), Chunk(tiny.picture(seed + 9), "a dog.")])
        for seed in range(2)
    ]
    return processor.batch(documents)


def test_patches_give_what_their_pixels_give(model, batch):
    patches = model.vision(batch.pixels)
    ids, labels = batch.input_ids, batch.labels
    for settings in ({}, {"labels": labels}):
        outputs = [
            model(ids, position_ids=batch.position_ids, **settings, **media)
            for media in ({"pixels": batch.pixels}, {"media": PatchMedia(patches)})
        ]
        read = [out.loss if settings else out.logits for out in outputs]
        torch.testing.assert_close(read[0], read[1], rtol=0, atol=0)
    losses = [
        model.token_losses(ids, batch.position_ids, media, labels)
        for media in (batch.media, PatchMedia(patches))
    ]
    torch.testing.assert_close(losses[0], losses[1], rtol=0, atol=0)
    for beams in (1, 3):
        settings = {"max_new_tokens": 6, "num_beams": beams}
        from_pixels = model.generate(ids, batch.pixels, **settings)
        assert torch.equal(model.generate(ids, PatchMedia(patches), **settings), from_pixels)


def test_other_patches_give_another_loss(model, batch):
    patches = model.vision(batch.pixels)
    losses = [
        model(batch.input_ids, PatchMedia(x), labels=batch.labels).loss
        for x in (patches, patches.roll(1, 0))
    ]
    assert abs(losses[0] - losses[1]) > 1e-3


def refused(model, ids, message, **media):
    calls = [
        lambda: model(ids, **media),
        lambda: model(ids, labels=ids, **media),
        lambda: model.generate(ids, max_new_tokens=1, **media),
    ]
    for call in calls:
        with pytest.raises(ValueError, match=message):
            call()


def test_bad_patches_are_refused_at_every_door(model, batch):
    ids, patches = batch.input_ids, model.vision(batch.pixels)
    shape = r"patches have the shape \(4, 1, 4, 23\).* gives \(media, frames, patches, 24\)"
    refused(model, ids, shape, media=PatchMedia(patches[..., :-1]))
    refused(model, ids, r"patches have the shape \(4, 4, 24\)", media=PatchMedia(patches[:, 0]))
    broken = patches.clone()
    broken[2, 0, 1, 3] = torch.inf
    refused(model, ids, r"patches of media \[2\] of 4 are not finite", media=PatchMedia(broken))
    refused(
        model, ids, "hold 4 <image> tokens but patches hold 3 media", media=PatchMedia(patches[:3])
    )
    refused(model, ids, "give one of the two", media=PatchMedia(patches), pixels=batch.pixels)


def test_an_encoders_fingerprint_is_of_weights_stages_and_preprocessing(clip_folder, tmp_path):
    def of(folder, **settings):
        return encoder_fingerprint(load_vision(VisionConfig(f"local-dir:{folder}", **settings)))

    same = of(clip_folder)
    assert of(tiny.write_clip(tmp_path / "copy")) == same
    assert of(clip_folder, dtype="bfloat16") == same
    others = {
        of(tiny.write_clip(tmp_path / "weights", seed=1)),
        of(tiny.write_clip(tmp_path / "colours", preprocessing={"mean": [0.1, 0.2, 0.3]})),
        of(clip_folder, stages=[0]),
        of(clip_folder, image_size=24),
    }
    assert len(others | {same}) == 5
