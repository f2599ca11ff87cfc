"""Complete a list of prompts in batches of like length."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from miniflamingo.document import Document
from miniflamingo.generation.reader import Reader


@dataclass(frozen=True)
class Decoding:
    """How to decode.

    Attributes:
        max_new_tokens: Longest completion.
        beams: 1 decodes greedily.
        length_penalty: Exponent on the length in beam search, as in transformers.
    """

    max_new_tokens: int = 30
    beams: int = 3
    length_penalty: float = 0.0


def batches_by_length(lengths: Sequence[int], batch_size: int) -> list[list[int]]:
    """Put prompts of like length together, the longest first, so that a batch holds little padding.

    Args:
        lengths: In tokens.
        batch_size: Most prompts of a batch.

    Returns:
        For each batch the places of its prompts.
    """
    order = sorted(range(len(lengths)), key=lambda place: -lengths[place])
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


@torch.no_grad()
def complete(
    reader: Reader,
    prompts: Sequence[Document],
    decoding: Decoding,
    batch_size: int = 32,
    blank: bool = False,
    progress: Callable[[int], object] = lambda done: None,
) -> list[str]:
    """Complete prompts.

    Args:
        reader: The model.
        prompts: Documents whose last chunk is open.
        decoding: How.
        batch_size: Prompts at a time.
        blank: Whether the pictures are not to be read (``Reader.prompts``).
        progress: Called after each batch with the number of prompts in it.

    Returns:
        One completion for each prompt, in the order given, up to the end of its chunk.
    """
    # transformers warns of a length penalty where there are no beams.
    beams: dict[str, Any] = (
        {"length_penalty": decoding.length_penalty} if decoding.beams > 1 else {}
    )
    encoded = [reader.encode(document) for document in prompts]
    completions = [""] * len(prompts)
    for places in batches_by_length([len(each.input_ids) for each in encoded], batch_size):
        with reader.autocast():
            batch = reader.prompts([encoded[place] for place in places], blank)
            ids = reader.model.generate(
                batch.input_ids,
                batch.media,
                attention_mask=batch.attention_mask,
                max_new_tokens=decoding.max_new_tokens,
                num_beams=decoding.beams,
                do_sample=False,
                **beams,
            )
        for place, text in zip(places, reader.processor.batch_decode(ids), strict=True):
            completions[place] = text
        progress(len(places))
    return completions
