"""The order in which one reader takes the samples of an epoch, and how to go on in its midst.

The order follows from seed, epoch, number of readers, and how many samples each shard held. Going
on after n samples therefore takes no reading of those samples: the shuffle buffer is played again
with numbers in their place, and only what it holds at the end is read.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from itertools import count, islice
from typing import NamedTuple, TypeVar

T = TypeVar("T")


class Part(NamedTuple):
    """What is to be read of a shard: all of it, or what earlier readers have left.

    Attributes:
        shard: Its place in the source's list of shards.
        start: Samples from here on are to be read.
        extra: And these before.
    """

    shard: int
    start: int = 0
    extra: frozenset[int] = frozenset()

    def holds(self, index: int) -> bool:
        """Say whether the sample with this place in the shard is to be read."""
        return index >= self.start or index in self.extra


class Ref(NamedTuple):
    """A sample by its places: of the part among those of a reader, and of itself in the shard."""

    part: int
    sample: int


class Replay(NamedTuple):
    """Where a reader stands.

    Attributes:
        buffer: What the shuffle buffer holds, slot by slot.
        next: The first sample that has not been put there.
    """

    buffer: list[Ref]
    next: Ref


def deal(parts: Sequence[Part], rng: random.Random, reader: int, readers: int) -> list[Part]:
    """Draw an order of all parts and take every ``readers``-th, from the ``reader``-th on.

    All readers together get every part once, if their generators start alike.
    """
    order = list(parts)
    rng.shuffle(order)
    return order[reader::readers]


def shuffled(items: Iterator[T], size: int, rng: random.Random, buffer: list[T]) -> Iterator[T]:
    """Give each item once, always one of the ``size`` that are at hand.

    Args:
        items: In order.
        size: Of the buffer; 1 leaves the order as it is.
        rng: Draws, one number an item.
        buffer: Items taken in before, empty at the start; kept up to date.
    """
    for item in items:
        buffer.append(item)
        if len(buffer) >= size:
            yield _draw(buffer, rng)
    while buffer:
        yield _draw(buffer, rng)


def replay(
    parts: Sequence[Part], sizes: Sequence[int], taken: int, size: int, rng: random.Random
) -> Replay:
    """Find out where a reader stands after so many samples, without reading one.

    Args:
        parts: Its share of the epoch.
        sizes: How many samples were found in each shard that it has read to the end.
        taken: How many samples were drawn.
        size: Of the buffer.
        rng: As it was at the start of the epoch; left as it is after these draws.
    """
    refs = _count_refs(parts, sizes)
    buffer: list[Ref] = []
    for _ in islice(shuffled(refs, size, rng, buffer), taken):
        pass
    return Replay(buffer, next(refs, Ref(len(parts), 0)))


def remaining(parts: Sequence[Part], sizes: Sequence[int], replay: Replay) -> list[Part]:
    """List what a reader that stands there has not drawn, for others to read.

    Args:
        parts: Its share of the epoch.
        sizes: How many samples were found in each shard that it has read to the end.
        replay: Where it stands.
    """
    left = []
    for place, part in enumerate(parts):
        if place > replay.next.part:
            left.append(part)
            continue
        buffered = frozenset(ref.sample for ref in replay.buffer if ref.part == place)
        if place < replay.next.part:
            part = Part(part.shard, sizes[place], buffered)
        else:
            passed = replay.next.sample
            later = frozenset(index for index in part.extra if index >= passed)
            part = Part(part.shard, max(part.start, passed), buffered | later)
        if part.extra or place == replay.next.part:
            left.append(part)
    return left


def _draw(buffer: list[T], rng: random.Random) -> T:
    slot = int(rng.random() * len(buffer))
    buffer[slot], buffer[-1] = buffer[-1], buffer[slot]
    return buffer.pop()


def _count_refs(parts: Sequence[Part], sizes: Sequence[int]) -> Iterator[Ref]:
    """Number the samples; those of the shard being read have no known end."""
    for place, part in enumerate(parts):
        indices = range(sizes[place]) if place < len(sizes) else count()
        for index in indices:
            if part.holds(index):
                yield Ref(place, index)
