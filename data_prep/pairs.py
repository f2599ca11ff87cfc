"""Write pairs from a table of pictures and captions.

Run ``python -m data_prep.pairs --help``.
"""

from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from data_prep.command import run_command
from data_prep.downloads import build_index
from data_prep.jobs import EachRow, Job, describe, run_job
from data_prep.pictures import Pictures
from data_prep.samples import pair_sample
from data_prep.shards import Sample
from data_prep.tables import TableRows, find_tables, split_tables, table_settings
from data_prep.workers import Ray
from miniflamingo.data.dropped import Dropped
from miniflamingo.errors import UserError

PLAIN = (str, int, float, bool)


@dataclass(frozen=True)
class ToPair:
    """Makes a pair of a table's row.

    Attributes:
        pictures: Where its pictures are.
        image: Column of the picture.
        caption: Column of the text.
    """

    pictures: Pictures
    image: str
    caption: str

    def __call__(self, key: str, row: dict[str, Any]) -> Sample:
        """Read the picture; other plain columns go into the json.

        Raises:
            Dropped: If picture or caption cannot be used.
        """
        about = {n: v for n, v in row.items() if n != self.caption and isinstance(v, PLAIN)}
        try:
            picture = self.pictures.read(row.get(self.image))
            return pair_sample(key, picture, row.get(self.caption), about)
        except Dropped as error:
            raise Dropped(error.reason, f"row {key}: {error}") from error


def check_columns(table: TableRows, columns: list[str]) -> None:
    """Make sure that a table has the columns that will be read.

    Raises:
        UserError: Naming the missing ones and those that are there.
    """
    rows = (row for row in table if isinstance(row, dict))
    for row in islice(rows, 1):
        if missing := [name for name in columns if name not in row]:
            raise UserError(
                f"{table.path} lacks the columns {missing}; it has {sorted(row)}. Name them with "
                "--image and --caption."
            )


def pairs(
    table: Path,
    out: Path,
    image: str = "image",
    caption: str = "caption",
    images: Path | None = None,
    downloads: Path | None = None,
    per_shard: int = 5000,
    source: str = "not stated",
    licence: str = "not stated",
    workers: int = 1,
    ray: Ray | None = None,
) -> None:
    """Write pairs from a CSV, TSV, JSON lines or Parquet table of pictures and captions.

    The pictures are local files, bytes in the table, or urls that img2dataset has downloaded
    (a folder that img2dataset wrote as webdataset can be trained on as it is, too).

    Args:
        table: File, or folder of such files.
        out: Folder of the shards.
        image: Column of the picture: a path, bytes, or a url.
        caption: Column of the text.
        images: Folder that paths start from; the table's own if it is not given.
        downloads: Output folder of img2dataset, where pictures of urls are found.
        per_shard: Pairs of a shard.
        source: Where the data comes from, for the manifest.
        licence: Of the data, for the manifest.
        workers: Local processes; CPUs for --ray local.
        ray: auto runs on the Ray cluster of this machine, local on one started here.
    """
    tables = find_tables(table)
    parts = split_tables(tables, per_shard)
    for part in parts[:1]:
        assert isinstance(part.rows, TableRows)
        check_columns(part.rows, [image, caption])
    folder = images or (table if table.is_dir() else table.parent)
    where = Pictures(folder, build_index(downloads) if downloads else None)
    settings = {
        "tables": table_settings(tables),
        "image": image,
        "caption": caption,
        "images": str(folder),
        "downloads": str(downloads),
        "per_shard": per_shard,
    }
    convert = EachRow(ToPair(where, image, caption))
    job = Job("pairs", settings, parts, convert, source, licence, {"layout": "pairs"})
    print(describe(run_job(job, out, workers, ray), out))


if __name__ == "__main__":
    run_command(pairs)
