"""What each choice of a recipe does to the memory of a step, for ``miniflamingo describe``."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jsonargparse import Namespace
from rich.table import Table

from miniflamingo.cost.flops import DocumentShape
from miniflamingo.cost.memory import activations, checkpointed, memory
from miniflamingo.cost.weight_memory import weight_memory
from miniflamingo.model.flamingo import MiniFlamingo

AUTOCAST = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
"""``trainer.precision`` -> precision of the arithmetic; all others compute as weights are kept."""


def autocast_of(recipe: Namespace) -> torch.dtype | None:
    """Precision of the arithmetic, where it is not that of the weights."""
    return AUTOCAST.get(str(recipe.trainer.precision))


def ranks_of(recipe: Namespace) -> int:
    """Over how many devices the recipe shards its weights; ``auto`` counts as one."""
    trainer = recipe.trainer
    if trainer.strategy != "sharded" or not str(trainer.devices).isdigit():
        return 1
    return max(1, int(trainer.devices) * trainer.num_nodes)


def recipe_memory(
    recipe: Namespace, model: MiniFlamingo, batch: Sequence[DocumentShape]
) -> dict[str, int]:
    """Bytes by what holds them on one device, as ``memory`` estimates them for a recipe.

    Args:
        recipe: Parsed.
        model: Its outline.
        batch: Documents of a step on one device.
    """
    again = recipe.model.checkpoint_activations
    return memory(model, batch, autocast_of(recipe), again, ranks_of(recipe))


def choices(
    recipe: Namespace,
    model: MiniFlamingo,
    batch: Sequence[DocumentShape],
    devices: int,
    outline: Callable[[Namespace], MiniFlamingo],
) -> dict[str, tuple[dict[str, int], int]]:
    """Memory of the recipe as it is, and with one setting changed at a time.

    Args:
        recipe: Parsed.
        model: Its outline.
        batch: Documents of a step on one device.
        devices: To shard over, as one of the choices.
        outline: Makes an outline of a ``model`` section.

    Returns:
        What is changed -> bytes of weights by what holds them, bytes of activations.
    """
    bits, ranks = recipe.model.language_bits, ranks_of(recipe)
    again = recipe.model.checkpoint_activations
    plain = activations(model, batch, autocast_of(recipe))
    other = checkpointed(model, batch, plain)
    kept, toggled = (sum(each.values()) for each in ((other, plain) if again else (plain, other)))
    rows = {"this recipe": (weight_memory(model, bits, ranks), kept)}
    for dtype in ("float32", "bfloat16"):
        changed = recipe.model.clone()
        changed["language_dtype"] = changed["vision.dtype"] = dtype
        outlined = outline(changed)
        read = activations(outlined, batch, autocast_of(recipe))
        read = checkpointed(outlined, batch, read) if again else read
        weights = weight_memory(outlined, bits, ranks)
        rows[f"frozen weights in {dtype}"] = weights, sum(read.values())
    for packed in (8, 4):
        rows[f"model.language_bits: {packed}"] = weight_memory(model, packed, ranks), kept
    name = f"model.checkpoint_activations: {str(not again).lower()}"
    rows[name] = weight_memory(model, bits, ranks), toggled
    name = f"trainer.strategy: sharded, {devices} devices"
    rows[name] = weight_memory(model, bits, devices), kept
    return rows


def choices_table(rows: dict[str, tuple[dict[str, int], int]]) -> Table:
    """One row a choice, in GB."""
    table = Table("choice", title="What one change would do to the memory of a device, GB")
    for column in ("frozen", "trained", "activations", "all"):
        table.add_column(column, justify="right")
    for name, (weights, kept) in rows.items():
        frozen = weights["frozen weights"] + weights.get("gathered weights", 0)
        held = sum(weights.values())
        sizes = (frozen, held - frozen, kept, held + kept)
        table.add_row(name, *(f"{size / 1e9:.2f}" for size in sizes))
    table.caption = "trained: weights, gradients and AdamW's moments; frozen: gathered weights too"
    return table
