"""A job turns rows into a folder of shards with a manifest, and can be stopped and run again."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from tqdm import tqdm

from data_prep.disk import require_disk_space
from data_prep.shards import UNFINISHED, Sample, ShardRecord, hash_file, write_json, write_shard
from data_prep.workers import Ray, run_parts
from miniflamingo.data.dropped import Dropped
from miniflamingo.errors import UserError
from miniflamingo.lock import held

MANIFEST = "manifest.json"
RECORDS = ".records"
JOB = "job.json"
LOOKED_AT = 16
"""Samples made before a job starts, to see that they can be made and how large they are."""

Row = Any
Converted = Iterator[Sample | Dropped]


class Rows(Sized, Iterable[Row], Protocol):
    """The input of one shard: picklable, of known length, readable more than once."""


@dataclass(frozen=True)
class Part:
    """What becomes one shard.

    Attributes:
        name: Of the shard, without its ending.
        rows: Its input.
    """

    name: str
    rows: Rows


@dataclass(frozen=True)
class Job:
    """What becomes one folder of shards.

    Attributes:
        command: Which of ``data_prep``'s commands this is.
        settings: Everything that decides what the shards hold, as JSON. A folder that was begun
            with other settings is refused.
        parts: One for each shard.
        convert: A part's name and rows to samples, in order; what cannot be used as ``Dropped``.
        source: Where the data comes from, for the manifest.
        licence: Of the data, for the manifest.
        about: More for the manifest, by name.
        gpus: What Ray reserves for a part.
    """

    command: str
    settings: dict[str, Any]
    parts: Sequence[Part]
    convert: Callable[[str, Rows], Converted]
    source: str
    licence: str
    about: dict[str, Any]
    gpus: int = 0


@dataclass(frozen=True)
class EachRow:
    """Converts rows one by one; picklable where its function is.

    Attributes:
        convert: A key and a row to samples; raises ``Dropped`` for a row that cannot be used.
    """

    convert: Callable[[str, Row], Sample]

    def __call__(self, name: str, rows: Rows) -> Converted:
        """Convert the rows of a part, keys numbered from the part's name."""
        for place, row in enumerate(rows):
            if isinstance(row, Dropped):
                yield row
                continue
            try:
                yield self.convert(f"{name}{place:06d}", row)
            except Dropped as error:
                yield error


def run_job(job: Job, out: Path, workers: int, ray: Ray | None) -> dict[str, Any]:
    """Write what is missing of a job's shards, then the manifest.

    A shard that is there with the hash that its record says is kept. The others are written, each
    visible under its name only when it is complete.

    Args:
        job: What to write.
        out: Folder of the shards; with several machines on a file system that they share.
        workers: As in ``run_parts``.
        ray: As in ``run_parts``.

    Returns:
        The manifest.

    Raises:
        UserError: If the folder holds shards of another job, another process writes it, or not one
            row is usable.
        OSError: If the disk is too full, or becomes so.
    """
    _check_folder(job, out)
    _check_disk(job, out)
    out.mkdir(parents=True, exist_ok=True)
    with held(out):
        return _write_all(job, out, workers, ray)


def _write_all(job: Job, out: Path, workers: int, ray: Ray | None) -> dict[str, Any]:
    write_json(out / RECORDS / JOB, _identity(job))
    for leftover in out.rglob(f".*{UNFINISHED}"):  # of a job that was killed: this one is alone
        leftover.unlink()
    total = sum(len(part.rows) for part in job.parts)
    records: dict[str, ShardRecord] = {}
    bar = tqdm(total=total, desc=job.command, unit="row", mininterval=0.5)
    with bar:
        write = partial(write_part, job.convert, out)
        for name, rows, record in run_parts(write, job.parts, workers, ray, job.gpus):
            records[name] = record
            bar.update(rows)
            samples = sum(each.samples for each in records.values())
            bar.set_postfix(shards=len(records), samples=samples, refresh=False)
    manifest = _manifest(job, {part.name: records[part.name] for part in job.parts})
    _check_result(manifest, out)
    write_json(out / MANIFEST, manifest)
    for leftover in out.rglob(f".*{UNFINISHED}"):  # of workers that were killed
        leftover.unlink()
    return manifest


