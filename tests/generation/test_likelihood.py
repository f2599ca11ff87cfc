"""Log-likelihoods of continuations against scoring each text in full."""

import pytest
import tiny
import torch

from miniflamingo import Chunk, Document
from miniflamingo.batch import IGNORE, PixelMedia
from miniflamingo.generation.likelihood import encode_continuation, log_likelihoods, mean_losses
from miniflamingo.generation.reader import Reader

CLASSES = [" cat", " dogs on a green background", " cup"]


def prompts() -> list[Document]:
    """Of different lengths and numbers of pictures, one without any."""
    shots = [Chunk(tiny.picture(i), f"Output: a red cat number {i}.") for i in range(3)]
    asked = [Chunk(tiny.picture(10 + i), "Output:", unfinished=True) for i in range(3)]
    text = [Chunk(None, "Output: two dogs."), Chunk(None, "Output:", unfinished=True)]
    return [
        Document([*shots, asked[0]]),
        Document([asked[1]]),
        Document([shots[1], asked[2]]),
        Document(text),
        Document([Chunk(tiny.picture(20))]),
    ]


def in_full(reader: Reader, prompt: Document, text: str) -> float:
    """Score by the model's own loss over prompt and text as one row."""
    inputs = reader.processor([prompt])
    written = encode_continuation(reader, text)
    ids = torch.cat([inputs["input_ids"], torch.tensor([written])], 1)
    labels = torch.full_like(ids, IGNORE)
    labels[0, -len(written) :] = torch.tensor(written)
    positions = torch.arange(ids.shape[1])[None]
    losses = reader.model.token_losses(ids, positions, PixelMedia(inputs["pixels"]), labels)
    return -losses.sum().item()


@pytest.mark.parametrize("batch_size", [1, 2, 7, 100])
def test_scores_equal_those_of_each_text_in_full(model, processor, batch_size):
    reader = Reader(model, processor)
    actual = log_likelihoods(reader, prompts(), [CLASSES] * 5, batch_size)
    for prompt, row in zip(prompts(), actual, strict=True):
        expected = [in_full(reader, prompt, text) for text in CLASSES]
        assert row == pytest.approx(expected, abs=1e-5)


def test_the_loss_is_per_token_and_ends_with_the_chunk(model, processor):
    reader = Reader(model, processor)
    (loss,) = mean_losses(reader, prompts()[:1], [" cat"])
    tokens = len(encode_continuation(reader, " cat"))
    assert loss == pytest.approx(-in_full(reader, prompts()[0], " cat") / tokens, abs=1e-5)


def test_blank_pictures_are_as_good_as_none_read(build, processor):
    """With gates that are open, what is left equals a model whose gated layers see nothing."""
    model = build(opened=True)
    blank = log_likelihoods(Reader(model, processor), prompts()[:3], [CLASSES] * 3, blank=True)
    with torch.no_grad():
        for block in model.gated_blocks():
            block.to_out.weight.zero_()
    expected = log_likelihoods(Reader(model, processor), prompts()[:3], [CLASSES] * 3)
    for row, others in zip(blank, expected, strict=True):
        assert row == pytest.approx(others, abs=1e-5)
