"""What gradient accumulation needs to know ahead: how many labels a whole step will have."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

from miniflamingo.batch import Batch


class StepLoader:
    """Reads all batches of an optimiser step before it gives the first.

    Each is then told how many labelled tokens they have together, so that a step over several
    batches weighs every token as a step over one large batch does.
    """

    def __init__(self, loader: Iterable[Batch], batches: int) -> None:
        """Wrap a loader.

        Args:
            loader: Of one source, starting at the first batch of a step.
            batches: Of one optimiser step, ``trainer.accumulate_grad_batches``.
        """
        self.loader = loader
        self.batches = batches

    def __iter__(self) -> Iterator[Batch]:
        """Yield the loader's batches in their order."""
        batches = iter(self.loader)
        while step := list(islice(batches, self.batches)):
            labels = sum(int(batch.num_labels) for batch in step)
            for batch in step:
                yield batch._replace(labels_in_step=labels)
