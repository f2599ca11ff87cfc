"""An endless, seeded stream of a source's batches that can start anywhere."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator

from torch.utils.data import IterableDataset, get_worker_info

from miniflamingo.batch import Batch, Progress
from miniflamingo.data.dropped import Dropped
from miniflamingo.data.layouts.page import Page
from miniflamingo.data.prepare import prepare
from miniflamingo.data.processor import MiniFlamingoProcessor
from miniflamingo.data.reader import Order, Reader
from miniflamingo.data.shards import RawSample
from miniflamingo.data.source import SourceConfig
from miniflamingo.data.state import SourceState
from miniflamingo.document import Document
from miniflamingo.errors import UserError
from miniflamingo.seeding import seeded
from miniflamingo.terminal import masked, plain

log = logging.getLogger(__name__)

MOST_DROPPED = 1000
"""Unusable samples in a row that are taken for a broken source."""

TOLD = 3
"""Dropped samples of each reason that a reader names in the log; all are counted."""


def usable_document(
    sample: RawSample | Dropped,
    source: SourceConfig,
    processor: MiniFlamingoProcessor,
    max_tokens: int | None,
    seed: int,
    epoch: int,
) -> Document | Dropped:
    """Make a document of a sample, the same one whoever reads it, or say why not."""
    if isinstance(sample, Dropped):
        return sample
    shard = sample["__url__"].rpartition("/")[-1]
    rng = seeded(f"{seed}-{epoch}-{shard}-{sample['__key__']}")
    try:
        return prepare(
            sample,
            source,
            processor.tokenizer,
            processor.tokens,
            max_tokens,
            rng,
            processor.least_side,
        )
    except Dropped as dropped:
        return dropped


class BatchStream(IterableDataset[Batch]):
    """Batches of one source, for ever, each full of usable documents.

    Batch n is a function of the seed, the numbers of ranks and workers, and the shards. Each batch
    says how far its reader had come with it, and a stream that is given a state built of that goes
    on with exactly the batches that an undisturbed one would have given.
    """

    def __init__(
        self,
        shards: list[str],
        processor: MiniFlamingoProcessor,
        source: SourceConfig,
        max_tokens: int,
        seed: int,
        state: SourceState | None = None,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        """Describe the stream; nothing is read yet.

        Args:
            shards: Tar files or urls.
            processor: Makes the batches.
            source: How samples are read and chosen.
            max_tokens: Longest row of a batch.
            seed: Of the order and of what ``prepare`` draws.
            state: Where to go on.
            rank: Of this process.
            world_size: Number of processes.
        """
        self.order = Order(shards, seed, source.shuffle, source.resampled)
        self.processor = processor
        self.source = source
        self.max_tokens = max_tokens
        self.state = state or SourceState()
        self.rank = rank
        self.world_size = world_size
        self.told: Counter[str] = Counter()

    def __iter__(self) -> Iterator[Batch]:
        """Yield this worker's batches; a loader with several workers takes turns among them.

        Raises:
            UserError: If the source has fewer shards than readers, or nothing usable.
        """
        info = get_worker_info()
        worker, workers = (info.id, info.num_workers) if info else (0, 1)
        readers = self.world_size * workers
        check_readers(len(self.order.shards), readers, self.source)
        # The loader asks its first worker first, also where that was not the next one's turn.
        number = self.rank * workers + (worker + self.state.batches) % workers
        position = self.state.position(number)
        reader = Reader(
            self.order, self.state.parts, position, number, readers, self.source.timeout
        )
        documents: list[Document] = []
        counts: Counter[str] = Counter()
        told, epoch = len(position.sizes), position.epoch
        in_a_row = 0
        for sample in reader:
            counts["read"] += 1
            document = usable_document(
                sample, self.source, self.processor, self.max_tokens, self.order.seed, reader.epoch
            )
            if isinstance(document, Dropped):
                counts[document.reason] += 1
                in_a_row += 1
                self.tell(document, in_a_row)
                continue
            counts["used"] += 1
            if isinstance(document, Page):
                counts.update({f"picture_{why}": n for why, n in document.lost.items()})
            in_a_row = 0
            documents.append(document)
            if len(documents) < self.source.batch_size:
                continue
            batch = self.processor.batch(documents, self.max_tokens, self.source.pack)
            told, epoch = told if reader.epoch == epoch else 0, reader.epoch
            yield batch._replace(
                counts=dict(counts + reader.counts),
                progress=Progress(number, epoch, reader.taken, reader.sizes[told:]),
            )
            told = len(reader.sizes)
            documents.clear()
            counts.clear()
            reader.counts.clear()

    def tell(self, dropped: Dropped, in_a_row: int) -> None:
        """Name the first dropped samples of each reason in the log.

        Raises:
            UserError: If not one of so many samples in a row is usable.
        """
        self.told[dropped.reason] += 1
        if self.told[dropped.reason] <= TOLD:
            log.warning("dropped (%s): %s", dropped.reason, plain(masked(str(dropped))))
        if in_a_row >= MOST_DROPPED:
            raise UserError(
                f"not one of {in_a_row} samples in a row is usable. The last: {dropped}"
            )


def check_readers(num_shards: int, readers: int, source: SourceConfig, name: str = "") -> None:
    """Each reader needs a shard of its own.

    Args:
        num_shards: Of the source.
        readers: Ranks times workers.
        source: Its settings.
        name: Of the source, for the message.

    Raises:
        UserError: If there are fewer shards than readers, and none is to be read twice an epoch.
    """
    if num_shards < readers and not source.resampled:
        raise UserError(
            f"data.sources.{name or 'NAME'}: {num_shards} shards of {source.urls!r} cannot feed "
            f"{readers} readers (ranks x workers). Write more shards, lower data.num_workers, or "
            "set resampled: true to draw shards with replacement."
        )
