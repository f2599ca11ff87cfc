"""How likely a model finds given continuations of a prompt.

Shapes: P prompts, C continuations, B = P*C rows, L tokens, N media in the batch.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from miniflamingo.batch import IGNORE
from miniflamingo.data.collate import pad_right
from miniflamingo.data.encode import Encoded, text_ids
from miniflamingo.document import Document
from miniflamingo.generation.complete import batches_by_length
from miniflamingo.generation.reader import Reader
from miniflamingo.model.embeddings import table_of
from miniflamingo.model.loss import Labelled, token_losses


def encode_continuation(reader: Reader, text: str, prompt: Document | None = None) -> list[int]:
    """Token ids of ``text<|endofchunk|>``, which is what the model would write.

    Args:
        reader: The model that is to score them.
        text: What follows the prompt.
        prompt: Document whose last chunk the text goes on with. They are encoded as one text and
            split, because many tokenizers begin each text that they are given with a mark. None if
            the text starts a chunk.
    """
    tokenizer, tokens = reader.processor.tokenizer, reader.processor.tokens
    before = (prompt.chunks[-1].text or "") if prompt is not None else ""
    known = len(text_ids(before, tokenizer, tokens)) if before else 0
    return [*text_ids(before + text, tokenizer, tokens)[known:], tokens.end_of_chunk]


@torch.no_grad()
def log_likelihoods(
    reader: Reader,
    prompts: Sequence[Document],
    continuations: Sequence[Sequence[str]],
    batch_size: int = 32,
    blank: bool = False,
    progress: Callable[[int], object] = lambda done: None,
) -> list[list[float]]:
    """Sum the log-likelihood of each continuation's tokens, its end of chunk included.

    A prompt is read once; its continuations are read in batches that share its cache.

    Args:
        reader: The model.
        prompts: Documents whose last chunk is open.
        continuations: For each prompt the texts to score, equally many for all.
        batch_size: Rows at a time.
        blank: Whether the pictures are not to be read (``Reader.prompts``).
        progress: Called after each batch with the number of prompts in it.

    Returns:
        For each prompt the log-likelihood of each of its continuations, in nats.
    """
    encoded = [reader.encode(document) for document in prompts]
    ids = [
        [encode_continuation(reader, text, prompt) for text in texts]
        for prompt, texts in zip(prompts, continuations, strict=True)
    ]
    scores: list[list[float]] = [[] for _ in prompts]
    each = len(ids[0]) if ids else 1
    together = max(1, batch_size // each)
    for places in batches_by_length([len(one.input_ids) for one in encoded], together):
        chosen = [encoded[place] for place in places]
        with reader.autocast():
            sums = _score_batch(reader, chosen, [ids[p] for p in places], batch_size, blank)
        for place, row in zip(places, sums.tolist(), strict=True):
            scores[place] = row
        progress(len(places))
    return scores


def mean_losses(
    reader: Reader,
    prompts: Sequence[Document],
    texts: Sequence[str],
    batch_size: int = 32,
    blank: bool = False,
) -> list[float]:
    """Mean loss of each token of one text after each prompt, its end of chunk included, in nats."""
    scores = log_likelihoods(reader, prompts, [[text] for text in texts], batch_size, blank)
    lengths = [
        len(encode_continuation(reader, text, prompt))
        for prompt, text in zip(prompts, texts, strict=True)
    ]
    return [-score[0] / length for score, length in zip(scores, lengths, strict=True)]


def _score_batch(
    reader: Reader,
    encoded: Sequence[Encoded],
    continuations: Sequence[Sequence[list[int]]],
    batch_size: int,
    blank: bool,
) -> Tensor:
    """(P, C) summed log-likelihoods of P prompts' C continuations."""
    model = reader.model
    ids, mask, resampled = reader.prompts(encoded, blank)
    media = model.project_media(resampled, ids)
    cache = None
    if ids.shape[1] > 1:
        # All but the last token: that one is read with each continuation, whose first it predicts.
        cache = model.read(
            ids[:, :-1], media.at(slice(0, ids.shape[1] - 1)), mask[:, :-1], use_cache=True
        ).past_key_values
    sums = []
    width = max(1, batch_size // len(ids))
    for start in range(0, len(continuations[0]), width):
        part = [row[start : start + width] for row in continuations]
        copies = len(part[0])
        rows = [each for row in part for each in row]
        targets = pad_right(rows, IGNORE).to(ids.device)  # (B, L)
        written = targets.masked_fill(targets == IGNORE, model.tokens.end_of_chunk)
        last = ids[:, -1:].repeat_interleave(copies, 0)
        shared = copy.deepcopy(cache)  # a cache is changed by whoever reads on from it
        if shared is not None:
            shared.batch_repeat_interleave(copies)
        # All that is scored reads what the prompt's last token reads.
        read = media.at(slice(-1, None)).repeated(copies)
        hidden = model.read(
            torch.cat([last, written[:, :-1]], 1),
            read._replace(latest=read.latest.expand(-1, targets.shape[1])),
            torch.cat([mask.repeat_interleave(copies, 0), (targets != IGNORE).long()[:, :-1]], 1),
            past_key_values=shared,
            use_cache=shared is not None,
        ).last_hidden_state
        scored = targets != IGNORE
        vocabulary = len(table_of(model.get_output_embeddings()))
        rows_of_new = model.token_rows.output_rows
        labelled = Labelled(hidden[scored], rows_of_new, targets[scored], vocabulary)
        losses = torch.zeros(targets.shape, device=ids.device)
        losses[scored] = token_losses(model.project, labelled)
        sums.append(-losses.sum(1).view(len(ids), copies))
    return torch.cat(sums, 1)
