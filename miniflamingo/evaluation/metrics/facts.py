"""Whether a caption says what is true of its picture, where that is known."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence


def mentions(text: str, forms: Mapping[str, Sequence[str]]) -> set[str]:
    """The values that a text mentions.

    Args:
        text: A caption.
        forms: Value -> the words that mention it.
    """
    found = set(re.findall(r"\w+", text.lower()))
    return {value for value, names in forms.items() if found & set(names)}


def facts_right(
    text: str,
    facts: Mapping[str, Sequence[str]],
    vocabulary: Mapping[str, Mapping[str, Sequence[str]]],
) -> dict[str, bool]:
    """For each fact, whether a text mentions exactly the values that are true.

    Args:
        text: A caption.
        facts: Fact -> its true values, perhaps none.
        vocabulary: Fact -> value -> the words that mention it.
    """
    return {fact: mentions(text, vocabulary[fact]) == set(true) for fact, true in facts.items()}
