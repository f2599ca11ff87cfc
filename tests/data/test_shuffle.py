"""The order of a reader, and where it stands after so many samples."""

import random

import pytest

from miniflamingo.data.shuffle import Part, Ref, deal, remaining, replay, shuffled

SIZES = [4, 0, 7, 5, 1, 9]
PARTS = [Part(shard) for shard in range(len(SIZES))]


def references(parts=PARTS):
    """Every sample to be read, in the order of the shards."""
    return [
        Ref(place, index)
        for place, part in enumerate(parts)
        for index in range(SIZES[part.shard])
        if part.holds(index)
    ]


def test_everything_is_dealt_once_and_anew_in_each_epoch():
    shares = [deal(PARTS, random.Random("0"), reader, 4) for reader in range(4)]
    assert sorted(part for share in shares for part in share) == PARTS
    assert deal(PARTS, random.Random("1"), 0, 1) != deal(PARTS, random.Random("0"), 0, 1)


@pytest.mark.parametrize("size", [1, 2, 8, 100])
def test_a_shuffle_gives_everything_once_from_among_the_next_samples(size):
    order = list(shuffled(iter(range(26)), size, random.Random(0), []))
    assert sorted(order) == list(range(26))
    assert (order == list(range(26))) == (size == 1)
    assert all(item < place + size for place, item in enumerate(order))


@pytest.mark.parametrize("size", [1, 3, 8, 100])
@pytest.mark.parametrize("taken", range(27))
def test_a_replay_stands_where_the_reading_stood(size, taken):
    """It is told only of the shards whose end the reading had seen."""
    rng, buffer, pulled = random.Random(0), [], []

    def pull():
        for ref in references():
            pulled.append(ref)
            yield ref

    whole = shuffled(pull(), size, rng, buffer)
    drawn = [next(whole) for _ in range(taken)]
    last = pulled[-1].part if pulled else 0
    sizes = SIZES if len(pulled) == 26 and len(buffer) < size - 1 else SIZES[:last]

    again = random.Random(0)
    stands = replay(PARTS, sizes, taken, size, again)
    assert stands.buffer == buffer
    left = [ref for ref in references() if ref >= stands.next]
    assert sorted([*drawn, *stands.buffer, *left]) == references()
    rest = shuffled(iter(left), size, again, stands.buffer)
    assert [*drawn, *rest] == list(shuffled(iter(references()), size, random.Random(0), []))


@pytest.mark.parametrize("taken", [0, 1, 5, 12, 25, 26])
@pytest.mark.parametrize("size", [1, 3, 8])
def test_what_remains_is_what_was_not_drawn(size, taken):
    parts = [Part(3, 2, frozenset({0})), Part(2), Part(5, 9, frozenset({1, 7})), Part(0, 1)]
    refs = references(parts)
    drawn = list(shuffled(iter(refs), size, random.Random(0), []))[:taken]
    sizes = [SIZES[part.shard] for part in parts]
    stands = replay(parts, sizes, taken, size, random.Random(0))
    left = remaining(parts, sizes, stands)
    found = {(part.shard, index) for part in left for index in range(9) if part.holds(index)}
    expected = {(parts[ref.part].shard, ref.sample) for ref in set(refs) - set(drawn)}
    assert {(shard, index) for shard, index in found if index < SIZES[shard]} == expected
