"""How a MiniFlamingo decodes unless it is told otherwise."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    SuppressTokensLogitsProcessor,
)

from miniflamingo.errors import UserError
from miniflamingo.tokens import MediaTokens


def generation_defaults(base: GenerationConfig | None, tokens: MediaTokens) -> GenerationConfig:
    """Stop at the end of a chunk and never write ``<image>``, which would need a picture.

    Args:
        base: The language model's own defaults, for its end-of-text token.
        tokens: The new tokens.
    """
    ends = base.eos_token_id if base is not None else None
    ends = ends if isinstance(ends, list) else [ends] if ends is not None else []
    return GenerationConfig(
        eos_token_id=[tokens.end_of_chunk, *ends],
        # A language model's own may be beyond its table. Any token does: nothing reads it.
        pad_token_id=tokens.end_of_chunk,
        bos_token_id=base.bos_token_id if base is not None else None,
        suppress_tokens=[tokens.image],
    )


def resolved(kwargs: dict[str, Any], defaults: GenerationConfig) -> GenerationConfig:
    """Settle what ``generate`` will do, wherever it was told.

    Args:
        kwargs: What ``generate`` was called with; these win over its ``generation_config``.
        defaults: The model's own configuration, for all that neither of them says.

    Returns:
        A configuration of its own, which may be changed.
    """
    given = kwargs.get("generation_config")
    config = GenerationConfig() if given is None else copy.deepcopy(given)
    config.update(**defaults.to_dict(), defaults_only=True, allow_custom_entries=True)
    config.update(**{name: value for name, value in kwargs.items() if hasattr(config, name)})
    return config


def copies_of_prompt(config: GenerationConfig) -> int:
    """Count the rows of a batch that decode the same prompt: beams, or sampled completions.

    Args:
        config: What ``resolved`` gave.
    """
    return max(config.num_beams or 1, config.num_return_sequences or 1)


def check_decoding(
    config: GenerationConfig, input_ids: Tensor, attention_mask: Tensor | None, cache: Any
) -> None:
    """Refuse what would silently read other media than the prompt shows.

    Args:
        config: What ``resolved`` gave.
        input_ids: (B, L) ids that ``generate`` was given.
        attention_mask: Mask that came with them, or None.
        cache: ``past_key_values`` that the user gave, or None.

    Raises:
        UserError: If the prompt is to be read in pieces, or goes on from a cache without the text
            that the cache was made from.
    """
    if config.prefill_chunk_size is not None:
        raise UserError(
            f"prefill_chunk_size={config.prefill_chunk_size}: a prompt with media is read in one "
            "piece, because each token must know which media stand before it. Leave it out."
        )
    if cache is None:
        return
    length, known = input_ids.shape[1], cache.get_seq_length()
    masked = length if attention_mask is None else attention_mask.shape[1]
    if length <= known or masked > length:
        raise UserError(
            f"input_ids of {length} tokens go on from past_key_values of {known}: give the whole "
            "text with all of its media, of which only the new tokens are read. Which media a new "
            "token reads follows from the text before it."
        )


def check_room(config: GenerationConfig, length: int, positions: int | None) -> None:
    """Refuse a prompt and completions that may be longer than a learned table of positions.

    Args:
        config: What ``resolved`` gave.
        length: Tokens of the longest prompt.
        positions: Size of the table; None if there is none.

    Raises:
        UserError: If they may be.
    """
    if positions is None:
        return
    new = config.max_new_tokens or max(0, (config.max_length or 0) - length)
    if length + new > positions:
        raise UserError(
            f"a prompt of {length} tokens and up to {new} new ones do not fit the {positions} "
            "positions that the language model has learned. Show fewer or shorter examples, or "
            "lower max_new_tokens."
        )


class NeverWritten(SuppressTokensLogitsProcessor):
    """A type of its own: a user's processor takes the place of a default one of the same type."""


def never_written(token: int, processors: Sequence[LogitsProcessor]) -> LogitsProcessorList:
    """Let the user's processors run, and then make sure that a token cannot be written.

    Args:
        token: Its id.
        processors: Those that ``generate`` was given.
    """
    return LogitsProcessorList([*processors, NeverWritten([token])])


def transition_scores(
    sequences: Tensor, scores: Sequence[Tensor], beam_indices: Tensor | None, normalize: bool
) -> Tensor:
    """Look up the score of each generated token.

    transformers' own takes the width of a row of scores from the language model's vocabulary, which
    does not count the two new tokens.

    Args:
        sequences: (B, new) ids that ``generate`` returned.
        scores: For each new token (rows, X) processed scores.
        beam_indices: (B, new) row that each token was taken from, -1 after the end; None where
            each prompt has one row.
        normalize: Whether scores are log-probabilities over the vocabulary.

    Returns:
        (B, new) scores, 0 after the end.
    """
    steps = len(scores)
    if beam_indices is None:
        rows = torch.arange(len(sequences), device=sequences.device)[:, None].expand(-1, steps)
    else:
        steps = int((beam_indices >= 0).sum(1).max())
        rows = beam_indices[:, :steps]
    tokens = sequences[:, sequences.shape[1] - steps :]
    found = []
    for step in range(steps):
        row = scores[step].log_softmax(-1) if normalize else scores[step]
        found.append(row[rows[:, step].clamp_min(0), tokens[:, step]])
    return torch.stack(found, 1).masked_fill(rows < 0, 0.0)
