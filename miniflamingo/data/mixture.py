"""Steps of training: a batch of every source, or of one that is drawn."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import count
from typing import Any, Literal

from miniflamingo.batch import Batch

MixtureKind = Literal["all", "sample"]


def loss_weights(weights: Mapping[str, float], kind: MixtureKind) -> dict[str, float]:
    """Weight of each source's loss in a step: one that is drawn by its weight counts whole."""
    return {name: weight if kind == "all" else 1.0 for name, weight in weights.items()}


def drawn_source(weights: Mapping[str, float], seed: int, step: int) -> str:
    """Draw the source of a step by weight, the same on every rank."""
    rng = random.Random(f"{seed}-{step}-source")
    return rng.choices(list(weights), list(weights.values()))[0]


class Mixture(Iterable[dict[str, Batch]]):
    """Endless steps, each with the batches that it learns from by the names of their sources.

    Loaders are made and places asked for when the first step is asked for, and each time that one
    iterates anew: so it goes on where training stands, not where it stood when this was made.
    """

    def __init__(
        self,
        loader: Callable[[str], Iterable[Batch]],
        step: Callable[[], int],
        weights: Mapping[str, float],
        kind: MixtureKind,
        seed: int,
        accumulate: int = 1,
    ) -> None:
        """Describe the steps.

        Args:
            loader: Makes the loader of a source, from where training stands.
            step: Says how many of these steps training has taken.
            weights: Of the sources.
            kind: ``all`` for the paper's batch of every source, ``sample`` for one drawn by weight.
            seed: Of the draws.
            accumulate: So many steps in a row, those of one optimiser step, have one draw.
        """
        self.loader = loader
        self.step = step
        self.weights = weights
        self.kind = kind
        self.seed = seed
        self.accumulate = accumulate

    def __iter__(self) -> Iterator[dict[str, Batch]]:
        """Yield steps."""
        batches = {name: iter(self.loader(name)) for name in self.weights}
        for step in count(self.step()):
            names: Iterable[str] = self.weights
            if self.kind == "sample":
                names = [drawn_source(self.weights, self.seed, step // self.accumulate)]
            yield {name: next(batches[name]) for name in names}

    def state_dict(self) -> dict[str, Any]:
        """Tell Lightning that resuming is safe; ``InterleavedData`` keeps what there is to."""
        return {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take what ``state_dict`` gave."""
