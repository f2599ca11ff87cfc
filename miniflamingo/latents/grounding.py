"""Is it looking? The loss with pictures, with others' pictures, and with parts of the road closed.

A Flamingo can lower its loss without looking: its new feed-forwards learn how captions sound. So
the loss is taken again with the cross-attention silent and the feed-forward at work, with both
silent, layer by layer, and with single latents left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from miniflamingo.batch import Batch
from miniflamingo.errors import UserError
from miniflamingo.model.flamingo import MiniFlamingo
from miniflamingo.model.gated_xattn import GatedCrossAttention


@contextmanager
def answering(modules: Iterable[nn.Module], answer: Any) -> Iterator[None]:
    """Let something else stand for what modules give; their weights are not touched.

    Args:
        modules: To change while the context lasts.
        answer: Makes of a module's output what is given instead.
    """
    hooks = [
        module.register_forward_hook(lambda _, arguments, output: answer(output))
        for module in modules
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def closed(blocks: Iterable[GatedCrossAttention], ffw: bool) -> Any:
    """Close the attention of gated blocks, as gates at zero would.

    Args:
        blocks: Which.
        ffw: Whether their feed-forwards close too.

    Returns:
        A context.
    """
    parts = [part for block in blocks for part in ([block.to_out, block.ffw][: 1 + ffw])]
    return answering(parts, torch.zeros_like)


def without_latent(model: MiniFlamingo, latent: int) -> Any:
    """Leave one of the Q tokens of every media item out.

    Args:
        model: Whose resampler gives at least two.
        latent: Which, counted from 0.

    Returns:
        A context.

    Raises:
        UserError: If the resampler has no such latent, or no other.
    """
    count = model.resampler.tokens_per_item
    if not 0 <= latent < count or count == 1:
        raise UserError(
            f"latent {latent} cannot be left out of {count}; they count from 0 and one must stay."
        )
    kept = [other for other in range(count) if other != latent]
    return answering([model.resampler], lambda output: output[:, kept])


def losses_of(model: MiniFlamingo, batch: Batch) -> Tensor:
    """Loss of each labelled token, in the precision of the language model.

    Args:
        model: In eval mode.
        batch: On the model's device.

    Returns:
        (M,) fp32.
    """
    dtype = model.language.dtype
    with torch.autocast(model.device.type, dtype, enabled=dtype != torch.float32):
        return model.token_losses(batch.input_ids, batch.position_ids, batch.media, batch.labels)


def conditions(model: MiniFlamingo, layers: bool = True) -> dict[str, Any]:
    """Contexts in which to take the loss, by name.

    Args:
        model: Whose parts they close.
        layers: Whether to close each gated layer alone too.

    Returns:
        ``attention_closed`` and ``both_closed``, and the same of each layer, counted from the
        bottom: ``attention_closed/0``.
    """
    blocks = list(model.gated_blocks())
    sets = {"": blocks} | {f"/{i}": [block] for i, block in enumerate(blocks) if layers}
    return {
        f"{name}_closed{place}": closed(some, ffw)
        for name, ffw in (("attention", False), ("both", True))
        for place, some in sets.items()
    }


@torch.no_grad()
def grounding(model: MiniFlamingo, batch: Batch, layers: bool = True) -> dict[str, Tensor]:
    """The loss of a batch under each condition.

    Args:
        model: In eval mode; left as it is.
        batch: On the model's device.
        layers: Whether to close each gated layer alone too.

    Returns:
        Condition -> (M,) loss of each labelled token: ``real``, ``swapped`` where more
        than one document has media, and those of ``conditions``.
    """
    found = {"real": losses_of(model, batch)}
    other = batch.with_others_media(model.tokens.image)
    if other is not None:
        found["swapped"] = losses_of(model, other)
    for name, condition in conditions(model, layers).items():
        with condition:
            found[name] = losses_of(model, batch)
    return found


@torch.no_grad()
def losses_without_each_latent(model: MiniFlamingo, batches: Sequence[Batch]) -> Tensor:
    """The mean loss with one latent left out, after the other.

    Args:
        model: In eval mode; left as it is.
        batches: On the model's device.

    Returns:
        (Q,).
    """
    means = []
    for latent in range(model.resampler.tokens_per_item):
        with without_latent(model, latent):
            losses = torch.cat([losses_of(model, batch) for batch in batches])
        means.append(losses.mean())
    return torch.stack(means)
