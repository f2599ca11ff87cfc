"""What is measured: every case with its documents, pure data that both sides read.

A document is written as the lengths of its captions: ``(49, 49)`` stands for a beginning-of-text
token, a picture, 49 words, an end of chunk, a picture, 49 words, an end of chunk.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from typing import Literal

Captions = tuple[int, ...]
"""Words of each caption of a document."""

PICTURES_AS_THEY_COME = (2, 4, 1, 5, 3)
"""Every number from 1 to 5 once; any first few of them have about the mean of 3."""

CAPTION_AS_IT_COMES = (8, 32)
SHOT = (10, 14)
"""Shortest and longest caption of a support example."""


UNPACKED = "/unpacked"
"""Ends the name of a case that gives each document a row of its own, for comparison."""


@dataclass(frozen=True)
class Padding:
    """To what OpenFlamingo's own data code pads every document.

    Attributes:
        tokens: ``max_tokens`` of its ``preprocess_interleaved``.
        media: Its ``--mmc4_max_num_images``.
    """

    tokens: int
    media: int


Precision = Literal["fp32", "bf16"]


@dataclass(frozen=True)
class Case:
    """One measurement, the same work on both sides.

    Attributes:
        name: Slashes between its parts.
        kind: A training step, a generation, or a saved checkpoint.
        every: Cross-attention before every n-th layer.
        precision: ``fp32``, or ``bf16`` under autocast.
        documents: Captions of each. In a prompt an open picture follows them.
        padding: Of OpenFlamingo's interleaved data; None pads to the longest document.
        pack: Tokens of a row that our documents share; None gives each a row of its own.
        beams: Of a generation.
        train_input_rows: Ours alone; OpenFlamingo always trains its rows.
        both: Whether OpenFlamingo can run it, too.
    """

    name: str
    kind: Literal["train", "generate", "checkpoint"]
    every: int
    precision: Precision = "fp32"
    documents: tuple[Captions, ...] = ((8,),)
    padding: Padding | None = None
    pack: int | None = None
    beams: int = 1
    train_input_rows: bool = True
    both: bool = True


def even_captions(tokens: int, pictures: int) -> Captions:
    """Captions of nearly one length that fill a document.

    >>> even_captions(256, 5)
    (49, 49, 49, 49, 49)

    Args:
        tokens: Of the whole document: one at its beginning, two around each caption.
        pictures: How many.
    """
    words = tokens - 1 - 2 * pictures
    return tuple(words // pictures + (place < words % pictures) for place in range(pictures))


def drawn_captions(pictures: int, between: tuple[int, int], draw: random.Random) -> Captions:
    """Captions whose lengths are drawn evenly between two bounds, both included."""
    return tuple(draw.randint(*between) for _ in range(pictures))


def as_they_come(documents: int) -> tuple[Captions, ...]:
    """Documents of 1 to 5 pictures with captions of 8 to 32 words."""
    draw = random.Random(0)
    counts = [PICTURES_AS_THEY_COME[place % 5] for place in range(documents)]
    return tuple(drawn_captions(count, CAPTION_AS_IT_COMES, draw) for count in counts)


def pairs_as_they_come(documents: int) -> tuple[Captions, ...]:
    """Pairs with captions of 8 to 32 words."""
    draw = random.Random(0)
    return tuple(drawn_captions(1, CAPTION_AS_IT_COMES, draw) for _ in range(documents))


def few_shot(prompts: int, shots: int) -> tuple[Captions, ...]:
    """Support examples of few-shot prompts."""
    draw = random.Random(0)
    return tuple(drawn_captions(shots, SHOT, draw) for _ in range(prompts))


def train_cases() -> list[Case]:
    """Training steps: full documents and pairs, the same as they come, and growth with length."""
    cases = []
    # Documents and pairs of a step; fewer in bf16, which is slow where it is emulated.
    batches: dict[Precision, tuple[int, int]] = {"fp32": (4, 16), "bf16": (2, 4)}
    for every in (1, 4):
        for precision, (many, pairs) in batches.items():
            workloads = {
                "interleaved": ((even_captions(256, 5),) * many, Padding(256, 5), None),
                "pairs": ((even_captions(32, 1),) * pairs, None, None),
                "as-they-come": (as_they_come(many), Padding(256, 5), 256),
                "pairs-as-they-come": (pairs_as_they_come(pairs), None, 256),
            }
            for workload, (documents, padding, pack) in workloads.items():
                name = f"train/{workload}/every-{every}/{precision}"
                case = Case(name, "train", every, precision, documents, padding, pack)
                cases.append(case)
                if pack is not None and precision == "fp32":
                    apart = replace(case, name=name + UNPACKED, pack=None, both=False)
                    cases.append(apart)
        for tokens in (128, 512):
            cases.append(
                Case(
                    f"train/length-{tokens}/every-{every}/fp32",
                    "train",
                    every,
                    documents=(even_captions(tokens, 5),) * 2,
                    padding=Padding(tokens, 5),
                )
            )
        cases.append(
            Case(
                f"train/interleaved/every-{every}/fp32/frozen-rows",
                "train",
                every,
                documents=(even_captions(256, 5),) * 4,
                train_input_rows=False,
                both=False,
            )
        )
    return cases


def generate_cases() -> list[Case]:
    """The whole grid of generations."""
    return [
        Case(
            f"generate/{shots}-shots/beam-{beams}/batch-{batch}/every-{every}/{precision}",
            "generate",
            every,
            precision,
            few_shot(batch, shots),
            beams=beams,
        )
        for shots in (4, 8, 32)
        for beams in (1, 3)
        for batch in (1, 4)
        for every in (1, 4)
        for precision in ("fp32", "bf16")
    ]


def checkpoint_cases() -> list[Case]:
    """Saved checkpoints."""
    return [Case(f"checkpoint/every-{every}", "checkpoint", every) for every in (1, 4)]


CASES = {case.name: case for case in [*checkpoint_cases(), *train_cases(), *generate_cases()]}

STANDARD = (
    "checkpoint/*",
    "train/interleaved/*/fp32",
    "train/interleaved/every-4/fp32/frozen-rows",
    "train/pairs/*/fp32",
    "train/as-they-come/*/fp32",
    "train/pairs-as-they-come/every-1/fp32",
    "train/length-*/every-1/fp32",
    "train/as-they-come/every-1/bf16",
    "train/pairs/every-1/bf16",
    "generate/*-shots/beam-1/batch-1/every-1/fp32",
    "generate/32-shots/beam-3/batch-1/every-1/fp32",
    "generate/4-shots/beam-1/batch-4/every-1/fp32",
    "generate/32-shots/beam-1/batch-1/every-4/fp32",
)
"""What fits into half an hour on two cores without bf16; ``--cases`` takes any of the grid."""

QUICK = (
    "checkpoint/every-4",
    "train/pairs-as-they-come/every-4/fp32",
    "generate/4-shots/beam-1/batch-1/every-4/fp32",
)


def choose(patterns: tuple[str, ...]) -> list[Case]:
    """Cases whose names match one of the patterns, in the order of ``CASES``.

    Raises:
        ValueError: If a pattern matches nothing.
    """
    for pattern in patterns:
        if not any(fnmatch(name, pattern) for name in CASES):
            raise ValueError(f"no case matches {pattern!r}; there are:\n  " + "\n  ".join(CASES))
    return [
        case for name, case in CASES.items() if any(fnmatch(name, pattern) for pattern in patterns)
    ]
