"""One reader: a share of a source's samples, epoch after epoch, from any place on."""

from __future__ import annotations

import logging
import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import NamedTuple

from miniflamingo.data.dropped import Dropped
from miniflamingo.data.shards import BrokenShard, RawSample, read_shard
from miniflamingo.data.shuffle import Part, Ref, Replay, deal, replay, shuffled
from miniflamingo.errors import UserError
from miniflamingo.seeding import seeded
from miniflamingo.terminal import masked, plain

log = logging.getLogger(__name__)


class Order(NamedTuple):
    """What the order of a source's samples follows from, the number of readers apart.

    Attributes:
        shards: Files or urls.
        seed: Of all draws.
        shuffle: Samples among which the next one is drawn.
        resampled: Whether shards are drawn with replacement instead of each once an epoch.
    """

    shards: Sequence[str]
    seed: int
    shuffle: int
    resampled: bool = False

    def share(
        self, epoch: int, parts: Sequence[Part] | None, reader: int, readers: int
    ) -> list[Part]:
        """What one reader reads in an epoch.

        Args:
            epoch: Which.
            parts: What of the shards is to be read; None for all of them.
            reader: Number of this one.
            readers: How many there are.
        """
        if self.resampled:
            rng = seeded(f"{self.seed}-{epoch}-{reader}-{readers}-shards")
            num = max(1, len(self.shards) // readers)
            return [Part(rng.randrange(len(self.shards))) for _ in range(num)]
        whole = [Part(shard) for shard in range(len(self.shards))] if parts is None else parts
        return deal(whole, seeded(f"{self.seed}-{epoch}"), reader, readers)

    def draws(self, epoch: int, reader: int, readers: int) -> random.Random:
        """The generator of a reader's shuffle in an epoch."""
        return seeded(f"{self.seed}-{epoch}-{reader}-{readers}")


class Position(NamedTuple):
    """How far a reader has come.

    Attributes:
        epoch: Counted from 0.
        taken: Samples drawn in it.
        sizes: Samples found in each shard of its share that it has read to the end, in order.
    """

    epoch: int = 0
    taken: int = 0
    sizes: list[int] = []  # noqa: RUF012  # never changed in place


class Reader:
    """Draws samples for ever: its share of an epoch, then that of the next, newly ordered.

    Attributes:
        epoch: Of the sample given last; so are the others.
        taken: See ``Position``.
        sizes: See ``Position``.
        counts: Shards read since the start, and those among them that broke off or are empty.
    """

    def __init__(
        self,
        order: Order,
        parts: Mapping[int, Sequence[Part]],
        position: Position,
        reader: int,
        readers: int,
        timeout: float,
    ) -> None:
        """Describe the reader; nothing is read yet.

        Args:
            order: Of the source.
            parts: What is to be read in epochs that another number of readers began; all of the
                shards in those that are not named.
            position: Where to go on.
            reader: Number of this one.
            readers: How many there are.
            timeout: Seconds that an http server may be silent.
        """
        self.order = order
        self.parts = parts
        self.epoch = position.epoch
        self.taken = position.taken
        self.sizes = list(position.sizes)
        self.reader = reader
        self.readers = readers
        self.timeout = timeout
        self.counts: Counter[str] = Counter()

    def __iter__(self) -> Iterator[RawSample | Dropped]:
        """Draw samples.

        A share without any is passed over: the next epoch deals the shards anew.

        Raises:
            UserError: If no shard of the source holds any.
        """
        empty: set[int] = set()
        while True:
            parts = self.parts.get(self.epoch)
            share = self.order.share(self.epoch, parts, self.reader, self.readers)
            yield from self._draw(share)
            if self.taken:
                empty.clear()
            elif parts is None:
                empty.update(part.shard for part in share)
                if len(empty) == len(self.order.shards):
                    names = list(self.order.shards[:3])
                    raise UserError(
                        f"the shards {names} ... hold no samples that can be read, nor do all "
                        "others of their source. The log says why of each; check data.sources."
                    )
            self.epoch, self.taken, self.sizes = self.epoch + 1, 0, []

    def _draw(self, share: Sequence[Part]) -> Iterator[RawSample | Dropped]:
        """Shuffle what this reader has yet to give of its share of the epoch."""
        size = self.order.shuffle
        rng = self.order.draws(self.epoch, self.reader, self.readers)
        stands = replay(share, self.sizes, self.taken, size, rng)
        items = self._read(share, stands)
        held: dict[Ref, RawSample | Dropped] = {}
        for ref, sample in items:
            if ref >= stands.next:
                items = chain([(ref, sample)], items)
                break
            held[ref] = sample
        buffer = [(ref, held.get(ref) or self._lost(share, ref)) for ref in stands.buffer]
        for _, sample in shuffled(items, size, rng, buffer):
            self.taken += 1
            yield sample

    def _read(
        self, share: Sequence[Part], stands: Replay
    ) -> Iterator[tuple[Ref, RawSample | Dropped]]:
        """Read what the buffer held, and all that had not come to it; open no other shard."""
        wanted = frozenset(stands.buffer)
        places = {ref.part for ref in wanted} | set(range(stands.next.part, len(share)))
        for place in sorted(places):
            part, found = share[place], 0
            try:
                for sample in read_shard(self.order.shards[part.shard], self.timeout):
                    ref = Ref(place, found)
                    found += 1
                    if ref in wanted or (ref >= stands.next and part.holds(ref.sample)):
                        yield ref, sample
            except BrokenShard as error:
                log.warning("%s", plain(masked(str(error))))
                self.counts["broken_shard"] += 1
            else:
                if not found:
                    url = masked(self.order.shards[part.shard])
                    log.warning("shard %s holds no samples.", plain(url))
                    self.counts["broken_shard"] += 1
            if place >= len(self.sizes):
                self.counts["shards"] += 1
                self.sizes.append(found)

    def _lost(self, share: Sequence[Part], ref: Ref) -> Dropped:
        url = self.order.shards[share[ref.part].shard]
        return Dropped("lost", f"sample {ref.sample} of {url} could be read before the resume.")
