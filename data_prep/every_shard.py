"""Look at every shard of what a command reads, in as many processes as there are workers."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import TypeVar

from tqdm import tqdm

from data_prep.recipes import Reading
from data_prep.workers import Ray, run_parts
from miniflamingo.data.shards import find_shards

Result = TypeVar("Result")


def look_at_every_shard(
    look: Callable[[Reading, tuple[str, str]], tuple[str, Result]],
    reading: Reading,
    title: str,
    workers: int,
    ray: Ray | None,
) -> Iterable[tuple[str, Result]]:
    """Apply a function to every shard of every source, with a progress bar.

    Args:
        look: Takes how its source is read, and the source's name with the shard's url; gives the
            name and a result. Picklable.
        reading: The sources.
        title: Of the bar.
        workers: As in ``run_parts``.
        ray: As in ``run_parts``.

    Returns:
        Source's name and result for each shard, as they come.
    """
    shards = [(n, url) for n, each in reading.sources.items() for url in find_shards(each.urls)]
    found = run_parts(partial(look, reading), shards, workers, ray)
    return tqdm(found, title, len(shards), unit="shard")
