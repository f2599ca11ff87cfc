"""Batched completion against the naive loop of one prompt at a time."""

import pytest
import tiny

from miniflamingo import Chunk, Document
from miniflamingo.generation.complete import Decoding, batches_by_length, complete
from miniflamingo.generation.reader import Reader

PICTURES = [tiny.picture(seed) for seed in range(6)]


def prompts() -> list[Document]:
    """Of 0 to 3 shots out of six shared pictures."""
    made = []
    for i in range(8):
        shots = [Chunk(PICTURES[(i + j) % 5], f"a cat and {'a dog ' * j}") for j in range(i % 4)]
        made.append(Document([*shots, Chunk(PICTURES[(i + 3) % 6])], str(i)))
    return made


@pytest.mark.parametrize("beams", [1, 3])
def test_batches_write_exactly_what_one_prompt_at_a_time_writes(model, processor, beams):
    decoding = Decoding(max_new_tokens=6, beams=beams)
    done = []
    actual = complete(Reader(model, processor), prompts(), decoding, 3, progress=done.append)
    naive = []
    for prompt in prompts():
        inputs = processor([prompt])
        ids = model.generate(
            **inputs, max_new_tokens=6, num_beams=beams, length_penalty=0.0, do_sample=False
        )
        naive += processor.batch_decode(ids)
    assert actual == naive
    assert len(set(naive)) > 2
    assert done == [3, 3, 2]


def test_batches_hold_prompts_of_like_length():
    assert batches_by_length([3, 9, 1, 8, 2], 2) == [[1, 3], [0, 4], [2]]


def test_each_picture_is_encoded_once(model, processor, monkeypatch):
    seen = []
    forward = model.vision.forward
    monkeypatch.setattr(model.vision, "forward", lambda x: seen.append(len(x)) or forward(x))
    reader = Reader(model, processor)
    complete(reader, prompts(), Decoding(2, 1), 3)
    complete(reader, prompts(), Decoding(2, 1), 8)
    assert sum(seen) == len(PICTURES)


def test_what_does_not_fit_is_read_again_with_the_same_result(model, processor):
    media = [Chunk(picture) for picture in PICTURES]
    one = Reader(model, processor).resampled(media).values
    small = Reader(model, processor, media_bytes=2 * one[0].nbytes)
    for _ in range(2):
        assert small.resampled(media).values.equal(one)
        assert len(small._media) == 2


def test_clips_of_different_lengths_are_not_padded(build, processor):
    model = build(opened=True, resampler={"max_frames": 2})
    clip, picture = Chunk(PICTURES[:2]), Chunk(PICTURES[2])
    together = Reader(model, processor).resampled([clip, picture]).values
    alone = [Reader(model, processor).resampled([each]).values[0] for each in (clip, picture)]
    for one, other in zip(together, alone, strict=True):
        assert one.allclose(other, atol=1e-5)
