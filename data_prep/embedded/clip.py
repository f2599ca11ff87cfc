"""Assemble the embedded CLIP, or train its shipped part again.

Run ``python -m data_prep.embedded.clip assemble`` or ``... train``.
"""

import argparse

from data_prep.embedded.clip_model import assemble
from data_prep.embedded.clip_training import train_and_ship


def main() -> None:
    """Assemble the shipped CLIP, or train its text tower again."""
    parser = argparse.ArgumentParser(description="Assemble or train the embedded CLIP.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("assemble", help="join the shipped part with the image tower")
    train = commands.add_parser("train", help="train the shipped part, measure it, assemble")
    train.add_argument("--seed", type=int, default=0)
    train.add_argument("--epochs", type=int, default=10)
    arguments = parser.parse_args()
    if arguments.command == "train":
        train_and_ship(seed=arguments.seed, epochs=arguments.epochs)
    print(f"CLIP  {assemble()}")


if __name__ == "__main__":
    main()
