"""Complete a list of prompts in batches of like length.

Shapes: B prompts, L tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from miniflamingo.document import Document
from miniflamingo.generation.reader import Prompts, Reader

TOKENS_BETWEEN_LEAVING = 6
"""Greedy completions that have ended leave the batch after every so many tokens."""


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


def write_greedily(reader: Reader, batch: Prompts, max_new_tokens: int) -> Tensor:
    """Complete prompts greedily, on and on with those alone that have not ended.

    Some completions are twice as long as others; without leaving, the short ones would be decoded
    to the end of the longest.

    Returns:
        (B, max_new_tokens) ids, end of chunk behind what was written.
    """
    model, end = reader.model, reader.processor.tokens.end_of_chunk
    ids, mask, resampled = batch
    ends = torch.tensor(model.generation_config.eos_token_id, device=ids.device)
    written = torch.full((len(ids), max_new_tokens), end, device=ids.device)
    rows = torch.arange(len(ids), device=ids.device)
    kept = {}
    for start in range(0, max_new_tokens, TOKENS_BETWEEN_LEAVING):
        out = model.generate(
            ids,
            attention_mask=mask,
            resampled=resampled,
            max_new_tokens=min(TOKENS_BETWEEN_LEAVING, max_new_tokens - start),
            num_beams=1,
            do_sample=False,
            return_dict_in_generate=True,
            **kept,
        )
        new = out.sequences
        written[rows, start : start + new.shape[1]] = new
        going = ~torch.isin(new, ends).any(1)
        if not going.any():
            break
        if resampled is not None:
            num_media = (ids == model.tokens.image).sum(1)
            resampled = resampled[going.repeat_interleave(num_media)]
        rows, ids = rows[going], torch.cat([ids, new], 1)[going]
        mask = torch.cat([mask, torch.ones_like(new)], 1)[going]
        out.past_key_values.batch_select_indices(going.nonzero().flatten())
        kept = {"past_key_values": out.past_key_values}
    return written


def write_by_beams(reader: Reader, batch: Prompts, decoding: Decoding) -> Tensor:
    """(B, new) ids of the best completions found by beam search."""
    return reader.model.generate(
        batch.input_ids,
        attention_mask=batch.attention_mask,
        resampled=batch.resampled,
        max_new_tokens=decoding.max_new_tokens,
        num_beams=decoding.beams,
        do_sample=False,
        length_penalty=decoding.length_penalty,
    )


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
    encoded = [reader.encode(document) for document in prompts]
    completions = [""] * len(prompts)
    for places in batches_by_length([len(each.input_ids) for each in encoded], batch_size):
        with reader.autocast():
            batch = reader.prompts([encoded[place] for place in places], blank)
            if decoding.beams == 1:
                ids = write_greedily(reader, batch, decoding.max_new_tokens)
            else:
                ids = write_by_beams(reader, batch, decoding)
        for place, text in zip(places, reader.processor.batch_decode(ids), strict=True):
            completions[place] = text
        progress(len(places))
    return completions
