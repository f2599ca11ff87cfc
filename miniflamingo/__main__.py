"""The command table: ``miniflamingo COMMAND ...``."""

from __future__ import annotations

import sys
from importlib import import_module

from miniflamingo.errors import UserError
from miniflamingo.terminal import masked, plain

COMMANDS = {
    "fit": ("train a model from a configuration", "miniflamingo.cli.fit"),
    "validate": ("measure the validation loss of a checkpoint", "miniflamingo.cli.fit"),
    "describe": ("count what a configuration costs", "miniflamingo.cli.describe"),
    "fewshot": ("score few-shot captioning of an exported model", "miniflamingo.cli.fewshot"),
    "caption": ("caption pictures with an exported model", "miniflamingo.cli.caption"),
    "latents": ("show what the learned latents are and look at", "miniflamingo.cli.latents"),
}


def usage() -> str:
    """List the commands."""
    lines = [f"  {name:10} {text}" for name, (text, _) in COMMANDS.items()]
    return "usage: miniflamingo COMMAND [--help] ...\n\ncommands:\n" + "\n".join(lines)


def main() -> None:
    """Run one command; a mistake of the user's ends with one line and exit code 2."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0] in ("-h", "--help"):
        print(usage())
        return
    if arguments[0] not in COMMANDS:
        sys.exit(f"miniflamingo has no command {arguments[0]!r}.\n\n{usage()}")
    command = import_module(COMMANDS[arguments[0]][1])
    try:
        command.main(arguments if arguments[0] in ("fit", "validate") else arguments[1:])
    except UserError as error:
        print(plain(masked(f"miniflamingo {arguments[0]}: {error}")), file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
