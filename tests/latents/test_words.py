"""From words to latents to patches."""

from types import SimpleNamespace

import pytest
import tiny
import torch
from agreement import assert_agrees

from miniflamingo import Chunk, Document
from miniflamingo.generation.complete import Decoding, complete
from miniflamingo.generation.reader import Reader
from miniflamingo.latents import patch_maps, word_attention
from miniflamingo.latents.attention import entering, gated_attention
from miniflamingo.latents.words import average_by_word, words_of, write_greedily


@pytest.fixture
def prompt():
    """One picture to caption, after a solved example."""
    return Document([Chunk(tiny.picture(1), "a red cat."), Chunk(tiny.picture(2))])


def test_greedy_writing_is_that_of_complete(model, processor, prompt):
    ids = write_greedily(model, processor([prompt]), max_new_tokens=6)
    assert len(ids) > 0
    expected = complete(Reader(model, processor), [prompt], Decoding(max_new_tokens=6, beams=1))
    assert processor.batch_decode(ids[None]) == expected


def test_greedy_writing_stops_before_the_end_of_the_chunk(model, processor, prompt, monkeypatch):
    end = model.tokens.end_of_chunk
    written = torch.tensor([[5, 6, end, end]])
    monkeypatch.setattr(type(model), "generate", lambda self, **kwargs: written)
    assert write_greedily(model, processor([prompt])).tolist() == [5, 6]


@torch.no_grad()
def test_a_words_attention_is_that_of_the_step_that_wrote_it(model, processor, prompt):
    inputs = processor([prompt])
    blocks = list(model.gated_blocks())
    with entering(blocks) as heard:
        ids = model.generate(**inputs, max_new_tokens=5, min_new_tokens=5, do_sample=False)[0]
    found = word_attention(model, inputs, ids)
    assert [layer.shape for layer in found] == [(5, 2, 3)] * len(blocks)
    for step in range(5):
        for index, block in enumerate(blocks):
            at_step = gated_attention(block, *heard[step * len(blocks) + index])
            assert_agrees(found[index][step], at_step[0, -1], 1e-4)
    assert (found[0][0] - found[0][1]).abs().max() > 1e-4  # else the place would not matter


def test_no_words_are_no_rows(model, processor, prompt):
    found = word_attention(model, processor([prompt]), torch.zeros(0, dtype=torch.long))
    assert all(layer.shape == (0, 2, 3) for layer in found)
    assert words_of(processor.tokenizer, torch.zeros(0, dtype=torch.long)) == ([], [])
    assert average_by_word(found[0], []).shape == (0, 2, 3)


@pytest.mark.parametrize(
    "text", ["two red cats on a green background.", "zqx  a café!", " dog", "a"]
)
def test_tokens_find_their_words(processor, text):
    ids = torch.tensor(processor.tokenizer(text, add_special_tokens=False)["input_ids"])
    words, spans = words_of(processor.tokenizer, ids)
    assert words == text.split()
    assert [processor.tokenizer.decode(ids[span]).strip() for span in spans] == words


def test_a_token_of_two_words_is_boths():
    texts = {1: "one two", 2: " three", 3: " "}
    tokenizer = SimpleNamespace(decode=lambda ids: "".join(texts[i] for i in ids))
    words, spans = words_of(tokenizer, torch.tensor([3, 1, 2, 3]))
    assert words == ["one", "two", "three"]
    assert spans == [slice(1, 2), slice(1, 2), slice(2, 4)]


def test_words_average_their_tokens():
    weights = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.2, 0.8]])
    expected = torch.tensor([[0.5, 0.5], [0.2, 0.8]])
    torch.testing.assert_close(average_by_word(weights, [slice(0, 2), slice(2, 3)]), expected)


def test_a_words_map_weighs_the_latents_maps():
    words = torch.tensor([[[1.0, 0.0], [0.5, 0.5]]])  # one word, two heads: 0.75 and 0.25
    resampler = torch.tensor([[[0.6, 0.2, 0.1, 0.1], [0.0, 0.4, 0.6, 0.0]]])  # two patches
    torch.testing.assert_close(patch_maps(words, resampler), torch.tensor([[0.45, 0.25]]))
