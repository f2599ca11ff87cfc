"""Sources and validation documents for a Lightning trainer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import lightning as L
import torch.distributed as dist
from torch.utils.data import DataLoader, IterableDataset

from miniflamingo.batch import Batch
from miniflamingo.data.accumulate import StepLoader
from miniflamingo.data.counts import check_bad_share
from miniflamingo.data.mixture import Mixture, MixtureKind
from miniflamingo.data.processor import MiniFlamingoProcessor
from miniflamingo.data.reader import Order
from miniflamingo.data.shards import find_shards
from miniflamingo.data.source import SourceConfig
from miniflamingo.data.state import SourceState, merge, pack_state, unpack_state
from miniflamingo.data.stream import BatchStream, check_readers
from miniflamingo.data.validation import ValidationStream
from miniflamingo.data.workers import obey_parent_alone
from miniflamingo.errors import UserError


def find_sources(sources: Mapping[str, SourceConfig], readers: int) -> dict[str, list[str]]:
    """Find the shards of all sources.

    Args:
        sources: By name.
        readers: Ranks times workers.

    Raises:
        UserError: If there are no sources, or one has no shards or fewer than readers.
    """
    if not sources:
        raise UserError("data.sources is empty; name at least one source of documents.")
    shards = {}
    for name, source in sources.items():
        shards[name] = find_shards(source.urls)
        check_readers(len(shards[name]), readers, source, name)
    return shards


def loader_of(stream: IterableDataset[Batch], num_workers: int) -> DataLoader[Batch]:
    """Read a stream of whole batches, in processes of their own if there are to be any."""
    return DataLoader(
        stream, batch_size=None, num_workers=num_workers, worker_init_fn=obey_parent_alone
    )


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
        mixture: MixtureKind = "all",
    ) -> None:
        """Find all shards now, so that a wrong path is told before anything long.

        Args:
            processor: Makes the batches; linked from the model by the command line.
            sources: Training streams by name.
            validation: Documents for the validation loss.
            max_tokens: Longest document; later chunks are left out.
            num_workers: Reading processes for each source on each device.
            seed: Of the order of samples, and of what is drawn for each.
            mixture: Whether a step takes a batch of ``all`` sources and adds their losses by
                weight, or the batch of one source, of a ``sample`` drawn by weight.

        Raises:
            UserError: If a source has no shards, or fewer than workers.
        """
        super().__init__()
        self.processor = processor
        self.sources = sources
        self.shards = find_sources(sources, max(1, num_workers))
        self.validation = validation
        self.validation_shards = find_shards(validation.urls)
        self.max_tokens = max_tokens
        self.num_workers = num_workers
        self.seed = seed
        self.mixture: MixtureKind = mixture
        self.states: dict[str, SourceState] = {}
        self.loaded: Mapping[str, Any] = {}

    @property
    def workers(self) -> int:
        """Readers of each source on each rank."""
        return max(1, self.num_workers)

    @property
    def ranks(self) -> tuple[int, int]:
        """This rank and how many there are."""
        return (
            (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)
        )

    def order(self, name: str) -> Order:
        """What the order of a source's samples follows from."""
        source = self.sources[name]
        return Order(self.shards[name], self.seed, source.shuffle, source.resampled)

    def state(self, name: str) -> SourceState:
        """How far a source has come on this rank."""
        if name not in self.states:
            readers = self.ranks[1] * self.workers
            loaded = self.loaded.get(name)
            self.states[name] = (
                SourceState()
                if loaded is None
                else unpack_state(loaded, self.order(name), readers, name)
            )
        return self.states[name]

    def gathered_states(self) -> dict[str, SourceState]:
        """How far each source has come on all ranks, which wait for each other here."""
        mine = {name: self.state(name) for name in self.sources}
        everyone: list[Any] = [mine]
        if dist.is_available() and dist.is_initialized():
            everyone = [None] * dist.get_world_size()
            dist.all_gather_object(everyone, mine)
        return {name: merge([each[name] for each in everyone], self.workers) for name in mine}

    def state_dict(self) -> dict[str, Any]:
        """How far each source has come, for an exact resume."""
        return {
            name: pack_state(state, self.order(name))
            for name, state in self.gathered_states().items()
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where the checkpoint was written."""
        self.loaded = state_dict
        self.states = {}

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Note what training takes, which is less than what the workers have read.

        Raises:
            UserError: If more of a source is bad than it allows.
        """
        if self.trainer is not None and self.trainer.training:
            for name, part in batch.items():
                state = self.state(name)
                state.take(part)
                check_bad_share(name, state.counts, self.sources[name].most_bad)
        return batch

    def train_dataloader(self) -> Mixture:
        """Endless steps of training."""
        weights = {name: source.weight for name, source in self.sources.items()}
        accumulate = 1 if self.trainer is None else self.trainer.accumulate_grad_batches

        def loader(name: str) -> Iterable[Batch]:
            return StepLoader(self.source_loader(name), accumulate)

        return Mixture(loader, self.steps, weights, self.mixture, self.seed, accumulate)

    def steps(self) -> int:
        """How many steps of the mixture training has taken."""
        batches = [self.state(name).batches for name in self.sources]
        return max(batches) if self.mixture == "all" else sum(batches)

    def source_loader(self, name: str) -> DataLoader[Batch]:
        """An endless loader of one source, from where training stands."""
        stream = BatchStream(
            self.shards[name],
            self.processor,
            self.sources[name],
            self.max_tokens,
            self.seed,
            self.state(name),
            *self.ranks,
        )
        return loader_of(stream, self.num_workers)

    def val_dataloader(self) -> DataLoader[Batch]:
        """All validation documents once, in order, shared among the ranks."""
        stream = ValidationStream(
            self.validation_shards,
            self.processor,
            self.validation,
            self.max_tokens,
            self.seed,
            *self.ranks,
        )
        return loader_of(stream, min(1, self.num_workers))
