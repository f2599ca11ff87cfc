"""From the words of a caption to latents, and on to patches.

Shapes: M tokens of a completion, L of a prompt, H heads, Q latents, P = F*V patches of all frames.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from miniflamingo.batch import PixelMedia
from miniflamingo.latents.attention import entering, gated_attention, on_patches
from miniflamingo.model.flamingo import MiniFlamingo


def write_greedily(
    model: MiniFlamingo, inputs: Mapping[str, Any], max_new_tokens: int = 30
) -> Tensor:
    """Complete one prompt without sampling or beams.

    Args:
        model: In eval mode.
        inputs: Of one document, as the processor makes them, on the model's device.
        max_new_tokens: Longest completion.

    Returns:
        (M,) ids, without the token that ended them; M may be 0.
    """
    dtype = model.language.dtype
    with torch.autocast(model.device.type, dtype, enabled=dtype != torch.float32):
        completion = model.generate(
            **inputs, max_new_tokens=max_new_tokens, do_sample=False, num_beams=1
        )[0]
    assert model.generation_config is not None
    ends = torch.tensor(model.generation_config.eos_token_id, device=completion.device)
    ended = torch.isin(completion, ends).cumsum(0) > 0
    return completion[~ended]


@torch.no_grad()
def word_attention(
    model: MiniFlamingo, inputs: Mapping[str, Tensor], completion: Tensor
) -> list[Tensor]:
    """What each token of a completion was written from, at each gated layer.

    A token is written by the position before it, so that position's attention is the token's: the
    first token's is that of the prompt's last position.

    Args:
        model: In eval mode.
        inputs: ``input_ids`` (1, L) and ``pixels`` of one document, on the model's device.
        completion: (M,) ids that follow the prompt.

    Returns:
        For each gated layer (M, H, Q). Rows sum to 1, or are zero if there are no media. With
        ``attend: all_previous`` the last axis holds the latents of all media of the document.
    """
    prompt = inputs["input_ids"]
    ids = torch.cat([prompt, completion[None]], dim=1)
    with entering(model.gated_blocks()) as heard:
        media = PixelMedia(inputs["pixels"])
        model.read(ids, media, torch.ones_like(ids), use_cache=False)
    written_at = slice(prompt.shape[1] - 1, ids.shape[1] - 1)
    return [
        gated_attention(block, *each)[0, written_at]
        for block, each in zip(model.gated_blocks(), heard, strict=True)
    ]


def words_of(
    tokenizer: PreTrainedTokenizerBase, completion: Tensor
) -> tuple[list[str], list[slice]]:
    """Split a completion into words.

    Args:
        tokenizer: Of the model.
        completion: (M,) ids.

    Returns:
        The words, as white space divides them, and for each the tokens that wrote it.
    """
    ids = completion.tolist()
    # What a token adds depends on those before it (a space, half a letter): only text from the
    # beginning on can be trusted.
    so_far = [str(tokenizer.decode(ids[:end])).split() for end in range(1, len(ids) + 1)]
    words = so_far[-1] if so_far else []
    starts = [
        next(token for token, begun in enumerate(so_far) if len(begun) > word)
        for word in range(len(words))
    ]
    # A token may hold two words; then it is both's.
    ends = [*starts[1:], len(ids)]
    return words, [slice(a, max(a + 1, b)) for a, b in zip(starts, ends, strict=False)]


def average_by_word(weights: Tensor, spans: Sequence[slice]) -> Tensor:
    """(M, ...) weights of tokens -> (words, ...), the mean over the tokens of each word.

    Args:
        weights: Of tokens.
        spans: The tokens of each word.
    """
    return torch.stack([weights[span].mean(0) for span in spans]) if spans else weights[:0]


def patch_maps(words: Tensor, resampler: Tensor) -> Tensor:
    """Follow words through latents to patches: the mean of the latents' maps, weighed by a word.

    One step of many: what a latent has read in earlier layers, or of other latents, is left out.

    Args:
        words: (M, H, Q), one gated layer's.
        resampler: (H', Q, P + Q), the last resampler layer's on the same media item.

    Returns:
        (M, P). A row sums to the share that the word's latents give to patches.
    """
    return words.mean(1) @ on_patches(resampler.mean(0))
