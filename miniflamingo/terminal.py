"""Text from outside on its way to a terminal: names, captions, paths, messages."""

from __future__ import annotations

import re

from rich.markup import escape

CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
"""Control codes, the newline and the tab apart, and those that turn the direction of writing."""

MASK = "***"

SECRETS = (
    re.compile(r"(\b[a-z][a-z0-9+.-]*://)[^\s/@'\"]+(?=@)", re.IGNORECASE),
    re.compile(
        r"([?&](?:[\w-]*(?:token|signature|secret|password|credential|api[_-]?key)[\w-]*"
        r"|sig|key|auth)=)[^\s&'\"]+",
        re.IGNORECASE,
    ),
    re.compile(r"(\b(?:bearer|basic)\s+)[\w.~+/=-]{8,}", re.IGNORECASE),
)
"""User and password before a host, signed or secret query parameters, headers of a command."""


def plain(text: object) -> str:
    r"""Take control codes out of a text, so that a terminal shows it and obeys nothing in it.

    >>> plain("a\x1b[2Jb")
    'a[2Jb'
    """
    return CONTROL.sub("", str(text))


def as_markup(text: object) -> str:
    """The same for what Rich prints, in which ``[...]`` would be markup."""
    return escape(plain(text))


def masked(text: str) -> str:
    """Hide passwords and tokens in urls and commands.

    Args:
        text: Of any length: a message, a whole configuration.

    >>> masked("https://me:secret@host/a.tar?X-Amz-Signature=abc&part=1")
    'https://***@host/a.tar?X-Amz-Signature=***&part=1'
    """
    for pattern in SECRETS:
        text = pattern.sub(rf"\1{MASK}", text)
    return text