def write_part(
    convert: Callable[[str, Rows], Converted], out: Path, part: Part
) -> tuple[str, int, ShardRecord]:
    """Write one shard and its record, unless both are there and agree.

    Returns:
        The part's name, its number of rows and the record.
    """
    path = out / f"{part.name}.tar"
    record_file = out / RECORDS / f"{part.name}.json"
    if record_file.is_file():
        record = ShardRecord(**json.loads(record_file.read_text()))
        if _is_whole(path, record):
            return part.name, len(part.rows), record
    record = write_shard(path, convert(part.name, part.rows))
    write_json(record_file, asdict(record))
    return part.name, len(part.rows), record


def describe(manifest: dict[str, Any], out: Path) -> str:
    """Say in a few lines what a job wrote and what it could not use."""
    lines = [
        f"{out}: {len(manifest['shards'])} shards, {manifest['samples']:,} samples, "
        f"{manifest['bytes'] / 1e6:,.1f} MB, {MANIFEST}"
    ]
    for reason, found in manifest["dropped"].items():
        lines.append(f"  dropped {found['count']:,} {reason}, the first: {found['first']}")
    return "\n".join(lines)


def _is_whole(path: Path, record: ShardRecord) -> bool:
    if record.samples == 0:
        return not path.exists()
    return (
        path.is_file() and path.stat().st_size == record.bytes and hash_file(path) == record.sha256
    )


def _identity(job: Job) -> dict[str, Any]:
    """What a folder's shards follow from, as it comes back from JSON."""
    names = [part.name for part in job.parts]
    identity = {"command": job.command, "settings": job.settings, "parts": len(names)}
    return json.loads(json.dumps(identity))


def _check_folder(job: Job, out: Path) -> None:
    found_file = out / RECORDS / JOB
    if found_file.is_file():
        found = json.loads(found_file.read_text())
        if found != _identity(job):
            raise UserError(
                f"{out} holds shards of another job: {found}. This one is {_identity(job)}. "
                "Choose another --out, or delete that folder."
            )
    elif out.is_dir() and (strangers := sorted(out.glob("*.tar"))):
        raise UserError(
            f"{out} holds {strangers[0].name} and no record of how it was made; choose an empty "
            "--out."
        )


def _check_disk(job: Job, out: Path) -> None:
    """Guess the size of the whole from the first samples."""
    if not job.parts:
        raise UserError(f"{job.command} found no rows at all in {job.source}.")
    first = islice(job.convert(job.parts[0].name, job.parts[0].rows), LOOKED_AT)
    sizes = [
        sum(len(content) for name, content in each.items() if not name.startswith("__"))
        for each in first
        if not isinstance(each, Dropped)
    ]
    if sizes:
        missing = [p for p in job.parts if not (out / RECORDS / f"{p.name}.json").is_file()]
        rows = sum(len(part.rows) for part in missing)
        require_disk_space(out, rows * sum(sizes) // len(sizes), f"about {rows} samples")


def _manifest(job: Job, records: dict[str, ShardRecord]) -> dict[str, Any]:
    dropped: Counter[str] = Counter()
    first: dict[str, str] = {}
    for record in records.values():
        dropped.update(record.dropped)
        first = {**record.first, **first}
    written = {name: each for name, each in records.items() if each.samples}
    return {
        "command": job.command,
        "settings": job.settings,
        "source": job.source,
        "license": job.licence,
        **job.about,
        "samples": sum(each.samples for each in records.values()),
        "bytes": sum(each.bytes for each in records.values()),
        "dropped": {reason: {"count": dropped[reason], "first": first[reason]} for reason in first},
        "shards": {
            f"{name}.tar": {"samples": each.samples, "bytes": each.bytes, "sha256": each.sha256}
            for name, each in written.items()
        },
    }


def _check_result(manifest: dict[str, Any], out: Path) -> None:
    if not manifest["shards"]:
        reasons = "; ".join(each["first"] for each in manifest["dropped"].values())
        raise UserError(f"not one row of {manifest['source']} could be used: {reasons}")
    for name in manifest["shards"]:
        if not (out / name).is_file():
            raise UserError(
                f"{out / name} was written by another machine and is not to be seen here. --out "
                "must be on a file system that all machines share."
            )
