"""Rows of JSON lines, CSV and Parquet files, in ranges that can be read on their own."""

import csv
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from data_prep.jobs import Part
from miniflamingo.data.dropped import Dropped
from miniflamingo.errors import UserError

TABLES = (".jsonl", ".csv", ".tsv", ".parquet")
PARQUET_BATCH = 64  # rows may carry their pictures


@dataclass(frozen=True)
class TableRows:
    """Some rows of a table, read from the disk each time they are iterated.

    Attributes:
        path: The table.
        start: Where the first row stands: a byte, or a row number for Parquet.
        count: How many rows.
    """

    path: Path
    start: int
    count: int

    def __len__(self) -> int:
        """How many rows."""
        return self.count

    def __iter__(self) -> Iterator[dict[str, Any] | Dropped]:
        """Rows as dictionaries; a line that is no JSON object as ``Dropped``."""
        if self.path.suffix == ".parquet":
            return self._parquet_rows()
        return self._json_rows() if self.path.suffix == ".jsonl" else self._csv_rows()

    def _json_rows(self) -> Iterator[dict[str, Any] | Dropped]:
        with self.path.open("rb") as file:
            file.seek(self.start)
            for place, line in enumerate(islice(file, self.count)):
                where = f"{self.path}, line {place} after byte {self.start}"
                try:
                    row = json.loads(line)
                except (ValueError, RecursionError) as error:
                    yield Dropped("bad_json", f"{where}: {error}")
                    continue
                if isinstance(row, dict):
                    yield row
                else:
                    found = type(row).__name__
                    yield Dropped("bad_json", f"{where} holds a {found}, expected an object.")

    def _csv_rows(self) -> Iterator[dict[str, Any] | Dropped]:
        with self.path.open("rb") as file:
            names = next(_csv_reader(self.path, file))
            file.seek(self.start)
            for row in islice(_csv_reader(self.path, file), self.count):
                if len(row) == len(names):
                    yield dict(zip(names, row, strict=True))
                else:
                    yield Dropped(
                        "bad_layout",
                        f"{self.path}: a row after byte {self.start} has {len(row)} fields, "
                        f"expected {len(names)}: {row[:3]} ...",
                    )

    def _parquet_rows(self) -> Iterator[dict[str, Any]]:
        table = open_parquet(self.path)
        first, stop = 0, self.start + self.count
        for group in range(table.num_row_groups):
            num_rows = table.metadata.row_group(group).num_rows
            if first < stop and first + num_rows > self.start:
                row = first
                for batch in table.iter_batches(PARQUET_BATCH, row_groups=[group]):
                    begin, end = max(self.start - row, 0), min(stop - row, len(batch))
                    if begin < end:
                        yield from batch.slice(begin, end - begin).to_pylist()
                    row += len(batch)
            first += num_rows


def find_tables(path: Path) -> list[Path]:
    """A table, or all tables of a folder, sorted.

    Raises:
        UserError: If there is none.
    """
    found = sorted(each for each in path.rglob("*") if each.suffix in TABLES)
    found = found if path.is_dir() else [path]
    if not found or not found[0].is_file():
        raise UserError(f"{path}: there is no table ({', '.join(TABLES)}) here.")
    if path.suffix not in TABLES and not path.is_dir():
        raise UserError(
            f"{path} is no table of a known kind; expected {', '.join(TABLES)}, unpacked."
        )
    return found


def split_tables(tables: Iterable[Path], per_shard: int) -> list[Part]:
    """Cut tables into ranges of rows, one for each shard; no shard spans two tables.

    Args:
        tables: Files.
        per_shard: Most rows of a shard.

    Raises:
        UserError: If a table is not UTF-8, or no Parquet, or the number is below 1.
    """
    if per_shard < 1:
        raise UserError(f"--per_shard is {per_shard}; at least 1 row is needed.")
    ranges: list[TableRows] = []
    for path in tables:
        starts, total = _row_starts(path, per_shard)
        for place, start in enumerate(starts):
            ranges.append(TableRows(path, start, min(per_shard, total - place * per_shard)))
    return [Part(f"{number:06d}", rows) for number, rows in enumerate(ranges)]


def table_settings(tables: Iterable[Path]) -> dict[str, int]:
    """Names and sizes of tables, by which a job knows them again."""
    return {str(path): path.stat().st_size for path in tables}


def open_parquet(path: Path) -> Any:
    """Open a Parquet file.

    Raises:
        UserError: If pyarrow is not installed, or the file is no Parquet.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise UserError(
            f"{path}: reading Parquet needs pyarrow: pip install 'miniflamingo[prep]'."
        ) from error
    try:
        return parquet.ParquetFile(path)
    except pyarrow.ArrowInvalid as error:
        raise UserError(f"{path} is no Parquet file: {error}") from error


def _row_starts(path: Path, every: int) -> tuple[list[int], int]:
    """Where rows 0, every, 2*every, ... stand, and how many rows there are."""
    if path.suffix == ".parquet":
        total = open_parquet(path).metadata.num_rows
        return list(range(0, total, every)), total
    starts, total = [], 0
    with path.open("rb") as file:
        if path.suffix == ".jsonl":
            position = 0
            for line in file:
                if total % every == 0:
                    starts.append(position)
                position += len(line)
                total += 1
            return starts, total
        lines = _Counted(file)
        rows = _csv_reader(path, lines)
        next(rows, None)  # the names
        position = lines.bytes
        for _ in rows:
            if total % every == 0:
                starts.append(position)
            position = lines.bytes
            total += 1
    return starts, total


class _Counted:
    """Lines of a file, counting the bytes given so far."""

    def __init__(self, lines: Iterable[bytes]) -> None:
        self.lines = lines
        self.bytes = 0

    def __iter__(self) -> Iterator[bytes]:
        for line in self.lines:
            self.bytes += len(line)
            yield line


def _csv_reader(path: Path, lines: Iterable[bytes]) -> Iterator[list[str]]:
    """Rows of a CSV; a quoted field may span lines.

    Raises:
        UserError: If a line is not UTF-8.
    """
    csv.field_size_limit(1 << 30)  # captions and base64 pictures are longer than the default

    def decoded() -> Iterator[str]:
        for number, line in enumerate(lines):
            try:
                yield line.decode("utf-8-sig" if number == 0 else "utf-8")
            except UnicodeDecodeError as error:
                raise UserError(
                    f"{path} is not UTF-8 ({error}); convert it, with iconv say."
                ) from error

    return csv.reader(decoded(), delimiter="\t" if path.suffix == ".tsv" else ",")
