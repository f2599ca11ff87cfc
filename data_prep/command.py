"""What every command of ``data_prep`` does around its one function."""

import logging
import sys
from collections.abc import Callable
from typing import Any

from jsonargparse import auto_cli

from miniflamingo.errors import UserError
from miniflamingo.terminal import masked, plain


def run_command(function: Callable[..., Any], arguments: list[str] | None = None) -> Any:
    """Make a command line of a typed function and run it.

    Options and their help come from the signature and docstring, and those behind ``**options``
    from the function that they are handed on to. A mistake of the user's ends with one line and
    exit code 2, as does a full disk.

    Args:
        function: The command.
        arguments: In place of those of this process.
    """
    logging.basicConfig(format="%(message)s")
    try:
        return auto_cli(function, args=arguments, as_positional=False)
    except (UserError, OSError) as error:
        print(plain(masked(f"{function.__name__}: {error}")), file=sys.stderr)
        sys.exit(2)
