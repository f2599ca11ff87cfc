"""What the commands for web pages share: tables of pages and their pictures to shards."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from data_prep.downloads import build_index
from data_prep.jobs import EachRow, Job, describe, run_job
from data_prep.pictures import Pictures
from data_prep.shards import Sample
from data_prep.tables import find_tables, split_tables, table_settings
from data_prep.workers import Ray


def write_pages(
    command: str,
    to_page: Callable[[Pictures], Callable[[str, dict[str, Any]], Sample]],
    rows: Path,
    out: Path,
    images: Path | None,
    downloads: Path | None,
    source: str,
    licence: str,
    per_shard: int = 1000,
    workers: int = 1,
    ray: Ray | None = None,
) -> None:
    """Write the shards of a table of pages.

    Args:
        command: Its name, which is also that of the layout it writes.
        to_page: Makes of the place of the pictures what makes of a row a sample, as ``EachRow``
            takes it.
        rows: Table of pages: file or folder.
        out: Folder of the shards.
        images: Folder of the pictures; that of the rows if it is not given.
        downloads: Output folder of img2dataset, where pictures are found by their url.
        source: Where the data comes from, for the manifest.
        licence: Of the data, for the manifest.
        per_shard: Pages of a shard.
        workers: Local processes; CPUs for --ray local.
        ray: auto runs on the Ray cluster of this machine, local on one started here.
    """
    tables = find_tables(rows)
    folder = images or (rows if rows.is_dir() else rows.parent)
    pictures = Pictures(folder, build_index(downloads) if downloads else None)
    settings = {
        "rows": table_settings(tables),
        "images": str(folder),
        "downloads": str(downloads),
        "per_shard": per_shard,
    }
    parts = split_tables(tables, per_shard)
    convert = EachRow(to_page(pictures))
    job = Job(command, settings, parts, convert, source, licence, {"layout": command})
    print(describe(run_job(job, out, workers, ray), out))
