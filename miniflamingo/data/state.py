"""How far each source has come: what a checkpoint keeps of the data, and what a resume makes of it.

The state is that of the batches that training has taken, whatever the workers have read ahead.
"""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from miniflamingo.batch import Batch
from miniflamingo.data.reader import Order, Position
from miniflamingo.data.shuffle import Part, remaining, replay

log = logging.getLogger(__name__)


@dataclass
class SourceState:
    """How far one source has come on one rank.

    Attributes:
        batches: Taken by this rank, as by every other.
        positions: Of the readers by their numbers; the others are at their start. Those of other
            ranks stay what they were at the start or resume of the run.
        parts: What is to be read in epochs that another number of readers began.
        counts: Of this rank since then, see ``Batch.counts``.
        earlier: Of all ranks before.
    """

    batches: int = 0
    positions: dict[int, Position] = field(default_factory=dict)
    parts: dict[int, list[Part]] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    earlier: Counter[str] = field(default_factory=Counter)

    def position(self, reader: int) -> Position:
        """Where a reader stands."""
        return self.positions.get(reader, Position())

    @property
    def epoch(self) -> int:
        """The earliest epoch that a known reader is in."""
        return min((position.epoch for position in self.positions.values()), default=0)

    def take(self, batch: Batch) -> None:
        """Note that training has taken a batch."""
        self.batches += 1
        self.counts.update(batch.counts)
        if batch.progress is not None:
            reader, epoch, taken, sizes = batch.progress
            before = self.position(reader)
            known = before.sizes if before.epoch == epoch else []
            self.positions[reader] = Position(epoch, taken, [*known, *sizes])


def merge(ranks: Sequence[SourceState], workers: int) -> SourceState:
    """Put the states of all ranks together.

    Args:
        ranks: In order.
        workers: Readers of each rank.
    """
    first = ranks[0]
    positions = {
        reader: state.position(reader)
        for rank, state in enumerate(ranks)
        for reader in range(rank * workers, (rank + 1) * workers)
    }
    begun = min(position.epoch for position in positions.values())
    parts = {epoch: each for epoch, each in first.parts.items() if epoch >= begun}
    counts = sum((state.counts for state in ranks), start=Counter(first.earlier))
    return SourceState(first.batches, positions, parts, Counter(), counts)


def pack_state(state: SourceState, order: Order) -> dict[str, Any]:
    """Turn a merged state into numbers, texts, lists and dicts, for a checkpoint."""
    return {
        "order": fingerprint(order),
        "batches": state.batches,
        "positions": [list(state.positions[reader]) for reader in sorted(state.positions)],
        "parts": {
            epoch: [[part.shard, part.start, sorted(part.extra)] for part in parts]
            for epoch, parts in state.parts.items()
        },
        "counts": dict(state.earlier),
    }


def unpack_state(packed: Mapping[str, Any], order: Order, readers: int, name: str) -> SourceState:
    """Make a state of what a checkpoint holds, for a run of perhaps another number of readers.

    Args:
        packed: From ``pack_state``.
        order: Of the source now.
        readers: How many there are now.
        name: Of the source, for the log.
    """
    state = SourceState(
        packed["batches"],
        {reader: Position(*position) for reader, position in enumerate(packed["positions"])},
        {
            epoch: [Part(shard, start, frozenset(extra)) for shard, start, extra in parts]
            for epoch, parts in packed["parts"].items()
        },
        earlier=Counter(packed["counts"]),
    )
    if packed["order"] != fingerprint(order):
        log.warning(
            "source %s: its shards, data.seed, shuffle or resampled are not those of the "
            "checkpoint; it starts a new epoch.",
            name,
        )
        return _new_epoch(state, readers)
    if len(state.positions) == readers:
        return state
    if order.resampled:
        log.info("source %s: %d readers draw anew.", name, readers)
        return _new_epoch(state, readers)
    return _deal_anew(state, order, readers, name)


def fingerprint(order: Order) -> str:
    """Tell one order of samples from another, wherever the shards lie."""
    names = [shard.rpartition("/")[-1] for shard in order.shards]
    text = "\n".join([*names, str(order.seed), str(order.shuffle), str(order.resampled)])
    return hashlib.sha256(text.encode()).hexdigest()


def _new_epoch(state: SourceState, readers: int) -> SourceState:
    """Begin an epoch that no reader has seen."""
    epoch = 1 + max(position.epoch for position in state.positions.values())
    positions = dict.fromkeys(range(readers), Position(epoch))
    return SourceState(state.batches, positions, earlier=state.earlier)


def _deal_anew(state: SourceState, order: Order, readers: int, name: str) -> SourceState:
    """Share out what is left of the epochs that were begun, sample by sample."""
    before = len(state.positions)
    epochs = [position.epoch for position in state.positions.values()]
    begun = min(epochs)
    parts: dict[int, list[Part]] = {}
    for epoch in range(begun, max([*epochs, *state.parts]) + 1):
        left: list[Part] = []
        for reader, (reached, taken, sizes) in state.positions.items():
            share = order.share(epoch, state.parts.get(epoch), reader, before)
            if reached == epoch:
                rng = order.draws(epoch, reader, before)
                left += remaining(share, sizes, replay(share, sizes, taken, order.shuffle, rng))
            elif reached < epoch:
                left += share
        parts[epoch] = sorted(left)
    log.info(
        "source %s: read by %d readers (ranks x workers) instead of %d. What is left of epoch %d, "
        "in %d shards, is dealt anew: nothing of it is lost or repeated, but batches differ.",
        *(name, readers, before, begun, len(parts[begun])),
    )
    positions = dict.fromkeys(range(readers), Position(begun))
    return SourceState(state.batches, positions, parts, earlier=state.earlier)
