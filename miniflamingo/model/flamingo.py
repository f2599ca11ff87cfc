"""MiniFlamingo: the whole model.

Shapes: B documents, L tokens, N media in the batch, F frames, T media slots of a document,
Q latents, D language width, X vocabulary.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from miniflamingo.batch import (
    IGNORE,
    Media,
    PatchMedia,
    ProjectedMedia,
    ResampledMedia,
    StoredMedia,
    count_media,
)
from miniflamingo.model import export
from miniflamingo.model.config import MiniFlamingoConfig
from miniflamingo.model.decoding import generation_defaults
from miniflamingo.model.embeddings import TokenRows, table_of
from miniflamingo.model.fingerprint import tower_settings
from miniflamingo.model.gated_xattn import AttendedMedia, GatedCrossAttention, MediaProjection
from miniflamingo.model.generate import MediaGenerationMixin
from miniflamingo.model.inputs import check_media_count, media_of
from miniflamingo.model.language import (
    insert_gated_layers,
    load_language,
    packed_mask,
    scale_logits,
)
from miniflamingo.model.loss import Labelled, summed_loss, token_losses
from miniflamingo.model.media import encoded, one_blank, resampled
from miniflamingo.model.media_mask import READINGS, first_media, latest_media, media_slots
from miniflamingo.model.resamplers import build_resampler
from miniflamingo.model.vision import FrozenVision, load_vision
from miniflamingo.tokens import MediaTokens


class MiniFlamingo(MediaGenerationMixin, PreTrainedModel):
    """A frozen language model that reads pictures through gated cross-attention.

    Source: Flamingo, arXiv:2204.14198, section 2.
    """

    config: MiniFlamingoConfig  # type: ignore[assignment]  # narrower than the base class says
    config_class = MiniFlamingoConfig
    main_input_name = "input_ids"
    _supports_sdpa = True
    accepts_loss_kwargs = False  # its loss is a batch's mean, whatever else the batch is part of

    if TYPE_CHECKING:  # the base class's decorator hides the signature

        def to(self, *args: Any, **kwargs: Any) -> Self:  # type: ignore[override]
            """As ``torch.nn.Module.to``."""
            ...

    def __init__(
        self, config: MiniFlamingoConfig, language: PreTrainedModel, vision: FrozenVision
    ) -> None:
        """Freeze two pretrained models and join them by new layers.

        Args:
            config: Of the whole.
            language: Causal language model; gated layers are put into it in place.
            vision: Image encoder.

        Raises:
            UserError: If the language model cannot take media.
        """
        super().__init__(config)
        xattn = config.xattn
        language.requires_grad_(False)
        self.reading = READINGS[xattn.attend]
        self.vision = vision
        self.resampler = build_resampler(config.resampler, vision.width())
        num_gated = insert_gated_layers(language, xattn)
        self.language = language
        self.media_projection = MediaProjection(self.resampler.width, num_gated, xattn)
        self.tokens = MediaTokens(config.image_token_id, config.end_of_chunk_token_id)
        self.token_rows = TokenRows(table_of(language.get_input_embeddings()).shape[1], self.tokens)
        self.token_rows.input_rows.requires_grad_(config.train_input_rows)
        self.generation_config = generation_defaults(language.generation_config, self.tokens)
        self.train(self.training)

    @classmethod
    def build(cls, config: MiniFlamingoConfig, dtype: str | torch.dtype = "auto") -> MiniFlamingo:
        """Load both frozen parts by the names in the configuration and add fresh new layers.

        Args:
            config: ``language`` and ``vision`` name the frozen parts.
            dtype: Precision of the frozen language model.

        Raises:
            UserError: If a frozen part cannot be found or used.
        """
        language = load_language(config.language, dtype, config.language_bits)
        config.vision_tower = tower_settings(config.vision)
        config.text_config = language.config  # one object: both are told of another kernel
        model = cls(config, language, load_vision(config.vision))
        end_token = language.config.eos_token_id
        model.token_rows.start_from(
            table_of(language.get_input_embeddings()),
            table_of(language.get_output_embeddings()),
            end_token[0] if isinstance(end_token, list) else end_token,
        )
        # gemma3's table scales what is looked up in it; rows are used as they are.
        scale = getattr(language.get_input_embeddings(), "embed_scale", 1.0)
        with torch.no_grad():
            model.token_rows.input_rows.mul_(scale)
        if config.fingerprints is None:  # now, while every process has all weights
            config.fingerprints = export.fingerprints(model)
        return model

    @classmethod
    def from_pretrained(  # type: ignore[override]  # frozen parts come from where the config says
        cls, folder: str | Path, dtype: str | torch.dtype = "auto"
    ) -> MiniFlamingo:
        """Load an exported folder and the frozen parts that it names, ready for generation.

        Args:
            folder: As ``save_pretrained`` wrote it.
            dtype: Precision of the frozen language model; ``auto`` as it was saved.

        Raises:
            UserError: If the folder is no export, a weight is missing or unexpected, or a frozen
                part is not the one that the model was trained with.
        """
        trained_with = export.read_config(folder)
        model = cls.build(copy.deepcopy(trained_with), dtype)
        export.load_own_weights(model, Path(folder) / export.WEIGHTS_FILE)
        export.check_frozen_parts(model, trained_with, folder)
        return model.eval()

    def save_pretrained(  # type: ignore[override]
        self, folder: str | Path, is_main_process: bool = True
    ) -> None:
        """Write configuration, own weights and card; frozen weights are named, not copied.

        Args:
            folder: Made if missing; its files are replaced.
            is_main_process: Whether this process writes. All processes of distributed training
                must call this: where weights are sharded they gather them.
        """
        export.save(self, folder, is_main_process)

    def train(self, mode: bool = True) -> MiniFlamingo:
        """Set the new layers' mode; the frozen parts stay in eval mode, without dropout."""
        super().train(mode)
        self.language.eval()
        return self

    def gated_blocks(self) -> Iterator[GatedCrossAttention]:
        """The gated blocks from the bottom up."""
        return (m for m in self.language.modules() if isinstance(m, GatedCrossAttention))

    def get_input_embeddings(self) -> nn.Module:
        """The frozen table; the two new tokens have rows of their own beside it."""
        return self.language.get_input_embeddings()

    def get_output_embeddings(self) -> nn.Module:
        """The frozen head; the two new tokens have rows of their own beside it."""
        head = self.language.get_output_embeddings()
        assert head is not None
        return head

    def encode(self, media: StoredMedia) -> PatchMedia:
        """Make patches of pixels; patches stay as they are. Raises as ``project_media``."""
        return encoded(media, self.vision, self.resampler.patch_width)

    def resample(self, media: StoredMedia | ResampledMedia) -> ResampledMedia:
        """Make Q tokens of each item; tokens stay as they are. Raises as ``project_media``."""
        return resampled(media, self.vision, self.resampler)

    def project_media(self, media: Media | None, input_ids: Tensor) -> ProjectedMedia:
        """Do what is left to do until gated layers can read media, once for a prompt or a step.

        Args:
            media: In any stage, one item for each ``<image>`` token in reading order. Text alone
                gets a black picture, or patches or tokens of zeros, that no token reads: so all
                ranks of a training run use the same weights.
            input_ids: (B, L), whose ``<image>`` tokens the media stand behind.

        Raises:
            UserError: If media and ``<image>`` tokens do not match, or media are unusable.
        """
        check_media_count(input_ids, media, self.tokens.image)
        if isinstance(media, ProjectedMedia):
            return media
        parts = self.vision, self.resampler
        some = media if media is not None and count_media(media) else one_blank(media, *parts)
        keys_values = self.media_projection(resampled(some, *parts).values)
        is_media = input_ids == self.tokens.image
        return ProjectedMedia(keys_values, media_slots(is_media), latest_media(is_media))

    def read(
        self,
        input_ids: Tensor,
        media: Media | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        **lm_kwargs: Any,
    ) -> Any:
        """Run text and media through the fused layers; arguments as in ``forward``.

        Returns:
            The language model's own output object, with last hidden states (B, L, D) and cache.
        """
        embeds = self.token_rows.embed(input_ids, self.get_input_embeddings())
        first = None
        if isinstance(media, ProjectedMedia):
            projected = media
        else:
            projected = self.project_media(media, input_ids)
            if position_ids is not None and attention_mask is None:
                first = first_media(input_ids == self.tokens.image, position_ids)
                attention_mask = packed_mask(self.language, embeds, position_ids)
        if position_ids is None and attention_mask is not None:
            position_ids = (attention_mask.long().cumsum(-1) - 1).clamp_min(0)
            position_ids = position_ids[:, -input_ids.shape[1] :]
        reading = self.reading(projected.slots, projected.latest, count_media(projected), first)
        return self.language.base_model(
            inputs_embeds=embeds,
            attention_mask=attention_mask,
            position_ids=position_ids,
            media=AttendedMedia(projected.keys_values, reading),
            **lm_kwargs,
        )

    def project(self, hidden: Tensor, rows: Tensor) -> Tensor:
        """(..., D) last hidden states and (2, D) rows of the new tokens -> (..., X) logits."""
        known = self.get_output_embeddings()(hidden)
        new = (hidden.to(rows.dtype) @ rows.T).to(known.dtype)
        # Scaled before they are put together: a cap would make a filler of minus infinity likely.
        known, new = (scale_logits(part, self.language.config) for part in (known, new))
        return self.token_rows.place(known, new)

    def forward(
        self,
        input_ids: Tensor,
        media: Media | None = None,
        *,
        pixels: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        labels: Tensor | None = None,
        logits_to_keep: int = 0,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast | tuple[Any, ...]:
        """Predict the next token at each position.

        Args:
            input_ids: (B, L).
            media: In any stage, which says what is left to do; one item for each ``<image>`` token
                in reading order.
            pixels: (N, F, C, H, W), short for ``media=PixelMedia(pixels)``.
            attention_mask: (B, past + L), 0 at padding, left or right.
            position_ids: (B, L); counted from the attention mask if None. Without an attention mask
                each 0 starts a document of its own, which reads nothing of those before it in its
                row, neither text nor media; so rows may be packed, and padding at their end be one
                more document.
            labels: (B, L). With labels the vocabulary projection runs at labelled positions only,
                and the output holds the mean loss over them (0 if there are none) and no logits.
            logits_to_keep: Only the last so many positions get logits; 0 for all.
            **kwargs: Passed to the language model, ``past_key_values`` and ``use_cache`` among
                them; ``return_dict=False`` gives a tuple instead of an object with names.

        Raises:
            UserError: If media and ``<image>`` tokens do not match, or media are unusable.
        """
        given = media_of(media, pixels)
        as_object = kwargs.pop("return_dict", True)
        if labels is not None:
            read = self.read_labelled(input_ids, position_ids, given, labels, attention_mask)
            loss = summed_loss(self.project, read)
            output = CausalLMOutputWithPast(loss=loss / max(1, len(read.labels)))
            return output if as_object else output.to_tuple()
        kwargs.setdefault("use_cache", False)
        out = self.read(input_ids, given, attention_mask, position_ids, **kwargs)
        hidden = out.last_hidden_state
        kept = hidden[:, -logits_to_keep:] if logits_to_keep else hidden
        output = CausalLMOutputWithPast(
            logits=self.project(kept, self.token_rows.output_rows),
            past_key_values=out.past_key_values,
            hidden_states=out.hidden_states,
            attentions=out.attentions,
        )
        return output if as_object else output.to_tuple()

    def token_losses(
        self, input_ids: Tensor, position_ids: Tensor, media: Media | None, labels: Tensor
    ) -> Tensor:
        """Loss of each labelled token, row after row, in fp32 and without a graph.

        Arguments as in ``forward``.
        """
        with torch.no_grad():
            read = self.read_labelled(input_ids, position_ids, media, labels)
        return token_losses(self.project, read)

    def read_labelled(
        self,
        input_ids: Tensor,
        position_ids: Tensor | None,
        media: Media | None,
        labels: Tensor,
        attention_mask: Tensor | None = None,
    ) -> Labelled:
        """What a loss is computed from: the M positions with something to predict.

        Arguments as in ``forward``.
        """
        # A cache would keep every layer's keys and values alive, and hide packing from the masks.
        out = self.read(input_ids, media, attention_mask, position_ids, use_cache=False)
        labelled = labels[:, 1:] != IGNORE
        return Labelled(
            out.last_hidden_state[:, :-1][labelled],
            self.token_rows.output_rows,
            labels[:, 1:][labelled],
            len(table_of(self.get_output_embeddings())),
        )
