"""Look at every shard of what a command reads, in as many processes as there are workers."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Protocol, Self, TypeVar

from tqdm import tqdm

from data_prep.recipes import Reading, reading_of
from data_prep.workers import Ray, run_parts
from miniflamingo.data.shards import find_shards
from miniflamingo.data.source import Layout


class Figures(Protocol):
    """What is found out about some shards, nothing to begin with."""

    def add(self, other: Self) -> None:
        """Take in what was found out about others."""
        ...


Found = TypeVar("Found", bound=Figures)


def look_at_every_shard(
    title: str,
    look: Callable[[Reading, tuple[str, str]], tuple[str, Found]],
    nothing: Callable[[], Found],
    recipe: Path | None = None,
    source: str | None = None,
    urls: str | None = None,
    layout: Layout = "auto",
    language: str | None = None,
    workers: int = 1,
    ray: Ray | None = None,
) -> dict[str, Found]:
    """Apply a function to every shard of every source, with a progress bar.

    Args:
        title: Of the bar.
        look: Takes how its source is read, and the source's name with the shard's url; gives the
            name and what it found. Picklable.
        nothing: Makes the figures of no shard.
        recipe: A YAML that miniflamingo fit takes; all its sources are read.
        source: Only this one of them, or validation.
        urls: Shards, instead of a recipe: paths, globs, brace ranges or urls.
        layout: Of urls.
        language: Folder or hub name of the language model whose tokens are counted; with urls.
        workers: Local processes; CPUs for --ray local.
        ray: auto runs on the Ray cluster of this machine, local on one started here.

    Returns:
        By name of the source.

    Raises:
        UserError: If it is not said what to read, or there is no such thing.
    """
    reading = reading_of(recipe, source, urls, layout, language)
    shards = [(n, url) for n, each in reading.sources.items() for url in find_shards(each.urls)]
    figures = {name: nothing() for name in reading.sources}
    parts = run_parts(partial(look, reading), shards, workers, ray)
    for name, found in tqdm(parts, title, len(shards), unit="shard"):
        figures[name].add(found)
    return figures
