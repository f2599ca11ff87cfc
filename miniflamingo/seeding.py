"""Generators that follow from a text, whatever it holds."""

from __future__ import annotations

import random


def seeded(text: str) -> random.Random:
    """Make a generator that is the same in every process and on every machine.

    Args:
        text: What the draws depend on. File names that are no UTF-8 reach Python with surrogates in
            them, which ``random.Random`` refuses; all other texts give the generator that it would.
    """
    return random.Random(text.encode("utf-8", "surrogatepass"))
