"""What each choice of a recipe does to the memory of a step, for ``miniflamingo describe``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jsonargparse import Namespace
from rich.table import Table

from miniflamingo.model.costs import DocumentShape
from miniflamingo.model.flamingo import MiniFlamingo
from miniflamingo.model.memory import memory

AUTOCAST = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
"""``trainer.precision`` -> precision of the arithmetic; all others compute as weights are kept."""


def recipe_memory(
    recipe: Namespace,
    model: MiniFlamingo,
    batch: Sequence[DocumentShape],
    **changed: Any,
) -> dict[str, int]:
    """Bytes by what holds them on one device, as ``memory`` estimates them for a recipe.

    Args:
        recipe: Parsed.
        model: Its outline.
        batch: Documents of a step on one device.
        **changed: Arguments of ``memory`` in the place of the recipe's own.
    """
    trainer = recipe.trainer
    settings = {
        "autocast": AUTOCAST.get(str(trainer.precision or "32-true")),
        "checkpoint_activations": recipe.model.checkpoint_activations,
        "ranks": 1,
    }
    if trainer.strategy == "sharded" and isinstance(trainer.devices, int):
        settings["ranks"] = max(1, trainer.devices * trainer.num_nodes)
    return memory(model, batch, **settings | changed)


def choices(
    recipe: Namespace,
    model: MiniFlamingo,
    batch: Sequence[DocumentShape],
    devices: int,
    outline: Callable[[Namespace], MiniFlamingo],
) -> dict[str, dict[str, int]]:
    """Memory of the recipe as it is, and with one setting changed at a time.

    Args:
        recipe: Parsed.
        model: Its outline.
        batch: Documents of a step on one device.
        devices: To shard over, as one of the choices.
        outline: Makes an outline of a ``model`` section.

    Returns:
        What is changed -> what holds memory -> bytes.
    """

    def changed(**settings: Any) -> dict[str, int]:
        other = recipe.model.clone()
        for key, value in settings.items():
            other[key.replace("__", ".")] = value
        return recipe_memory(recipe, outline(other), batch)

    again = not recipe.model.checkpoint_activations
    return {
        "this recipe": recipe_memory(recipe, model, batch),
        "frozen weights in float32": changed(language_dtype="float32", vision__dtype="float32"),
        "frozen weights in bfloat16": changed(language_dtype="bfloat16", vision__dtype="bfloat16"),
        "model.language_bits: 8": changed(language_bits=8),
        "model.language_bits: 4": changed(language_bits=4),
        f"model.checkpoint_activations: {str(again).lower()}": recipe_memory(
            recipe, model, batch, checkpoint_activations=again
        ),
        f"trainer.strategy: sharded, {devices} devices": recipe_memory(
            recipe, model, batch, ranks=devices
        ),
    }


def choices_table(held: dict[str, dict[str, int]]) -> Table:
    """One row a choice, in GB."""
    table = Table("choice", title="What one change would do to the memory of a device, GB")
    for column in ("frozen", "trained", "activations", "all"):
        table.add_column(column, justify="right")
    for name, parts in held.items():
        kept = sum(size for part, size in parts.items() if part.startswith("activations"))
        frozen = parts["frozen weights"] + parts.get("gathered weights", 0)
        everything = sum(parts.values())
        sizes = (frozen, everything - frozen - kept, kept, everything)
        table.add_row(name, *(f"{size / 1e9:.2f}" for size in sizes))
    table.caption = "trained: weights, gradients and AdamW's moments; frozen: gathered weights too"
    return table
