"""Bad input: a clear error, or a defined result."""

import pytest
import tiny
import torch

from miniflamingo import Chunk, Document, MiniFlamingo


@pytest.fixture
def batch(processor):
    chunks = [Chunk(tiny.picture(seed), "two cups.") for seed in range(3)]
    return processor.batch([Document(chunks)])


def each_way(model, ids, pixels):
    """The same inputs through every door of the model."""
    yield lambda: model(ids, pixels=pixels)
    yield lambda: model(ids, pixels=pixels, labels=ids)
    yield lambda: model.generate(ids, pixels, max_new_tokens=1)


def refused(model, ids, pixels, message):
    for call in each_way(model, ids, pixels):
        with pytest.raises(ValueError, match=message):
            call()


@pytest.mark.parametrize(("kept", "found"), [(2, 2), (0, 0), (None, 0)])
def test_more_tags_than_media(model, batch, kept, found):
    pixels = None if kept is None else batch.pixels[:kept]
    refused(model, batch.input_ids, pixels, f"hold 3 <image> tokens but pixels hold {found} media")


def test_more_media_than_tags(model, batch):
    pixels = torch.cat([batch.pixels, batch.pixels])
    refused(model, batch.input_ids, pixels, "hold 3 <image> tokens but pixels hold 6 media")


def test_media_without_text(model, processor):
    ids = torch.tensor([processor.tokenizer("two cups").input_ids])
    refused(model, ids, torch.zeros(1, 1, 3, 16, 16), "hold 0 <image> tokens but pixels hold 1")


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_pixels_that_are_not_finite(model, batch, value):
    pixels = batch.pixels.clone()
    pixels[1, 0, 2, 5, 5] = value
    refused(model, batch.input_ids, pixels, r"pixels of media \[1\] of 3 are not finite")


@pytest.mark.parametrize("shape", [(3, 3, 16, 16), (3, 1, 3, 8, 16), (3, 1, 1, 16, 16)])
def test_pixels_of_another_shape(model, batch, shape):
    message = r"pixels have the shape \(3, .* reads \(media, frames, 3, 16, 16\)"
    refused(model, batch.input_ids, torch.zeros(shape), message)


@pytest.mark.parametrize("shape", [(0, 4), (2, 0)])
def test_an_empty_batch(model, shape):
    ids = torch.zeros(shape, dtype=torch.long)
    refused(model, ids, None, r"input_ids of shape \(\d, \d\) hold no tokens")


def test_no_documents(processor):
    for encode in (processor, processor.batch):
        with pytest.raises(ValueError, match="no documents to encode"):
            encode([])


def test_a_model_of_another_width_is_refused_with_both_shapes(build, tmp_path):
    build(resampler={"width": 16}).save_pretrained(tmp_path / "narrow")
    build(resampler={"width": 24}).save_pretrained(tmp_path / "wide")
    weights = (tmp_path / "wide" / "model.safetensors").read_bytes()
    (tmp_path / "narrow" / "model.safetensors").write_bytes(weights)
    message = r"shape of resampler\.latents: found \(3, 24\), expected \(3, 16\)"
    with pytest.raises(ValueError, match=message):
        MiniFlamingo.from_pretrained(tmp_path / "narrow")


def test_every_stage_gives_the_same_and_needs_no_more_than_is_left(model, batch, monkeypatch):
    ids = batch.input_ids
    with torch.no_grad():
        stages = [batch.media, model.encode(batch.media), model.resample(batch.media)]
        stages.append(model.project_media(batch.media, ids))
        expected = model(ids, batch.media).logits
        # A part that has done its work must not be asked again.
        for stage, done in zip(
            stages[1:], (model.vision, model.resampler, model.media_projection), strict=True
        ):
            monkeypatch.setattr(done, "forward", None)
            assert torch.equal(model(ids, stage).logits, expected)
            written = model.generate(ids, stage, max_new_tokens=3)
            assert written.shape[0] == len(ids)


def test_pixels_by_keyword_or_bare_are_pixel_media(model, batch):
    with torch.no_grad():
        logits = [
            model(batch.input_ids, media, pixels=pixels).logits
            for media, pixels in ((batch.media, None), (batch.pixels, None), (None, batch.pixels))
        ]
    assert torch.equal(logits[0], logits[1])
    assert torch.equal(logits[0], logits[2])
