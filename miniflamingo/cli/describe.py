"""``miniflamingo describe``: what a recipe costs, before anything is loaded or trained.

Reads configuration files alone: weights are neither needed nor fetched. Options that are not listed
here are those of ``fit``, as in ``--model.xattn.every 2`` or ``--trainer.precision bf16-mixed``.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch.cli import LightningArgumentParser
from rich.console import Console
from rich.table import Table

from miniflamingo.cli.fit import FlamingoCLI
from miniflamingo.cost.flops import UNITS, DocumentShape, Flops, step_flops
from miniflamingo.data.datamodule import InterleavedData
from miniflamingo.errors import UserError
from miniflamingo.model.flamingo import MiniFlamingo
from miniflamingo.model.parameters import count_parameters, parameter_table
from miniflamingo.recipe.checks import outline_recipe, quiet
from miniflamingo.recipe.memory_choices import choices, choices_table, recipe_memory
from miniflamingo.training.module import FlamingoModule

NOT_NEEDED = {
    "data.sources": {},
    "data.validation": {"urls": "", "batch_size": 1},
}
"""What ``fit`` requires of a recipe and no size depends on, so that a model's file is enough."""


class Recipe(FlamingoCLI):
    """Parses a recipe as ``fit`` does and builds nothing."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """As ``fit``, but a model's file need not say what it is trained on."""
        super().add_arguments_to_parser(parser)
        parser.set_defaults(NOT_NEEDED)

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Without Lightning's warning about arguments that are not the command line's."""
        self.config = parser.parse_args(args)

    def instantiate_classes(self) -> None:
        """Build nothing."""


def make_parser() -> argparse.ArgumentParser:
    """The options beside those of the recipe."""
    parser = argparse.ArgumentParser(
        "miniflamingo describe", description=__doc__, allow_abbrev=False
    )
    parser.add_argument(
        "--config",
        action="append",
        required=True,
        metavar="FILE",
        help="recipe or model file; may be given several times, later ones win",
    )
    parser.add_argument("--documents", type=int, default=4, help="documents a step (4)")
    parser.add_argument("--tokens", type=int, default=256, help="tokens of a document (256)")
    parser.add_argument("--media", type=int, default=5, help="images of a document (5)")
    parser.add_argument(
        "--labels", type=int, help="predicted tokens of a document (all but its images)"
    )
    parser.add_argument(
        "--flops", type=float, default=100e12, help="peak FLOP/s of the device (100e12)"
    )
    parser.add_argument(
        "--utilisation", type=float, default=0.4, help="fraction of the peak that is met (0.4)"
    )
    parser.add_argument(
        "--devices", type=int, default=8, help="devices to share weights out over, as a choice (8)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser


def read_recipe(files: Sequence[str], options: Sequence[str] = ()) -> Namespace:
    """Parse configuration files and options, every key checked against the code's signatures.

    Args:
        files: YAML files, later ones laid over earlier ones.
        options: As ``fit`` takes them.

    Raises:
        UserError: If a file is missing, or a key or value is not one that ``fit`` would take.
    """
    for file in files:
        if not Path(file).is_file():
            raise UserError(f"--config {file}: there is no such file.")
    arguments = [part for file in files for part in ("--config", file)]
    try:
        cli = Recipe(
            FlamingoModule,
            InterleavedData,
            run=False,
            args=[*arguments, *options],
            parser_kwargs={"allow_abbrev": False, "exit_on_error": False},
            seed_everything_default=False,
        )
    except argparse.ArgumentError as error:
        raise UserError(f"{', '.join(files)}: {error}") from error
    return cli.config


def check_shape(shape: DocumentShape, documents: int) -> None:
    """Refuse documents that cannot be.

    Raises:
        UserError: If something is negative or more than there is room for.
    """
    if documents < 1 or shape.tokens < 1:
        raise UserError("--documents and --tokens must be at least 1.")
    if not 0 <= shape.media <= shape.tokens:
        raise UserError(
            f"--media {shape.media} does not fit --tokens {shape.tokens}: an image takes one token."
        )
    if not 0 <= shape.labels <= shape.tokens:
        raise UserError(f"--labels {shape.labels} does not fit --tokens {shape.tokens}.")


def in_units(amount: float, unit: str) -> str:
    """Write an amount with three digits and a prefix: ``in_units(1.5e12, "B")`` is ``1.5 TB``."""
    for prefix in ("", "k", "M", "G", "T", "P"):
        if abs(amount) < 999.5 or prefix == "P":
            break
        amount /= 1000
    return f"{amount:.3g} {prefix}{unit}"


def flops_table(flops: dict[str, Flops], units: dict[str, int], title: str) -> Table:
    """FLOPs by part, for one image, token or label, and for a step.

    Args:
        flops: Part -> FLOPs of a step.
        units: How many images, tokens and labels a step has.
        title: Of the table.
    """
    table = Table("part", "for one", "forward", "backward", "step", "share", title=title)
    everything = sum(part.total for part in flops.values())
    for part, (forward, backward) in flops.items():
        count = max(1, units[UNITS[part]])
        table.add_row(
            part,
            UNITS[part],
            in_units(forward / count, "FLOP"),
            in_units(backward / count, "FLOP") if backward else "-",
            in_units(forward + backward, "FLOP"),
            f"{(forward + backward) / everything:.1%}",
        )
    table.add_row("all", "", "", "", in_units(everything, "FLOP"), "")
    for column in table.columns[2:]:
        column.justify = "right"
    return table


def memory_table(held: dict[str, int], title: str) -> Table:
    """Bytes by what holds them."""
    table = Table("memory", "held", title=title)
    for name, size in [*held.items(), ("all", sum(held.values()))]:
        table.add_row(name, in_units(size, "B"))
    table.columns[1].justify = "right"
    return table


def as_json(
    model: MiniFlamingo, flops: dict[str, Flops], held: dict[str, int], seconds: float
) -> dict[str, Any]:
    """What the tables say, as plain values.

    Args:
        model: Outlined.
        flops: Part -> FLOPs of a step.
        held: What -> bytes.
        seconds: Projected for a step.
    """
    return {
        "parameters": {
            part: {"all": total, "trained": trained}
            for part, (total, trained) in count_parameters(model).items()
        },
        "flops": {part: each._asdict() for part, each in flops.items()},
        "memory": held,
        "step_seconds": seconds,
    }


def main(arguments: list[str]) -> None:
    """Parse, outline, count, print."""
    args, options = make_parser().parse_known_args(arguments)
    labels = args.tokens - args.media if args.labels is None else args.labels
    shape = DocumentShape(args.tokens, args.media, labels)
    check_shape(shape, args.documents)
    if args.devices < 2:
        raise UserError(f"--devices {args.devices} must be at least 2: it is a number to share by.")
    if args.flops <= 0 or not 0 < args.utilisation <= 1:
        raise UserError("--flops must be above 0 and --utilisation above 0 and at most 1.")
    with quiet():
        recipe = read_recipe(args.config, options)
        model = outline_recipe(recipe.model)
    batch = [shape] * args.documents
    precision = str(recipe.trainer.precision or "32-true")
    flops = step_flops(model, batch)
    held = recipe_memory(recipe, model, batch)
    total = sum(part.total for part in flops.values())
    seconds = total / (args.flops * args.utilisation)
    if args.json:
        print(json.dumps(as_json(model, flops, held, seconds), indent=2))
        return
    units = {"image": shape.media, "token": shape.tokens, "label": shape.labels}
    units = {unit: args.documents * count for unit, count in units.items()}
    step = f"{args.documents} documents of {shape.tokens} tokens and {shape.media} images"
    console = Console()
    console.print(parameter_table(model))
    console.print(flops_table(flops, units, f"Arithmetic of a step: {step}"))
    console.print(memory_table(held, f"Memory of a step on one device, precision {precision}"))
    with quiet():
        others = choices(recipe, model, batch, args.devices, outline_recipe)
    console.print(choices_table(others))
    console.print(
        f"projected step: {seconds:.3g} s at {in_units(args.flops, 'FLOP/s')} "
        f"and {args.utilisation:.0%} utilisation"
    )
