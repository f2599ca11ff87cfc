"""Complete a list of prompts in batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from miniflamingo.data.processor import MiniFlamingoProcessor
from miniflamingo.document import Document
from miniflamingo.model.flamingo import MiniFlamingo


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


def complete(
    model: MiniFlamingo,
    processor: MiniFlamingoProcessor,
    prompts: Sequence[Document],
    decoding: Decoding,
    batch_size: int = 16,
) -> Iterator[str]:
    """Complete prompts, in the order given.

    Args:
        model: In eval mode; its language model's precision is used for the arithmetic.
        processor: Of that model.
        prompts: Documents whose last chunk is open.
        decoding: How.
        batch_size: Prompts at a time.

    Yields:
        One completion for each prompt, up to the end of its chunk.
    """
    device, dtype = model.device, model.language.dtype
    for start in range(0, len(prompts), batch_size):
        encoded = processor(prompts[start : start + batch_size])
        inputs = {name: value.to(device) for name, value in encoded.items()}
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            completions = model.generate(
                **inputs,
                max_new_tokens=decoding.max_new_tokens,
                num_beams=decoding.beams,
                length_penalty=decoding.length_penalty,
                do_sample=False,
            )
        yield from processor.batch_decode(completions)
