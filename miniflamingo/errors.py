"""The one error that a user can mend; all others are the program's and show their traceback."""

from __future__ import annotations


class UserError(ValueError):
    """What is wrong with a recipe, a file, an option or data, and what to do about it.

    Commands print it as one message and end with exit code 2.
    """
