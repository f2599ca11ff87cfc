"""An endless, seeded stream of batches that can start anywhere."""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator
from itertools import islice

from torch.utils.data import IterableDataset, get_worker_info
from webdataset.filters import shuffle

from miniflamingo.batch import Batch
from miniflamingo.data.dropped import Dropped
from miniflamingo.data.prepare import prepare
from miniflamingo.data.processor import MiniFlamingoProcessor
from miniflamingo.data.shards import RawSample, read_samples
from miniflamingo.data.source import DEFAULTS, SourceConfig
from miniflamingo.document import Document

log = logging.getLogger(__name__)

MOST_SKIPPED = 1000
"""Unusable samples in a row that are taken for a broken source."""


def usable_document(
    sample: RawSample,
    source: SourceConfig,
    processor: MiniFlamingoProcessor,
    max_tokens: int | None,
    seed: int,
) -> Document | None:
    """Make a document of a sample, or say in the log why it cannot be used.

    Returns:
        The document with its pictures decoded, or None.
    """
    rng = random.Random(f"{seed}-{sample['__key__']}")
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
    except Dropped as error:
        log.warning("skipped %s", error)
        return None


class BatchStream(IterableDataset[Batch]):
    """Batches of one source, for ever.

    The order is a function of seed, number of readers and nothing else: a stream told to start at
    batch n yields what an undisturbed one yields from there on. A batch is made of a fixed number
    of consecutive samples; unusable ones are left out of it and counted in ``Batch.skipped``. Where
    not one of them is usable, the batch after them is given in their place too, so that batch n
    is always made of the n-th samples.
    """

    def __init__(
        self,
        shards: list[str],
        processor: MiniFlamingoProcessor,
        batch_size: int,
        max_tokens: int,
        seed: int,
        first_batch: int = 0,
        rank: int = 0,
        world_size: int = 1,
        shuffle_buffer: int = 1000,
        pack: bool = False,
        source: SourceConfig = DEFAULTS,
    ) -> None:
        """Describe the stream; nothing is read yet.

        Args:
            shards: Tar files or urls.
            processor: Makes the batches.
            batch_size: Documents in a batch.
            max_tokens: Longest row of a batch.
            seed: Of the order.
            first_batch: How many batches of this rank to pass over without decoding them.
            rank: Of this process.
            world_size: Number of processes.
            shuffle_buffer: Samples among which the next one is drawn.
            pack: Whether documents share rows of ``max_tokens``.
            source: How samples are read.
        """
        self.shards = shards
        self.processor = processor
        self.batch_size = batch_size
        self.max_tokens = max_tokens
        self.seed = seed
        self.first_batch = first_batch
        self.rank = rank
        self.world_size = world_size
        self.shuffle_buffer = shuffle_buffer
        self.pack = pack
        self.source = source

    def __iter__(self) -> Iterator[Batch]:
        """Yield this worker's batches; a loader with several workers takes turns among them.

        Raises:
            ValueError: If the source has fewer shards than readers, or nothing usable.
        """
        info = get_worker_info()
        worker, workers = (info.id, info.num_workers) if info else (0, 1)
        worker = (worker + self.first_batch) % workers  # the loader asks its first worker first
        passed = (self.first_batch - worker + workers - 1) // workers  # by this worker
        samples = self.samples(self.rank * workers + worker, self.world_size * workers)
        samples = islice(samples, passed * self.batch_size, None)
        due: list[int] = []  # skipped samples of each batch that is yet to be given
        while raw := list(islice(samples, self.batch_size)):
            read = [
                usable_document(sample, self.source, self.processor, self.max_tokens, self.seed)
                for sample in raw
            ]
            documents = [document for document in read if document is not None]
            due.append(len(raw) - len(documents))
            if documents:
                for skipped in due:
                    yield self.processor.batch(documents, self.max_tokens, skipped, self.pack)
                due = []
            elif sum(due) >= MOST_SKIPPED:
                raise ValueError(
                    f"not one of {sum(due)} samples in a row is usable, the last being "
                    f"{raw[-1]['__key__']!r} of {raw[-1].get('__url__')}; the log says why."
                )

    def samples(self, reader: int, readers: int) -> Iterator[RawSample]:
        """Read this reader's share of the shards over and over, newly ordered each time.

        Raises:
            ValueError: If there are fewer shards than readers, or they hold no samples.
        """
        if len(self.shards) < readers:
            raise ValueError(
                f"{len(self.shards)} shards cannot feed {readers} readers (ranks x workers), "
                f"the first being {self.shards[0]!r}. Write more shards or lower data.num_workers."
            )
        epoch = 0
        while True:
            order = self.shards.copy()
            random.Random(f"{self.seed}-{epoch}").shuffle(order)
            rng = random.Random(f"{self.seed}-{epoch}-{reader}-{readers}")
            found = False
            share = read_samples(order[reader::readers])
            for sample in shuffle(self.shuffle_buffer, initial=self.shuffle_buffer, rng=rng)(share):
                found = True
                yield sample
            if not found:
                raise ValueError(f"the shards {order[reader::readers][:3]} ... hold no samples.")
            epoch += 1
