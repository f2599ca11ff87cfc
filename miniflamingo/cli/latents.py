"""``miniflamingo latents``: what the learned latents are, and what they look at."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

import torch
from rich.console import Console
from transformers.utils.logging import disable_progress_bar

from miniflamingo import MiniFlamingo, MiniFlamingoProcessor
from miniflamingo.cli import ablate
from miniflamingo.cli import latents_measure as measure
from miniflamingo.data.images import load_image
from miniflamingo.errors import UserError
from miniflamingo.latents import as_numbers, draw, look_at, prove, report
from miniflamingo.terminal import plain


def make_parser() -> argparse.ArgumentParser:
    """The options."""
    parser = argparse.ArgumentParser("miniflamingo latents", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    proves = "show that the latents are parameters, the same for two pictures"
    proving = commands.add_parser("prove", help=proves, description=proves)
    proving.add_argument("image_a", metavar="IMAGE_A")
    proving.add_argument("image_b", metavar="IMAGE_B")
    proving.add_argument("--caption", help="of IMAGE_A; what the model itself says of it if left")
    proving.add_argument("--json", action="store_true", help="print one JSON object")
    shows = "draw what each latent, and each word of a caption, looks at"
    showing = commands.add_parser("show", help=shows, description=shows)
    showing.add_argument("images", nargs="+", metavar="IMAGE")
    showing.add_argument("--out", type=Path, required=True, help="folder for the pictures")
    ablates = "train short runs that differ in the latents alone, and compare them"
    ablating = commands.add_parser("ablate", help=ablates, description=ablates)
    ablate.add_options(ablating)
    histories = "draw how the latents of a training run came about"
    history = commands.add_parser("history", help=histories, description=histories)
    history.add_argument("--run", type=Path, required=True, help="folder of the run, runs/NAME")
    history.add_argument("--out", type=Path, help="folder for the pictures; RUN/latents if left")
    clusters = "hold the latents' grouping of patches against k-means"
    clustering = commands.add_parser("clusters", help=clusters, description=clusters)
    clustering.add_argument("--pictures", type=int, default=100, help="how many, at most")
    groundings = "the loss with parts of the road closed: is the model looking?"
    grounding = commands.add_parser("grounding", help=groundings, description=groundings)
    grounding.add_argument("--documents", type=int, default=16, help="how many, at most")
    for command in (clustering, grounding):
        command.add_argument("--data", nargs="+", required=True, help="held-out shards")
        command.add_argument("--out", type=Path, required=True, help="folder for the results")
    for command in (proving, showing, clustering, grounding):
        command.add_argument("--model", required=True, help="exported folder, runs/NAME/model")
    return parser


def load(folder: str) -> tuple[MiniFlamingo, MiniFlamingoProcessor]:
    """Load an exported model, to a GPU if there is one.

    Raises:
        UserError: If the folder is no export.
    """
    disable_progress_bar()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = MiniFlamingo.from_pretrained(folder).to(device)
    return model, MiniFlamingoProcessor.from_pretrained(folder)


def run_prove(args: argparse.Namespace) -> None:
    """Prove and print."""
    pictures = [load_image(name) for name in (args.image_a, args.image_b)]
    proof = prove(*load(args.model), *pictures, caption=args.caption)
    if args.json:
        print(json.dumps({"images": [args.image_a, args.image_b], **asdict(proof)}, indent=2))
        return
    console = Console()
    for table in (
        report.latents_table(proof),
        report.differences_table(proof),
        report.gradients_table(proof),
        report.norms_table(proof),
    ):
        console.print(table)
    for sentence in report.statements(proof):
        console.print(f"- {sentence}", markup=False, highlight=False)


def run_show(args: argparse.Namespace) -> None:
    """Look at all pictures, draw, write the numbers, and say where everything is."""
    pictures = [load_image(name) for name in args.images]
    if args.out.exists() and not args.out.is_dir():
        raise UserError(f"--out {args.out} is a file; give a folder to write pictures to.")
    model, processor = load(args.model)
    args.out.mkdir(parents=True, exist_ok=True)
    console = Console()
    numbers = []
    for index, (name, picture) in enumerate(zip(args.images, pictures, strict=True)):
        look = look_at(model, processor, picture)
        files = draw(look, args.out, f"{index}_{Path(name).stem}")
        names = [file.name for file in files]
        numbers.append({"image": name, "files": names, **as_numbers(look)})
        console.print(report.look_table(look, name))
        for file in files:
            print(plain(f"  {file}"))
        if not look.words:
            print("  (the model says nothing of this picture, so there is no sheet of words)")
    (args.out / "latents.json").write_text(json.dumps({"images": numbers}) + "\n")
    print(plain(f"  {args.out / 'latents.json'}"))


def main(arguments: list[str]) -> None:
    """Read all pictures first, so that a bad one is told before the model loads."""
    args = make_parser().parse_args(arguments)
    run = {
        "prove": run_prove,
        "show": run_show,
        "history": measure.run_history,
        "clusters": lambda args: measure.run_clusters(args, *load(args.model)),
        "grounding": lambda args: measure.run_grounding(args, *load(args.model)),
        "ablate": ablate.run,
    }
    run[args.command](args)
