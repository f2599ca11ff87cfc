"""Validation documents: read anew each time, in order, the same number of batches on every rank."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from itertools import chain, cycle, islice

from torch.utils.data import IterableDataset, get_worker_info

from miniflamingo.batch import Batch
from miniflamingo.data.dropped import Dropped
from miniflamingo.data.processor import MiniFlamingoProcessor
from miniflamingo.data.shards import RawSample, read_shard
from miniflamingo.data.source import SourceConfig
from miniflamingo.data.stream import usable_document
from miniflamingo.document import Document
from miniflamingo.errors import UserError

log = logging.getLogger(__name__)


class ValidationStream(IterableDataset[Batch]):
    """Batches of all validation documents, once.

    Samples are dealt in rounds of a batch for each rank. Ranks wait for each other, so each gives
    as many batches of as many documents as the others: one that is short repeats its own.
    """

    def __init__(
        self,
        shards: list[str],
        processor: MiniFlamingoProcessor,
        source: SourceConfig,
        max_tokens: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        """Describe the stream; nothing is read yet.

        Args:
            shards: Files or urls.
            processor: Makes the batches.
            source: How samples are read and chosen.
            max_tokens: Longest row of a batch.
            seed: Of what ``prepare`` draws, the same each time.
            rank: Of this process.
            world_size: Number of processes.
        """
        self.shards = shards
        self.processor = processor
        self.source = source
        self.max_tokens = max_tokens
        self.seed = seed
        self.rank = rank
        self.world_size = world_size

    def __iter__(self) -> Iterator[Batch]:
        """Yield this rank's batches.

        Raises:
            BrokenShard: If a shard cannot be read to its end.
            UserError: If this rank has not one usable document.
        """
        info = get_worker_info()
        assert info is None or info.num_workers == 1
        known: list[Document] = []  # to be repeated
        due: list[tuple[list[Document], int]] = []
        for round_ in self.rounds():
            share = map(self.document, round_[self.rank :: self.world_size])
            documents = [document for document in share if document is not None]
            size = math.ceil(len(round_) / self.world_size)
            due.append((documents, size if self.world_size > 1 else len(documents)))
            known = [*known, *documents][-self.source.batch_size :]
            if not known:
                continue
            for documents, size in due:
                if batch := list(islice(chain(documents, cycle(known)), size)):
                    yield self.processor.batch(batch, self.max_tokens, self.source.pack)
            due.clear()
        if not known:
            raise UserError(
                f"data.validation: not one usable document for rank {self.rank} of "
                f"{self.world_size} in {self.source.urls!r}; the log says why."
            )

    def rounds(self) -> Iterator[list[RawSample | Dropped]]:
        """Read the samples of each round, in order."""
        timeout = self.source.timeout
        samples = (sample for url in self.shards for sample in read_shard(url, timeout))
        while round_ := list(islice(samples, self.world_size * self.source.batch_size)):
            yield round_

    def document(self, sample: RawSample | Dropped) -> Document | None:
        """Make a document, or say in the log why it cannot be used."""
        document = usable_document(
            sample, self.source, self.processor, self.max_tokens, self.seed, 0
        )
        if not isinstance(document, Dropped):
            return document
        log.warning("validation: dropped (%s): %s", document.reason, document)
        return None
