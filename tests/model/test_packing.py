"""Documents that share a row do not know of each other."""

import random

import pytest
import tiny
import torch

from miniflamingo import Chunk, Document, MiniFlamingoProcessor
from miniflamingo.batch import IGNORE
from miniflamingo.data.collate import pack_rows
from miniflamingo.model.language import LAYER_PATHS
from miniflamingo.tokens import load_tokenizer


def documents():
    """With pictures first, last, alone and not at all."""
    a, b, c, d = (tiny.picture(seed) for seed in range(4))
    return [
        Document([Chunk(None, "a dog."), Chunk(a, "two cups.")], "intro"),
        Document([Chunk(None, "three red dogs on white.")], "text"),
        Document([Chunk(b, "a red cat."), Chunk(c, "a blue cat on a green background.")], "two"),
        Document([Chunk(d, "a cup.")], "pair"),
    ]


def test_rows_are_few_and_even():
    assert pack_rows([5, 4, 3, 6, 2], room=11) == [[0, 1], [2, 3, 4]]  # 9 and 11 tokens
    assert pack_rows([5, 4, 3, 6, 2], room=10) == [[0, 4], [1, 2], [3]]  # 7, 7 and 6
    assert pack_rows([8, 8], room=8) == [[0], [1]]
    assert pack_rows([3, 3, 3], room=100) == [[0, 1, 2]]
    assert pack_rows([6, 6, 6, 2, 2, 2], room=9) == [[0, 3], [1, 4], [2, 5]]


def test_no_row_is_overfull_and_no_document_lost():
    draw = random.Random(0)
    for _ in range(200):
        lengths = [draw.randint(1, 40) for _ in range(draw.randint(1, 30))]
        rows = pack_rows(lengths, room=40)
        assert sorted(place for row in rows for place in row) == list(range(len(lengths)))
        assert all(sum(lengths[place] for place in row) <= 40 for row in rows)


def test_packed_rows_hold_the_same_documents(processor):
    alone = [processor.batch([each]) for each in documents()]
    packed = processor.batch(documents(), max_tokens=48, pack=True)
    assert len(packed.input_ids) < len(documents())
    assert packed.tokens == sum(each.tokens for each in alone)
    assert sorted(packed.keys) == sorted(each.key for each in documents())
    by_key = dict(zip((each.key for each in documents()), alone, strict=True))
    starts = [
        (row, int(at)) for row, ids in enumerate(packed.position_ids) for at in (ids == 0).nonzero()
    ]
    picture = 0
    for key, (row, start) in zip(packed.keys, starts, strict=True):
        own = by_key[key]
        place = slice(start, start + own.tokens)
        assert torch.equal(packed.input_ids[row, place], own.input_ids[0])
        assert torch.equal(packed.labels[row, place], own.labels[0])
        assert torch.equal(packed.position_ids[row, place], own.position_ids[0])
        assert torch.equal(packed.pixels[picture : picture + len(own.pixels)], own.pixels)
        picture += len(own.pixels)
    assert picture == len(packed.pixels)
    assert (packed.labels != IGNORE).sum() == sum((each.labels != IGNORE).sum() for each in alone)


@pytest.mark.parametrize("family", sorted(LAYER_PATHS))
def test_packing_changes_neither_loss_nor_gradients(family, build, tmp_path):
    folder = tiny.write_language(tmp_path, family)
    processor = MiniFlamingoProcessor(load_tokenizer(str(folder)), {"size": 16})
    model = build(language=folder, opened=True)
    losses, gradients = [], []
    for pack in (False, True):
        model.zero_grad()
        batch = processor.batch(documents(), max_tokens=48, pack=pack)
        value = tiny.loss_of(model, batch)
        value.backward()
        losses.append(value.item())
        gradients.append(
            {n: p.grad.clone() for n, p in model.named_parameters() if p.requires_grad}
        )
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    for name, expected in gradients[0].items():
        difference = (gradients[1][name] - expected).abs().max()
        assert difference <= 1e-4 * expected.abs().max().clamp_min(1e-3), name


def test_packing_with_all_previous_media(build, processor):
    model = build(opened=True, attend="all_previous")
    with torch.no_grad():
        apart, together = (
            tiny.loss_of(model, processor.batch(documents(), max_tokens=48, pack=pack))
            for pack in (False, True)
        )
    torch.testing.assert_close(together, apart, rtol=1e-5, atol=0)


def test_a_neighbour_in_the_row_can_be_anything(model, processor):
    """Editing one document of a packed row leaves the others' logits bit-equal."""
    batch = processor.batch(documents(), max_tokens=200, pack=True)
    assert len(batch.input_ids) == 1
    start = int((batch.position_ids[0] == 0).nonzero()[1])
    edited_ids, edited_pixels = batch.input_ids.clone(), batch.pixels.clone()
    edited_ids[0, 1] = 7
    edited_pixels[0] += 1  # the first document's own
    with torch.no_grad():
        before = model(batch.input_ids, position_ids=batch.position_ids, pixels=batch.pixels)
        after = model(edited_ids, position_ids=batch.position_ids, pixels=edited_pixels)
    assert torch.equal(before.logits[0, start:], after.logits[0, start:])
    assert not torch.allclose(before.logits[0, 1:start], after.logits[0, 1:start], atol=1e-3)


def test_packing_needs_a_length(processor):
    with pytest.raises(ValueError, match="pack=True needs max_tokens"):
        processor.batch(documents(), pack=True)
