"""What an evaluation keeps of one query: the one value that runner, metrics and reports share."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from miniflamingo.errors import UserError
from miniflamingo.files import write_whole

CONDITIONS = ("real", "support_shuffled", "query_swapped", "no_media")
"""Which pictures a prompt shows: its own, those of its support in another order, another query's
in the query's place, or none at all."""


class Prediction(NamedTuple):
    """One query, what the model made of it and what it is held against.

    Attributes:
        condition: One of ``CONDITIONS``, or the name of a baseline.
        shots: How many solved examples the prompt showed, not counting text-only ones.
        seed: By which they were drawn.
        key: Of the query.
        support: Ids of the examples in the prompt's order, the text-only ones of 0 shots included.
        completion: What the model wrote, untouched.
        answer: The cleaned completion, which is scored.
        references: What people said.
        score: Of this query on the task's metric; None before it is computed.
        facts: Fact -> whether the answer mentions exactly what is true; empty for most tasks.
        loss: Mean loss of the tokens of the first reference after the prompt, in nats; None where
            it was not measured.
        likelihoods: Log-likelihood of the likeliest classes, where a task classifies.
    """

    condition: str
    shots: int
    seed: int
    key: str
    support: tuple[str, ...]
    completion: str
    answer: str
    references: list[str]
    score: float | None = None
    facts: dict[str, bool] = {}  # noqa: RUF012  # read only; a NamedTuple has no other default
    loss: float | None = None
    likelihoods: dict[str, float] = {}  # noqa: RUF012


def write_predictions(predictions: Iterable[Prediction], file: Path) -> None:
    """Write one JSON object a line; the file gets its name only when it is complete."""
    lines = [json.dumps(each._asdict()) + "\n" for each in predictions]
    write_whole(file, "".join(lines))


def read_predictions(file: Path) -> list[Prediction]:
    """Read what ``write_predictions`` wrote.

    Raises:
        UserError: Naming file and line of what is no prediction.
    """
    predictions = []
    for number, line in enumerate(file.read_text().rstrip("\n").split("\n"), start=1):
        try:
            values = json.loads(line)
            predictions.append(Prediction(**{**values, "support": tuple(values["support"])}))
        except (json.JSONDecodeError, TypeError, KeyError) as error:
            raise UserError(
                f"{file}, line {number} is no prediction: {error}. Delete the file to compute it "
                "again."
            ) from error
    return predictions
