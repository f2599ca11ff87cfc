"""Read every byte of shards as training does, and say what it would skip.

Run ``python -m data_prep.verify --help``.
"""

import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from data_prep.command import run_command
from data_prep.every_shard import look_at_every_shard
from data_prep.reading import manifest_entry
from data_prep.recipes import Reading, load_text
from data_prep.shards import hash_file, write_json
from miniflamingo.data.dropped import Dropped
from miniflamingo.data.layouts.choose import to_document
from miniflamingo.data.layouts.page import Page
from miniflamingo.data.prepare import decode_document, prepare
from miniflamingo.data.shards import BrokenShard, RawSample, read_shard
from miniflamingo.seeding import seeded
from miniflamingo.terminal import as_markup


@dataclass
class Findings:
    """What reading some shards came to.

    Attributes:
        shards: Read, broken ones included.
        samples: Read.
        used: Those that a training step would get.
        dropped: The others, by reason.
        pictures: Pictures of web pages that are lost while their page is used, by reason.
        first: The first message of each reason.
        broken: Shards that do not read to their end, or are not those of their manifest: what is
            wrong with each.
    """

    shards: int = 0
    samples: int = 0
    used: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    pictures: Counter[str] = field(default_factory=Counter)
    first: dict[str, str] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)

    def drop(self, error: Dropped) -> None:
        """Count a sample that cannot be used."""
        self.dropped[error.reason] += 1
        self.first.setdefault(error.reason, str(error))

    def add(self, other: "Findings") -> None:
        """Take in what another came to."""
        self.shards += other.shards
        self.samples += other.samples
        self.used += other.used
        self.dropped += other.dropped
        self.pictures += other.pictures
        self.first = {**other.first, **self.first}
        self.broken += other.broken


def verify_shard(reading: Reading, shard: tuple[str, str]) -> tuple[str, Findings]:
    """Read one shard.

    Args:
        reading: How its source is read.
        shard: Name of its source, and its url.

    Returns:
        The source's name, and what was found.
    """
    source, url = shard
    found = Findings(shards=1)
    try:
        for sample in read_shard(url):
            found.samples += 1
            if isinstance(sample, Dropped):
                found.drop(sample)
            else:
                verify_sample(reading, source, sample, found)
    except BrokenShard as error:
        found.broken.append(str(error))
    entry = manifest_entry(url)
    if entry is not None and not found.broken:
        if entry["samples"] != found.samples:
            found.broken.append(
                f"{url} holds {found.samples} samples, its manifest says {entry['samples']}"
            )
        elif hash_file(Path(url)) != entry["sha256"]:
            found.broken.append(f"{url} has not the sha256 that its manifest says")
    return source, found


def verify_sample(reading: Reading, source: str, sample: RawSample, found: Findings) -> None:
    """Prepare a sample as the first epoch would, and decode what lies outside its window too."""
    config = reading.sources[source]
    tokenizer, tokens = load_text(reading.language)
    rng = seeded(f"{reading.seed}-0-{sample['__url__']}-{sample['__key__']}")
    try:
        document = prepare(sample, config, tokenizer, tokens, reading.max_tokens, rng)
        whole = to_document(sample, config)
        if whole.num_media > document.num_media:
            whole = decode_document(whole, config, None)
    except Dropped as error:
        found.drop(error)
        return
    found.used += 1
    if isinstance(whole, Page):
        found.pictures.update(whole.lost)


def report(findings: dict[str, Findings]) -> Table:
    """A row for each source, and one for each reason below it."""
    table = Table("source", "shards", "samples", "used", "share", "not used, and the first of it")
    for source, found in findings.items():
        share = found.used / found.samples if found.samples else 0.0
        numbers = [f"{n:,}" for n in (found.shards, found.samples, found.used)]
        table.add_row(as_markup(source), *numbers, f"{share:.2%}", style="bold")
        for reason, count in found.dropped.most_common():
            table.add_row(
                "", "", f"{count:,}", "", "", as_markup(f"{reason}: {found.first[reason]}")
            )
        for reason, count in found.pictures.most_common():
            lost = f"{reason}: {count:,} pictures; their pages are used without them"
            table.add_row("", "", "", "", "", as_markup(lost))
        for message in found.broken:
            table.add_row("", "1", "", "", "", as_markup(f"broken_shard: {message}"), style="red")
    return table


def verify(out: Path | None = None, **options: Any) -> None:
    """Read every byte of shards as training does, and report what it would skip.

    Ends with exit code 1 if a shard is broken: cut short, unreadable, or not the one that its
    manifest describes. Samples that are skipped alone do not change the exit code.

    Args:
        out: JSON file for the figures.
        options: As in ``look_at_every_shard``.
    """
    findings = look_at_every_shard("verify", verify_shard, Findings, **options)
    if out is not None:  # first of all: it may have taken hours
        write_json(out, as_json(findings))
    Console().print(report(findings))
    if any(found.broken for found in findings.values()):
        sys.exit(1)


def as_json(findings: dict[str, Findings]) -> dict[str, Any]:
    """The figures, by source."""
    return {
        name: {**vars(found), "dropped": dict(found.dropped), "pictures": dict(found.pictures)}
        for name, found in findings.items()
    }


if __name__ == "__main__":
    run_command(verify)
