"""Text from outside on its way to a terminal: names, captions, paths, messages."""

from __future__ import annotations

import re

from rich.markup import escape

CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""Control codes, the newline and the tab apart, and those that turn the direction of writing."""


def plain(text: object) -> str:
    r"""Take control codes out of a text, so that a terminal shows it and obeys nothing in it.

    >>> plain("a\x1b[2Jb")
    'a[2Jb'
    """
    return CONTROL.sub("", str(text))


def as_markup(text: object) -> str:
    """The same for what Rich prints, in which ``[...]`` would be markup."""
    return escape(plain(text))
