"""Find what img2dataset downloaded by its url.

img2dataset writes ``00000.parquet`` (urls, keys, whether each download worked) beside
``00000.tar`` or a folder ``00000/``, by its output format. The index is one SQLite file, so that
hundreds of millions of urls need no memory.
"""

import hashlib
import os
import sqlite3
import tarfile
from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm

from data_prep.tables import open_parquet
from miniflamingo.errors import UserError

INDEX = "miniflamingo-index.sqlite"
PICTURES = (".jpg", ".jpeg", ".png", ".webp")

Entry = tuple[bytes, str, int, int]
"""Hash of the url, file below the folder, first byte and length in it."""


class Downloads:
    """Pictures by url."""

    def __init__(self, index: Path) -> None:
        """Open an index for reading.

        Args:
            index: As ``build_index`` wrote it, in the folder of the downloads.
        """
        self.folder = index.parent
        self.database = sqlite3.connect(f"file:{index}?mode=ro&immutable=1", uri=True)

    def read(self, url: str) -> bytes | None:
        """The picture of a url, or None if it was not downloaded."""
        query = "SELECT file, start, length FROM pictures WHERE url = ?"
        found = self.database.execute(query, (hash_url(url),)).fetchone()
        if found is None:
            return None
        name, start, length = found
        path = self.folder / name
        # An index may have come with the downloads: it is no more trusted than they.
        # Links are followed: pictures on another disk are the user's own choice.
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise UserError(
                f"{self.folder / INDEX} names {name!r}, which lies outside its folder; delete the "
                "index, it is made anew."
            )
        with path.open("rb") as file:
            file.seek(start)
            return file.read(length)


def open_index(index: Path) -> Downloads:
    """Open what ``build_index`` wrote."""
    return Downloads(index)


def state_of(folder: Path) -> set[tuple[str, int, int]]:
    """Name, bytes and time of change of all tables, tars and folders of pictures in a folder."""
    tables = sorted(folder.rglob("*.parquet"))
    paths = [path for t in tables for path in (t, t.with_suffix(".tar"), t.with_suffix(""))]
    found = [(path, path.stat()) for path in paths if path.exists()]
    return {(str(path.relative_to(folder)), stat.st_size, stat.st_mtime_ns) for path, stat in found}


def is_of(index: Path, state: set[tuple[str, int, int]]) -> bool:
    """Whether an index was made of the files as they are now."""
    database = sqlite3.connect(f"file:{index}?mode=ro&immutable=1", uri=True)
    try:
        return set(database.execute("SELECT name, size, changed FROM files")) == state
    except sqlite3.DatabaseError:  # of an older version, or damaged
        return False
    finally:
        database.close()


def hash_url(url: str) -> bytes:
    """Sixteen bytes that stand for a url."""
    return hashlib.sha256(url.encode()).digest()[:16]


def build_index(folder: Path) -> Path:
    """Index a folder that img2dataset wrote, unless an index of these very files is there.

    Returns:
        The index, which is complete as soon as it has its name.

    Raises:
        UserError: If the folder holds nothing that img2dataset writes.
    """
    index = folder / INDEX
    state = state_of(folder)
    if index.is_file() and is_of(index, state):
        return index
    tables = sorted(folder.rglob("*.parquet")) if folder.is_dir() else []
    if not tables:
        raise UserError(
            f"--downloads {folder}: no .parquet files here. Give the output folder of img2dataset, "
            "whose formats webdataset and files hold them."
        )
    unfinished = index.with_name(f".{INDEX}.{os.getpid()}.unfinished")
    try:
        database = sqlite3.connect(unfinished)
        with database:
            database.execute(
                "CREATE TABLE pictures (url BLOB PRIMARY KEY, file TEXT, start INT, length INT) "
                "WITHOUT ROWID"
            )
            database.execute("CREATE TABLE files (name TEXT, size INT, changed INT)")
            database.executemany("INSERT INTO files VALUES (?, ?, ?)", state)
            for table in tqdm(tables, desc="index of downloads", unit="shard"):
                rows = _entries(folder, table)
                database.executemany("INSERT OR IGNORE INTO pictures VALUES (?, ?, ?, ?)", rows)
        database.close()
        os.replace(unfinished, index)
    finally:
        unfinished.unlink(missing_ok=True)
    return index


def _entries(folder: Path, table: Path) -> Iterator[Entry]:
    places = dict(_places(table))
    columns = ["url", "key", "status"]
    parquet = open_parquet(table)
    missing = set(columns) - set(parquet.schema_arrow.names)
    if missing:
        raise UserError(
            f"{table} lacks the columns {sorted(missing)}; img2dataset writes them. Is --downloads "
            "its output folder?"
        )
    for batch in parquet.iter_batches(columns=columns):
        for row in batch.to_pylist():
            if row["status"] == "success" and row["key"] in places:
                path, start, length = places[row["key"]]
                yield hash_url(row["url"]), str(path.relative_to(folder)), start, length


def _places(table: Path) -> Iterator[tuple[str, tuple[Path, int, int]]]:
    """Keys of a shard's pictures, and where each stands."""
    shard, files = table.with_suffix(".tar"), table.with_suffix("")
    if shard.is_file():
        with tarfile.open(shard) as tar:
            for member in tar:
                key, ending = os.path.splitext(member.name)
                if ending in PICTURES:
                    yield key, (shard, member.offset_data, member.size)
    elif files.is_dir():
        for path in files.iterdir():
            if path.suffix in PICTURES:
                yield path.stem, (path, 0, path.stat().st_size)
