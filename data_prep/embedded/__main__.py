"""Prepare everything that the embedded default needs: data, language model and CLIP.

Run ``python -m data_prep.embedded``. What is there already is left alone.
"""

import argparse
from dataclasses import fields
from pathlib import Path

from data_prep.embedded.shards import WorldArguments, write_world
from data_prep.wheels import DOWNLOADS, OPENMOJI, fetch

OUT = Path("data/embedded")


def parse_arguments(argv: list[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description="Prepare everything that the embedded default needs."
    )
    parser.add_argument("--out", type=Path, default=OUT, help="where the shards go")
    for field in fields(WorldArguments):
        parser.add_argument(f"--{field.name}", type=int, default=field.default)
    parser.add_argument("--data-only", action="store_true", help="write the shards, no models")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Prepare what is missing and say where everything is."""
    arguments = parse_arguments(argv)
    world = WorldArguments(**{f.name: getattr(arguments, f.name) for f in fields(WorldArguments)})
    manifest = write_world(arguments.out, world, fetch(OPENMOJI, DOWNLOADS))
    print(f"data            {manifest.parent}")
    if arguments.data_only:
        return
    # Imported here: these load for seconds, and the shards need none of them.
    from data_prep.embedded.clip_model import prepare_clip
    from data_prep.embedded.language import prepare_language_model

    print(f"language model  {prepare_language_model()}")
    print(f"CLIP            {prepare_clip()}")


if __name__ == "__main__":
    main()
