"""MiniFlamingo: the whole model.

Shapes: B documents, L tokens, N media in the batch, F frames, T media slots of a document,
Q latents, D language width, X vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor, nn
from transformers import GenerationMixin, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from miniflamingo.batch import IGNORE
from miniflamingo.model import export
from miniflamingo.model.config import MiniFlamingoConfig
from miniflamingo.model.decoding import (
    check_decoding,
    check_room,
    copies_of_prompt,
    generation_defaults,
    never_written,
    resolved,
    transition_scores,
)
from miniflamingo.model.embeddings import TokenRows, table_of
from miniflamingo.model.gated_xattn import GatedCrossAttention, Media, MediaProjection
from miniflamingo.model.inputs import check_media_count, check_patches, check_pixels
from miniflamingo.model.language import (
    insert_gated_layers,
    learned_positions,
    load_language,
    packed_mask,
    scale_logits,
)
from miniflamingo.model.loss import Labelled, summed_loss, token_losses
from miniflamingo.model.media_mask import READINGS, first_media, latest_media, media_slots
from miniflamingo.model.resampler import PerceiverResampler
from miniflamingo.model.vision import FrozenVision, load_vision
from miniflamingo.tokens import MediaTokens


class MiniFlamingo(PreTrainedModel, GenerationMixin):
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
        self.resampler = PerceiverResampler(config.resampler, vision.width())
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
        model = cls.build(export.read_config(folder), dtype)
        export.load_own_weights(model, Path(folder) / export.WEIGHTS_FILE)
        export.check_fingerprints(model, folder)
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

    def encode(self, pixels: Tensor) -> Tensor:
        """(N, F, C, H, W) pixels -> (N, F, V, E) patches."""
        return self.vision(pixels)

    def resample(self, pixels: Tensor | None, patches: Tensor | None = None) -> Tensor:
        """Make Q tokens of each media item.

        Args:
            pixels: (N, F, C, H, W), or None where there are patches.
            patches: (N, F, V, E) of the frozen encoder in place of pixels, or None.

        Returns:
            (N, Q, W).

        Raises:
            UserError: If pixels or patches do not fit the encoder or are not finite.
        """
        return self.resampler(self._patches(pixels, patches))

    def project_media(
        self, pixels: Tensor | None, patches: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        """Compute what the gated layers read, once for a whole prompt or step.

        Args:
            pixels: (N, F, C, H, W), or None.
            patches: (N, F, V, E) of the frozen encoder in place of pixels, or None. With neither
                it is text alone.

        Returns:
            For each gated layer (N, Q, 2*H*K). Text alone gets a black picture, or patches of
            zeros, N = 1, that no token reads: so all ranks of a training run use the same weights.

        Raises:
            UserError: If pixels or patches do not fit the encoder or are not finite.
        """
        if patches is not None and not len(patches):
            patches = patches.new_zeros(1, 1, 1, len(self.resampler.patch_mean))
        elif patches is None and (pixels is None or not len(pixels)):
            device = self.resampler.latents.device
            pixels = torch.zeros(1, 1, 3, *self.vision.size, device=device)
        return self.media_projection(self.resampler(self._patches(pixels, patches)))

    def _patches(self, pixels: Tensor | None, patches: Tensor | None) -> Tensor:
        """Those that are given, or the encoder's; raises as ``resample``."""
        if patches is not None:
            check_patches(patches, len(self.resampler.patch_mean))
            return patches
        assert pixels is not None
        check_pixels(pixels, self.vision.size)
        return self.vision(pixels)

    def read(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        pixels: Tensor | None = None,
        position_ids: Tensor | None = None,
        keys_values: tuple[Tensor, ...] | None = None,
        slots: Tensor | None = None,
        reads: Tensor | None = None,
        patches: Tensor | None = None,
        **lm_kwargs: Any,
    ) -> Any:
        """Run text and media through the fused layers; arguments as in ``forward``.

        Returns:
            The language model's own output object, with last hidden states (B, L, D) and cache.
        """
        embeds = self.token_rows.embed(input_ids, self.get_input_embeddings())
        first = None
        if keys_values is None or slots is None or reads is None:
            check_media_count(input_ids, pixels, patches, self.tokens.image)
            keys_values = self.project_media(pixels, patches)
            is_media = input_ids == self.tokens.image
            slots, reads = media_slots(is_media), latest_media(is_media)
            if position_ids is not None and attention_mask is None:
                first = first_media(is_media, position_ids)
                attention_mask = packed_mask(self.language, embeds, position_ids)
        if position_ids is None and attention_mask is not None:
            position_ids = (attention_mask.long().cumsum(-1) - 1).clamp_min(0)
            position_ids = position_ids[:, -input_ids.shape[1] :]
        return self.language.base_model(
            inputs_embeds=embeds,
            attention_mask=attention_mask,
            position_ids=position_ids,
            media=Media(keys_values, self.reading(slots, reads, len(keys_values[0]), first)),
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
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        pixels: Tensor | None = None,
        labels: Tensor | None = None,
        keys_values: tuple[Tensor, ...] | None = None,
        slots: Tensor | None = None,
        reads: Tensor | None = None,
        past_key_values: Any = None,
        use_cache: bool = False,
        logits_to_keep: int = 0,
        patches: Tensor | None = None,
        return_dict: bool = True,
        **kwargs: Any,
    ) -> CausalLMOutputWithPast | tuple[Any, ...]:
        """Predict the next token at each position.

        Args:
            input_ids: (B, L).
            attention_mask: (B, past + L), 0 at padding, left or right.
            position_ids: (B, L); counted from the attention mask if None. Without an attention mask
                each 0 starts a document of its own, which reads nothing of those before it in its
                row, neither text nor media; so rows may be packed, and padding at their end be one
                more document.
            pixels: (N, F, C, H, W), one media item for each ``<image>`` token in reading order.
            labels: (B, L). With labels the vocabulary projection runs at labelled positions only,
                and the output holds the mean loss over them (0 if there are none) and no logits.
            keys_values: What ``project_media`` returned for the prompt; instead of ``pixels``.
            slots: (B, T), from ``media_slots`` of the prompt; with ``keys_values``.
            reads: (B, L), from ``latest_media`` of prompt and text so far; with ``keys_values``.
            past_key_values: The language model's cache.
            use_cache: Whether to return one.
            logits_to_keep: Only the last so many positions get logits; 0 for all.
            patches: (N, F, V, E), what the frozen encoder made of the media; instead of ``pixels``.
            return_dict: Whether to return an object with names instead of a tuple.
            **kwargs: Passed to the language model.

        Raises:
            UserError: If media and ``<image>`` tokens do not match, or media are unusable.
        """
        if labels is not None:
            read = self.read_labelled(
                input_ids, position_ids, pixels, labels, attention_mask, patches
            )
            loss = summed_loss(self.project, read)
            output = CausalLMOutputWithPast(loss=loss / max(1, len(read.labels)))
            return output if return_dict else output.to_tuple()
        out = self.read(
            input_ids,
            attention_mask,
            pixels,
            position_ids,
            keys_values,
            slots,
            reads,
            patches,
            past_key_values=past_key_values,
            use_cache=use_cache,
            **kwargs,
        )
        hidden = out.last_hidden_state
        kept = hidden[:, -logits_to_keep:] if logits_to_keep else hidden
        logits = self.project(kept, self.token_rows.output_rows)
        output = CausalLMOutputWithPast(
            logits=logits,
            past_key_values=out.past_key_values,
            hidden_states=out.hidden_states,
            attentions=out.attentions,
        )
        return output if return_dict else output.to_tuple()

    def token_losses(
        self,
        input_ids: Tensor,
        position_ids: Tensor,
        pixels: Tensor | None,
        labels: Tensor,
        patches: Tensor | None = None,
    ) -> Tensor:
        """Loss of each labelled token, row after row, in fp32 and without a graph.

        Arguments as in ``forward``.
        """
        with torch.no_grad():
            read = self.read_labelled(input_ids, position_ids, pixels, labels, None, patches)
        return token_losses(self.project, read)

    def read_labelled(
        self,
        input_ids: Tensor,
        position_ids: Tensor | None,
        pixels: Tensor | None,
        labels: Tensor,
        attention_mask: Tensor | None = None,
        patches: Tensor | None = None,
    ) -> Labelled:
        """What a loss is computed from: the M positions with something to predict.

        Arguments as in ``forward``.
        """
        # A cache would keep every layer's keys and values alive, and hide packing from the masks.
        out = self.read(
            input_ids, attention_mask, pixels, position_ids, patches=patches, use_cache=False
        )
        labelled = labels[:, 1:] != IGNORE
        return Labelled(
            out.last_hidden_state[:, :-1][labelled],
            self.token_rows.output_rows,
            labels[:, 1:][labelled],
            len(table_of(self.get_output_embeddings())),
        )

    @torch.no_grad()
    def generate(  # type: ignore[override]  # documents, not encoder inputs
        self,
        input_ids: Tensor,
        pixels: Tensor | None = None,
        attention_mask: Tensor | None = None,
        patches: Tensor | None = None,
        resampled: Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        """Complete prompts: ``GenerationMixin.generate``, with media and prompts read once.

        Args:
            input_ids: (B, L), padded on the left.
            pixels: (N, F, C, H, W), one for each ``<image>`` token.
            attention_mask: (B, L), 0 at padding.
            patches: (N, F, V, E), what the frozen encoder made of the media; instead of ``pixels``.
            resampled: (N, Q, W), what ``resample`` made of the media; instead of ``pixels``.
            **kwargs: Everything else that transformers' ``generate`` takes.

        Returns:
            As transformers' ``generate``, but the completions alone: (B, new) ids, or an output
            object whose ``sequences`` are.

        Raises:
            UserError: If media and ``<image>`` tokens do not match, or media are unusable.
        """
        settings = resolved(kwargs, self.generation_config)
        check_decoding(settings, input_ids, attention_mask, kwargs.get("past_key_values"))
        check_room(settings, input_ids.shape[1], learned_positions(self.language))
        if kwargs.get("logits_processor"):
            processors = never_written(self.tokens.image, kwargs["logits_processor"])
            kwargs["logits_processor"] = processors
        given = pixels if resampled is None else resampled
        check_media_count(input_ids, given, patches, self.tokens.image)
        if resampled is None:
            keys_values = self.project_media(pixels, patches)
        else:
            keys_values = self.media_projection(resampled)
        if attention_mask is None:
            attention_mask = torch.ones_like(input_ids)
        is_media = input_ids == self.tokens.image
        media = {"keys_values": keys_values, "slots": media_slots(is_media)}
        copies = copies_of_prompt(settings)
        length = input_ids.shape[1]
        dynamic = settings.use_cache is not False and settings.cache_implementation is None
        if copies > 1 and length > 1 and dynamic:
            # transformers repeats prompts before it reads them; all copies have the same cache.
            prompt, mask, reads = (
                each[:, :-1] for each in (input_ids, attention_mask, latest_media(is_media))
            )
            cache = self.read(prompt, mask, reads=reads, use_cache=True, **media).past_key_values
            cache.batch_repeat_interleave(copies)
            kwargs["past_key_values"] = cache
        out = super().generate(  # type: ignore[misc]  # a protocol that no model's types fulfil
            input_ids, attention_mask=attention_mask, **media, **kwargs
        )
        if isinstance(out, Tensor):
            return out[:, length:]
        out.sequences = out.sequences[:, length:]
        return out

    def prepare_inputs_for_generation(  # type: ignore[override]
        self, input_ids: Tensor, **kwargs: Any
    ) -> dict[str, Any]:
        """Let each new token read the latest media item of its whole prompt, cached or not."""
        inputs = super().prepare_inputs_for_generation(  # type: ignore[misc]  # as in generate
            input_ids, **kwargs
        )
        reads = latest_media(input_ids == self.tokens.image)
        return {**inputs, "reads": reads[:, -inputs["input_ids"].shape[1] :]}

    def compute_transition_scores(  # type: ignore[override]  # never an encoder's
        self,
        sequences: Tensor,
        scores: tuple[Tensor, ...],
        beam_indices: Tensor | None = None,
        normalize_logits: bool = False,
    ) -> Tensor:
        """As transformers' own, over the vocabulary with the new tokens."""
        return transition_scores(sequences, scores, beam_indices, normalize_logits)
