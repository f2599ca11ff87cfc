"""Documents in, batches out, and ids back to text."""

import pytest
import tiny
import torch

from miniflamingo import Chunk, Document, MiniFlamingoProcessor
from miniflamingo.batch import IGNORE
from miniflamingo.data.images import UnreadableImage, clip_to_pixels

MEAN = torch.tensor([0.48145466, 0.4578275, 0.40821073]).view(3, 1, 1)  # OpenAI's
STD = torch.tensor([0.26862954, 0.26130258, 0.27577711]).view(3, 1, 1)


def documents():
    return [
        Document([Chunk(tiny.picture(0), "a cat."), Chunk(tiny.picture(1), "two red cups.")], "a"),
        Document([Chunk(None, "no picture here")], "b"),
        Document([Chunk(tiny.picture(2), "a")], "c"),
    ]


def expected_pixels(image):
    """The picture as numbers, by hand."""
    data = torch.frombuffer(bytearray(image.convert("RGB").tobytes()), dtype=torch.uint8)
    levels = data.view(image.height, image.width, 3).permute(2, 0, 1) / 255
    return (levels - MEAN) / STD


def test_a_training_batch_is_padded_on_the_right(processor):
    batch = processor.batch(documents())
    lengths = [processor.batch([each]).tokens for each in documents()]
    assert max(lengths) == batch.input_ids.shape[1]
    assert batch.tokens == sum(lengths)
    assert len(set(lengths)) == 3
    for row, length in enumerate(lengths):
        assert batch.position_ids[row].tolist() == list(range(max(lengths)))
        assert (batch.labels[row, length:] == IGNORE).all()
        alone = processor.batch([documents()[row]])
        assert batch.input_ids[row, :length].tolist() == alone.input_ids[0].tolist()
        assert batch.labels[row, :length].tolist() == alone.labels[0].tolist()
    assert batch.keys == ["a", "b", "c"]


def test_a_prompt_batch_is_padded_on_the_left(processor):
    inputs = processor(documents())
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    for row, length in enumerate(mask.sum(1).tolist()):
        assert mask[row].tolist() == [0] * (ids.shape[1] - length) + [1] * length
        alone = processor([documents()[row]])["input_ids"]
        assert ids[row, ids.shape[1] - length :].tolist() == alone[0].tolist()


@pytest.mark.parametrize("how", ["prompt", "batch"])
def test_pictures_stand_in_reading_order(processor, how):
    given = processor(documents())["pixels"]
    pixels = given if how == "prompt" else processor.batch(documents()).pixels
    assert pixels.shape == (3, 1, 3, 16, 16)
    for seed in range(3):
        expected = expected_pixels(tiny.picture(seed))
        torch.testing.assert_close(pixels[seed, 0], expected, rtol=0, atol=1e-5)


def test_text_alone_gives_no_pixels(processor):
    assert processor([documents()[1]])["pixels"].shape == (0, 1, 3, 16, 16)


def test_a_clip_and_a_picture_share_a_batch(processor):
    clip = Chunk([tiny.picture(0), tiny.picture(1), tiny.picture(2)], "moving")
    pixels = processor.batch([Document([clip, Chunk(tiny.picture(3), "still")])]).pixels
    assert pixels.shape == (2, 3, 3, 16, 16)
    torch.testing.assert_close(pixels[0, 2], expected_pixels(tiny.picture(2)), atol=1e-5, rtol=0)
    assert torch.equal(pixels[1, 0], pixels[1, 2])  # the last frame again


def test_a_picture_may_come_in_any_form(processor, tmp_path):
    picture = tiny.picture(5)
    path = tmp_path / "picture.png"
    path.write_bytes(tiny.encoded(picture))
    forms = [path, str(path), path.read_bytes(), picture]
    pixels = [processor([Document([Chunk(form)])])["pixels"] for form in forms]
    assert all(torch.equal(each, pixels[0]) for each in pixels)


@pytest.mark.parametrize("what", ["cut", "text", "missing", "folder"])
def test_an_unreadable_picture_is_named(processor, tmp_path, what):
    path = tmp_path / "broken.png"
    content = {"cut": tiny.encoded(tiny.picture(0))[:300], "text": b"no picture"}
    if what in content:
        path.write_bytes(content[what])
    if what == "folder":
        path.mkdir()
    with pytest.raises(UnreadableImage, match=r"cannot read the picture .*broken\.png"):
        processor([Document([Chunk(path)])])


def test_unreadable_bytes(processor):
    with pytest.raises(UnreadableImage, match="cannot read the picture <bytes>"):
        clip_to_pixels([b"no picture"], processor.transform, 1)


def test_decoding_stops_at_the_end_of_the_chunk(processor):
    end = processor.tokens.end_of_chunk
    ids = processor.tokenizer(" a red cat.").input_ids
    rows = [[*ids, end, *ids], [*ids, 0, 0] + [0] * (len(ids) - 1), [end, *ids, *ids]]
    length = len(rows[0])
    rows = torch.tensor([row + [0] * (length - len(row)) for row in rows])
    assert processor.batch_decode(rows) == ["a red cat.", "a red cat.", ""]


def test_saved_and_loaded_it_does_the_same(processor, tmp_path):
    processor.save_pretrained(tmp_path)
    again = MiniFlamingoProcessor.from_pretrained(tmp_path)
    before, after = processor(documents()), again(documents())
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert again.tokens == processor.tokens


def test_a_document_may_leave_only_its_last_chunk_open():
    with pytest.raises(ValueError, match="document 'x': chunk 0 of 2 has no text"):
        Document([Chunk(tiny.picture(0)), Chunk(tiny.picture(1), "a")], "x")
    with pytest.raises(ValueError, match="document 'x' has no chunks"):
        Document([], "x")
