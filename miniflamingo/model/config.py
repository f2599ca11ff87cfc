"""What a MiniFlamingo is made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar, Literal, Self, TypeVar

from transformers import AutoConfig, PreTrainedConfig
from transformers.configuration_utils import SubConfigSpec

from miniflamingo.errors import UserError
from miniflamingo.tokens import MediaTokens


@dataclass(frozen=True)
class VisionConfig:
    """The frozen image encoder, an open_clip model.

    Attributes:
        name: Any name that ``open_clip.create_model`` takes: a built-in one (``ViT-L-14``), a
            folder (``local-dir:data/models/embedded-clip``) or a hub id (``hf-hub:...``).
        pretrained: Weight tag of a built-in name, or a weight file for any name.
        stages: Which intermediate feature maps to read, as the tower counts them, concatenated on
            the finest grid. None reads what the tower itself pools (``FrozenVision``).
        image_size: Pixels of a side, where it should not be the encoder's own.
        dtype: Precision of the encoder's weights and arithmetic.
    """

    name: str
    pretrained: str | None = None
    stages: list[int] | None = None
    image_size: int | None = None
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"


@dataclass(frozen=True)
class ResamplerConfig:
    """What makes a few tokens of an encoder's patches; a kind uses those fields that concern it.

    Source: Flamingo, section 2.1 and table 7, for the perceiver.

    Attributes:
        kind: ``perceiver``, the paper's, or another of ``miniflamingo.model.resamplers``.
        latents: Q, how many tokens a media item becomes; of a perceiver, how many learned latents.
        depth: Layers. 0 leaves attention out: the mean of the patches is added to each latent.
        heads: Attention heads.
        head_width: K, width of one head.
        ffw_mult: Hidden width of the feed-forward as a multiple of the resampler's.
        width: Width of the latents. None takes the vision encoder's and adds no projection.
        max_frames: Most frames of one media item.
        activation: Of the feed-forward; the paper's is ``squared_relu``.
        read_latents: Whether keys and values are made of patches and latents, as in the paper, or
            of patches alone.
        train_latents: Whether the latents train. If not, they stay as drawn.
    """

    latents: int = 64
    depth: int = 6
    heads: int = 8
    head_width: int = 64
    ffw_mult: int = 4
    width: int | None = None
    max_frames: int = 1
    activation: Literal["gelu", "squared_relu"] = "squared_relu"
    read_latents: bool = True
    train_latents: bool = True
    kind: str = "perceiver"


@dataclass(frozen=True)
class XattnConfig:
    """The gated cross-attention blocks. Source: Flamingo, section 2.2.

    Attributes:
        every: One block before every n-th layer of the language model.
        first: Index of the first layer that gets one. Nothing below it needs a backward pass
            unless the input rows of the new tokens train.
        heads: Attention heads.
        head_width: K, width of one head.
        ffw_mult: Hidden width of the feed-forward as a multiple of the language model's.
        activation: Of the feed-forward.
        attend: Which media a token reads: the latest before it (the paper's) or all previous.
        gate: A tanh gate for each layer (the paper's), for each channel of it, or none.
        start: The first two leave the language model exactly as it was. ``closed_gates`` sets the
            gates to zero as in the paper; ``zero_outputs`` opens them and zeroes the output
            projections, so that gradients reach the latents from the second step. ``random``
            leaves gates open and projections as drawn: with ``gate: none`` the paper's ablation.
    """

    every: int = 1
    first: int = 0
    heads: int = 8
    head_width: int = 64
    ffw_mult: int = 4
    activation: Literal["gelu", "squared_relu"] = "squared_relu"
    attend: Literal["latest", "all_previous"] = "latest"
    gate: Literal["scalar", "channel", "none"] = "scalar"
    start: Literal["closed_gates", "zero_outputs", "random"] = "closed_gates"


class MiniFlamingoConfig(PreTrainedConfig):
    """Everything needed to build a MiniFlamingo again, written to ``config.json``.

    Attributes:
        language: Folder or hub name of the frozen language model.
        vision: The frozen image encoder.
        resampler: What turns an encoder's patches into a few tokens.
        xattn: The gated blocks.
        train_input_rows: Whether the input embeddings of the new tokens train. If so, the backward
            pass goes down to the first layer of the language model.
        language_bits: 8 or 4 where the language model's matrices are quantised, else None.
        image_token_id: Id of ``<image>``.
        end_of_chunk_token_id: Id of ``<|endofchunk|>``.
        text_config: The language model's own configuration; transformers' generation reads the
            shape of the cache from it.
        vision_tower: open_clip's own configuration of the image tower, compared when an exported
            folder is loaded, as ``text_config`` is.
        fingerprints: Of the weights of the frozen parts, by name, checked when an exported folder
            is loaded; of tokenizer and preprocessing, checked when a processor joins the model.
    """

    model_type = "miniflamingo"
    sub_configs_defaults: ClassVar[dict[str, SubConfigSpec]] = {
        "text_config": SubConfigSpec(config_class=AutoConfig, model_type="llama")
    }

    language: str = ""
    vision: VisionConfig = VisionConfig("")
    resampler: ResamplerConfig = ResamplerConfig()
    xattn: XattnConfig = XattnConfig()
    train_input_rows: bool = True
    language_bits: int | None = None
    image_token_id: int = -1
    end_of_chunk_token_id: int = -1
    text_config: dict[str, Any] | PreTrainedConfig | None = None
    vision_tower: dict[str, Any] | None = None
    fingerprints: dict[str, str] | None = None

    @classmethod
    def from_dict(  # type: ignore[override]  # the base class may return a pair instead
        cls, config_dict: dict[str, Any], **kwargs: Any
    ) -> Self:
        """Build a configuration from plain values: the content of ``config.json``, or a recipe's.

        Args:
            config_dict: Values by name of the field. Sections and fields that are left out keep
                their defaults, so that files of older versions load.
            **kwargs: Passed to the base class, which calls this when it reads a file.

        Raises:
            UserError: If a section is no mapping, or has a field that does not exist.
        """
        sections = {
            name: section_from(kind, name, config_dict[name])
            for name, kind in SECTIONS.items()
            if config_dict.get(name) is not None
        }
        plain = {name: value for name, value in config_dict.items() if name not in SECTIONS}
        return super().from_dict(plain | sections, **kwargs)  # type: ignore[return-value]

    def to_dict(self) -> dict[str, Any]:
        """Turn the configuration into plain values, as they are written to ``config.json``."""
        return super().to_dict() | {name: asdict(getattr(self, name)) for name in SECTIONS}


Section = TypeVar("Section", VisionConfig, ResamplerConfig, XattnConfig)
SECTIONS: dict[str, Any] = {
    "vision": VisionConfig,
    "resampler": ResamplerConfig,
    "xattn": XattnConfig,
}
"""The fields of a configuration that are dataclasses themselves."""


def section_from(kind: type[Section], name: str, values: Any) -> Section:
    """Build one section of a configuration from plain values.

    Args:
        kind: The dataclass to build.
        name: What the section is called, for the message of an error.
        values: Values by name of the field, or the finished section.

    Raises:
        UserError: If the values are no mapping, or not those of the dataclass.
    """
    if isinstance(values, kind):
        return values
    if not isinstance(values, Mapping):
        raise UserError(f"{name}={values!r} in a model's configuration must be a mapping.")
    known = [field.name for field in fields(kind)]
    unknown = sorted(values.keys() - set(known))
    if unknown:
        raise UserError(
            f"{name}.{unknown[0]} in a model's configuration is unknown; {name} has "
            f"{', '.join(known)}. Mend the name, or load the model with the version that wrote it."
        )
    if name == "vision" and "name" not in values:
        raise UserError("vision.name is missing in a model's configuration; name the encoder.")
    return kind(**values)


AutoConfig.register(MiniFlamingoConfig.model_type, MiniFlamingoConfig)


def make_config(
    language: str,
    vision: VisionConfig,
    resampler: ResamplerConfig,
    xattn: XattnConfig,
    tokens: MediaTokens,
    train_input_rows: bool,
    language_bits: int | None = None,
) -> MiniFlamingoConfig:
    """Join typed settings to the configuration that is saved with the model."""
    return MiniFlamingoConfig(
        language=language,
        vision=vision,
        resampler=resampler,
        xattn=xattn,
        image_token_id=tokens.image,
        end_of_chunk_token_id=tokens.end_of_chunk,
        train_input_rows=train_input_rows,
        language_bits=language_bits,
        text_config=AutoConfig.from_pretrained(language, trust_remote_code=False),
    )
