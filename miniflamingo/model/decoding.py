"""How a MiniFlamingo decodes unless it is told otherwise."""

from __future__ import annotations

from typing import Any

from transformers import GenerationConfig

from miniflamingo.tokens import MediaTokens


def generation_defaults(base: GenerationConfig | None, tokens: MediaTokens) -> GenerationConfig:
    """Stop at the end of a chunk and never write ``<image>``, which would need a picture.

    Args:
        base: The language model's own defaults, for its end-of-text and padding tokens.
        tokens: The new tokens.
    """
    ends = base.eos_token_id if base is not None else None
    ends = ends if isinstance(ends, list) else [ends] if ends is not None else []
    padding = base.pad_token_id if base is not None else None
    return GenerationConfig(
        eos_token_id=[tokens.end_of_chunk, *ends],
        pad_token_id=tokens.end_of_chunk if padding is None else padding,
        bos_token_id=base.bos_token_id if base is not None else None,
        suppress_tokens=[tokens.image],
    )


def copies_of_prompt(kwargs: dict[str, Any], defaults: GenerationConfig) -> int:
    """How many rows of a batch decode the same prompt: beams, or sampled completions.

    Args:
        kwargs: Of ``generate``; they win over its ``generation_config``, that over ``defaults``.
        defaults: The model's own.
    """
    config = kwargs.get("generation_config") or defaults
    names = ("num_beams", "num_return_sequences")
    return max(kwargs.get(name) or getattr(config, name, None) or 1 for name in names)
