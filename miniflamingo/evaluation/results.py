"""The result of an evaluation: its scores, and all that they depend on."""

from __future__ import annotations

import hashlib
import json
import platform
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from miniflamingo.errors import UserError
from miniflamingo.evaluation.summary import Score, Summary
from miniflamingo.files import write_whole
from miniflamingo.model.export import CONFIG_FILE, WEIGHTS_FILE

RESULTS_FILE = "results.json"
PREDICTIONS_FILE = "predictions.jsonl"
PACKAGES = ("miniflamingo", "torch", "transformers", "open_clip_torch", "torchmetrics")


@dataclass(frozen=True)
class Results:
    """What ``results.json`` holds.

    Attributes:
        task: Its name.
        model: Exported folder.
        metric: As the task names it.
        headline: The score that per-query scores and comparisons are of.
        summaries: One for each condition and number of shots.
        protocol: All that a score depends on beside model, queries and number of shots: template,
            support, seeds, decoding, ... JSON values.
        fingerprints: Of ``model`` and ``data``.
        versions: Package -> version.
        seconds: That the evaluation took.
    """

    task: str
    model: str
    metric: str
    headline: str
    summaries: list[Summary]
    protocol: dict[str, Any]
    fingerprints: dict[str, str]
    versions: dict[str, str]
    seconds: float

    @property
    def protocol_hash(self) -> str:
        """Equal for equal protocols."""
        text = json.dumps(self.protocol, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def shots(self) -> list[int]:
        """All numbers of shots, ascending."""
        return sorted({each.shots for each in self.summaries})

    def find(self, condition: str, shots: int) -> Summary | None:
        """The summary of a condition and number of shots, None if that was not run."""
        found = [s for s in self.summaries if (s.condition, s.shots) == (condition, shots)]
        return found[0] if found else None


def model_fingerprint(folder: str | Path) -> str:
    """Hash an exported model: its weights and its configuration, which names the frozen parts."""
    digest = hashlib.sha256()
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        with (Path(folder) / name).open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def versions() -> dict[str, str]:
    """Versions of what scores depend on."""
    return {name: version(name) for name in PACKAGES} | {"python": platform.python_version()}


def write_results(results: Results, folder: Path) -> None:
    """Write ``results.json``; the file gets its name only when it is complete."""
    values = asdict(results) | {"protocol_hash": results.protocol_hash}
    values["summaries"] = [
        each._asdict() | {"scores": {n: s._asdict() for n, s in each.scores.items()}}
        for each in results.summaries
    ]
    write_whole(folder / RESULTS_FILE, json.dumps(values, indent=2) + "\n")


def read_results(folder: Path) -> Results:
    """Read what ``write_results`` wrote.

    Raises:
        UserError: If the folder has no such file, or it is of another kind.
    """
    file = folder / RESULTS_FILE
    if not file.is_file():
        raise UserError(f"there is no {file}. Give the --out folder of miniflamingo fewshot.")
    try:
        values = json.loads(file.read_text())
        values.pop("protocol_hash")
        values["summaries"] = [
            Summary(**{**each, "scores": {n: Score(**s) for n, s in each["scores"].items()}})
            for each in values["summaries"]
        ]
        return Results(**values)
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise UserError(
            f"{file} is no result of this version of miniflamingo fewshot: {error}. Run it again."
        ) from error
