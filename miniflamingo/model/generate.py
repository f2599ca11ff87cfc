"""Writing text: transformers' own ``generate``, with media and prompts read once.

Shapes: B prompts, L tokens, N media in the batch, F frames, C channels, H x W pixels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import GenerationConfig, GenerationMixin, PreTrainedModel

from miniflamingo.batch import Media, ProjectedMedia
from miniflamingo.model.decoding import (
    check_decoding,
    check_room,
    copies_of_prompt,
    never_written,
    resolved,
    transition_scores,
)
from miniflamingo.model.inputs import media_of
from miniflamingo.model.language import learned_positions
from miniflamingo.model.media_mask import latest_media
from miniflamingo.tokens import MediaTokens


class MediaGenerationMixin(GenerationMixin):
    """What ``GenerationMixin`` needs to know of a model that reads media."""

    if TYPE_CHECKING:  # what the model brings
        language: PreTrainedModel
        tokens: MediaTokens
        generation_config: GenerationConfig

        def project_media(self, media: Media | None, input_ids: Tensor) -> ProjectedMedia:
            """As ``MiniFlamingo.project_media``."""
            ...

        def read(self, input_ids: Tensor, media: Media | None, *args: Any, **kwargs: Any) -> Any:
            """As ``MiniFlamingo.read``."""
            ...

    @torch.no_grad()
    def generate(  # type: ignore[override]  # documents, not encoder inputs
        self,
        input_ids: Tensor,
        media: Media | None = None,
        *,
        pixels: Tensor | None = None,
        attention_mask: Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        """Complete prompts: ``GenerationMixin.generate``, with media and prompts read once.

        Args:
            input_ids: (B, L), padded on the left.
            media: In any stage, one item for each ``<image>`` token in reading order.
            pixels: (N, F, C, H, W), short for ``media=PixelMedia(pixels)``.
            attention_mask: (B, L), 0 at padding.
            **kwargs: Everything else that transformers' ``generate`` takes.

        Returns:
            As transformers' ``generate``, but the completions alone: (B, new) ids, or an output
            object whose ``sequences`` are.

        Raises:
            UserError: If media and ``<image>`` tokens do not match, media are unusable, or an
                option cannot be followed.
        """
        settings = resolved(kwargs, self.generation_config)
        check_decoding(settings, input_ids, attention_mask, kwargs.get("past_key_values"))
        length = input_ids.shape[1]
        check_room(settings, length, learned_positions(self.language))
        if kwargs.get("logits_processor"):
            processors = never_written(self.tokens.image, kwargs["logits_processor"])
            kwargs["logits_processor"] = processors
        projected = self.project_media(media_of(media, pixels), input_ids)
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        copies = copies_of_prompt(settings)
        dynamic = settings.use_cache is not False and settings.cache_implementation is None
        if copies > 1 and length > 1 and dynamic:
            # transformers repeats prompts before it reads them; all copies have the same cache.
            prompt, mask = (each[:, :-1] for each in (input_ids, attention_mask))
            known = projected.at(slice(0, length - 1))
            cache = self.read(prompt, known, mask, use_cache=True).past_key_values
            cache.batch_repeat_interleave(copies)
            kwargs["past_key_values"] = cache
        out = super().generate(  # type: ignore[misc]  # a protocol that no model's types fulfil
            input_ids, attention_mask=attention_mask, media=projected.repeated(copies), **kwargs
        )
        if isinstance(out, Tensor):
            return out[:, length:]
        out.sequences = out.sequences[:, length:]
        return out

    def prepare_inputs_for_generation(  # type: ignore[override]
        self,
        input_ids: Tensor,
        *,
        media: ProjectedMedia,
        past_key_values: Any = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Let each new token read the latest media item of its whole prompt, cached or not.

        ``past_key_values`` is named because transformers looks for what may be passed here.
        """
        inputs = super().prepare_inputs_for_generation(  # type: ignore[misc]  # as in generate
            input_ids, past_key_values=past_key_values, **kwargs
        )
        latest = latest_media(input_ids == self.tokens.image)
        now = latest[:, -inputs["input_ids"].shape[1] :]
        return {**inputs, "media": media._replace(latest=now)}

    def compute_transition_scores(  # type: ignore[override]  # never an encoder's
        self,
        sequences: Tensor,
        scores: tuple[Tensor, ...],
        beam_indices: Tensor | None = None,
        normalize_logits: bool = False,
    ) -> Tensor:
        """As transformers' own, over the vocabulary with the new tokens."""
        return transition_scores(sequences, scores, beam_indices, normalize_logits)
