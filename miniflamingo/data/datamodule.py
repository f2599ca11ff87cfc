"""Sources and validation documents for a Lightning trainer."""

from __future__ import annotations

from typing import Any

import lightning as L
from torch.utils.data import DataLoader

from miniflamingo.batch import Batch
from miniflamingo.data.processor import MiniFlamingoProcessor
from miniflamingo.data.shards import find_shards, read_samples
from miniflamingo.data.source import SourceConfig
from miniflamingo.data.stream import BatchStream, usable_document


class InterleavedData(L.LightningDataModule):
    """Every step takes one batch from each source; validation reads whole documents in order."""

    def __init__(
        self,
        processor: MiniFlamingoProcessor,
        sources: dict[str, SourceConfig],
        validation: SourceConfig,
        max_tokens: int = 256,
        num_workers: int = 1,
        seed: int = 0,
    ) -> None:
        """Find all shards now, so that a wrong path is told before anything long.

        Args:
            processor: Makes the batches; linked from the model by the command line.
            sources: Training streams by name.
            validation: Documents for the validation loss.
            max_tokens: Longest document; later chunks are left out.
            num_workers: Reading processes for each source on each device.
            seed: Of the order of samples.

        Raises:
            ValueError: If a source has no shards.
        """
        super().__init__()
        self.processor = processor
        self.sources = sources
        self.shards = {name: find_shards(source.urls) for name, source in sources.items()}
        self.validation = validation
        self.validation_shards = find_shards(validation.urls)
        self.max_tokens = max_tokens
        self.num_workers = num_workers
        self.seed = seed
        self.first_batch = 0

    def state_dict(self) -> dict[str, Any]:
        """How many batches every source has given, for an exact resume."""
        assert self.trainer is not None
        return {"batches": self.trainer.fit_loop.total_batch_idx + 1}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Start the streams where the checkpoint was written."""
        self.first_batch = state_dict["batches"]

    def train_dataloader(self) -> dict[str, DataLoader[Batch]]:
        """One endless loader for each source."""
        return {name: self.source_loader(name) for name in self.sources}

    def source_loader(self, name: str) -> DataLoader[Batch]:
        """An endless loader of one source, from where training stands."""
        rank, world_size = 0, 1
        if self.trainer is not None:
            rank, world_size = self.trainer.global_rank, self.trainer.world_size
        stream = BatchStream(
            self.shards[name],
            self.processor,
            self.sources[name].batch_size,
            self.max_tokens,
            self.seed,
            self.first_batch,
            rank,
            world_size,
            pack=self.sources[name].pack,
            source=self.sources[name],
        )
        return DataLoader(stream, batch_size=None, num_workers=self.num_workers)

    def val_dataloader(self) -> DataLoader[Batch]:
        """All validation documents once, in order; the trainer splits them over ranks."""
        documents = [
            document
            for sample in read_samples(self.validation_shards)
            if (
                document := usable_document(
                    sample, self.validation, self.processor, self.max_tokens, self.seed
                )
            )
            is not None
        ]
        return DataLoader(
            documents,  # type: ignore[arg-type]  # a list is a map-style dataset
            batch_size=self.validation.batch_size,
            collate_fn=self.processor.batch,
        )
