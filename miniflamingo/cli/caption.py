"""``miniflamingo caption``: caption pictures, perhaps after some solved examples."""

from __future__ import annotations

import argparse
import json

import torch
from transformers.utils.logging import disable_progress_bar

from miniflamingo import Chunk, Document, MiniFlamingo, MiniFlamingoProcessor
from miniflamingo.data.images import load_image
from miniflamingo.generation.complete import Decoding, complete
from miniflamingo.generation.reader import Reader
from miniflamingo.terminal import plain


def make_parser() -> argparse.ArgumentParser:
    """The options."""
    parser = argparse.ArgumentParser("miniflamingo caption", description=__doc__)
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="pictures to caption")
    parser.add_argument("--model", required=True, help="exported folder, runs/NAME/model")
    parser.add_argument(
        "--shot",
        nargs=2,
        action="append",
        default=[],
        metavar=("IMAGE", "CAPTION"),
        help="a solved example; may be given several times, shown in that order",
    )
    parser.add_argument("--beams", type=int, default=3)
    parser.add_argument("--max-new-tokens", type=int, default=30)
    parser.add_argument("--json", action="store_true", help="print one JSON object a picture")
    return parser


def main(arguments: list[str]) -> None:
    """Read all pictures first, so that a bad one is told before the model loads."""
    args = make_parser().parse_args(arguments)
    support = [Chunk(load_image(image), text) for image, text in args.shot]
    prompts = [Document([*support, Chunk(load_image(name))], name) for name in args.images]
    disable_progress_bar()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = MiniFlamingo.from_pretrained(args.model).to(device)
    processor = MiniFlamingoProcessor.from_pretrained(args.model)
    decoding = Decoding(args.max_new_tokens, args.beams)
    captions = complete(Reader(model, processor), prompts, decoding)
    for name, text in zip(args.images, captions, strict=True):
        line = json.dumps({"image": name, "caption": text}) if args.json else f"{name}: {text}"
        print(plain(line))
