"""Patch features from shard to batch."""

import dataclasses
import json

import pytest
import tiny
import torch

from miniflamingo import Chunk, Document, MiniFlamingoProcessor
from miniflamingo.batch import PatchMedia
from miniflamingo.data.dropped import Dropped
from miniflamingo.data.patches import read_patches, write_patches
from miniflamingo.document import Patches


@pytest.fixture
def reader(processor):
    """A processor that takes the features of the encoder "abc"."""
    return MiniFlamingoProcessor(processor.tokenizer, processor.preprocessing, "abc")


def features(seed, frames=1, encoder="abc", dtype=torch.bfloat16):
    generator = torch.Generator().manual_seed(seed)
    return Patches(torch.randn(frames, 4, 24, generator=generator).to(dtype), encoder)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_files_give_back_what_was_written(dtype):
    written = features(0, frames=2, dtype=dtype)
    read = read_patches(write_patches(written))
    assert torch.equal(read.values, written.values)
    assert read.values.dtype == dtype
    assert read.encoder == "abc"


def test_damaged_files_are_told():
    good = write_patches(features(0))
    for bad in (b"", good[:-1], good[:20], b"\xff" * 99, tiny.encoded(tiny.picture(0))):
        with pytest.raises(Dropped, match="are no patch features"):
            read_patches(bad)
    flat = write_patches(Patches(torch.zeros(4, 24), "abc"))
    with pytest.raises(Dropped, match=r"shape \(4, 24\)"):
        read_patches(flat)


def test_a_batch_holds_patches_in_reading_order_in_place_of_pixels(reader):
    first, clip, last = features(0), features(1, frames=2), features(2)
    documents = [
        Document([Chunk(first, "a dog."), Chunk(clip, "two cups.")]),
        Document([Chunk(None, "no picture."), Chunk(last, "a cat.")]),
    ]
    batch = reader.batch(documents)
    assert isinstance(batch.media, PatchMedia)
    expected = [first.values.repeat(2, 1, 1), clip.values, last.values.repeat(2, 1, 1)]
    assert torch.equal(batch.media.values, torch.stack(expected))
    assert int((batch.input_ids == reader.tokens.image).sum()) == 3
    prompt = reader([documents[0]])
    assert torch.equal(prompt["media"].values, batch.media.values[:2])
    assert "pixels" not in prompt


def test_features_of_another_encoder_are_refused(reader, processor):
    document = Document([Chunk(features(0, encoder="another-encoder"), "a cat.")])
    message = "made by the image encoder another-enco, but this model's is abc"
    for encode in (reader, reader.batch):
        with pytest.raises(ValueError, match=message):
            encode([document])
    with pytest.raises(ValueError, match="but this model's is None"):
        processor.batch([document])


def test_pictures_and_features_do_not_mix(reader):
    chunks = [Chunk(features(0), "a cat."), Chunk(tiny.picture(0), "a dog.")]
    with pytest.raises(ValueError, match="media item 1 of 2 is a picture"):
        reader.batch([Document(chunks)])


def test_a_saved_processor_knows_its_encoder(reader, tmp_path):
    reader.save_pretrained(tmp_path)
    again = MiniFlamingoProcessor.from_pretrained(tmp_path)
    assert again.encoder == "abc"
    assert again.preprocessing == reader.preprocessing


def test_chunks_of_features_have_no_frames():
    document = Document([Chunk(features(0), "a cat.")])
    assert document.num_media == 1
    assert document.chunks[0].frames == ()
    assert dataclasses.replace(document.chunks[0], text=None).image is document.chunks[0].image


@pytest.mark.parametrize("metadata", [None, {}, {"other": "x"}])
def test_features_that_name_no_encoder_are_dropped(metadata):
    entry = {"dtype": "F32", "shape": [1, 2, 3], "data_offsets": [0, 24]}
    header = json.dumps({"__metadata__": metadata, "patches": entry}).encode()
    with pytest.raises(Dropped, match="no patch features"):
        read_patches(len(header).to_bytes(8, "little") + header + bytes(24))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_features_that_are_not_finite_are_dropped(value):
    values = torch.zeros(1, 2, 3)
    values[0, 1, 2] = value
    with pytest.raises(Dropped, match="not all finite"):
        read_patches(write_patches(Patches(values, "0" * 64)))
