"""A task's YAML names a layout and gives its function the arguments."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from miniflamingo.errors import UserError
from miniflamingo.evaluation.example import Example
from miniflamingo.evaluation.layouts.captions import coco_captions, karpathy, textcaps
from miniflamingo.evaluation.layouts.classes import hateful_memes, image_folder
from miniflamingo.evaluation.layouts.own import folder, shards, table
from miniflamingo.evaluation.layouts.questions import textvqa, vizwiz, vqa

LAYOUTS: dict[str, Callable[..., list[Example]]] = {
    read.__name__: read
    for read in (
        karpathy,
        coco_captions,
        textcaps,
        textvqa,
        vqa,
        vizwiz,
        hateful_memes,
        image_folder,
        folder,
        table,
        shards,
    )
}


def check_source(source: Mapping[str, Any]) -> None:
    """A source names a layout and gives exactly its arguments.

    Raises:
        UserError: Naming the layouts, or the arguments that are unknown or missing.
    """
    name = source.get("layout")
    if name not in LAYOUTS:
        raise UserError(f"layout: {name!r} is unknown; choose one of {', '.join(LAYOUTS)}.")
    parameters = inspect.signature(LAYOUTS[name]).parameters
    given = source.keys() - {"layout"}
    unknown = sorted(given - parameters.keys())
    empty = inspect.Parameter.empty
    missing = [n for n, each in parameters.items() if each.default is empty and n not in given]
    if unknown or missing:
        raise UserError(
            f"layout {name}: unknown fields {unknown}, missing fields {missing}; it takes "
            f"{list(parameters)}."
        )


def read_source(source: Mapping[str, Any]) -> list[Example]:
    """Read the examples of a source, each id once.

    Args:
        source: As ``check_source`` accepts it.

    Raises:
        UserError: If files are missing or no such layout, an example is unusable, or an id is
            there twice.
    """
    examples = LAYOUTS[source["layout"]](**{k: v for k, v in source.items() if k != "layout"})
    seen: set[str] = set()
    for each in _all(examples):
        if each.key in seen:
            raise UserError(
                f"{each.file}: the id {each.key!r} is there twice, so a query would be scored "
                "twice. Take one of the two out."
            )
        seen.add(each.key)
    return examples


def _all(examples: list[Example]) -> Iterator[Example]:
    for each in examples:
        yield each
        yield from each.support
