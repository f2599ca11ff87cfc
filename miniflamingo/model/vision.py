"""The frozen image encoder: any open_clip model, seen as pixels in, patch features out.

Shapes: N media, F frames, C channels, H x W pixels, V patches per frame, E vision width.
"""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import open_clip
import torch
import torch.nn.functional as F
from huggingface_hub import hf_hub_download
from open_clip.factory import parse_model_name
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoConfig

from miniflamingo.errors import UserError
from miniflamingo.model.config import VisionConfig


class FrozenVision(nn.Module):
    """Patch features of a frozen open_clip image tower, always in eval mode and without a graph.

    They are what the tower itself pools into its one vector, without class or register tokens:

    - ViT, SigLIP, EVA, Swin: after the final norm, where that stands before the pool.
    - CoCa, CLIPA, ConvNeXt and towers with an ``fc_norm``: the last block's or stage's output,
      because their final norm stands behind the pool.
    - ResNet: the last stage's output, which its attention pool reads; it has no final norm.
    - Other convolutional towers (MobileCLIP's FastViT, EfficientNet): the last stage's output,
      before a convolution that belongs to the head.

    With ``VisionConfig.stages`` they are those blocks or stages as they are, without norm,
    concatenated on the finest grid.

    Source: open_clip's ``forward_intermediates``.
    """

    tower: Any  # open_clip's image towers share methods, not a type

    def __init__(self, config: VisionConfig, tower: nn.Module) -> None:
        """Freeze and wrap a tower.

        Args:
            config: What it is. Its ``dtype`` is where the tower starts; it computes in whatever
                its weights are moved to later.
            tower: ``CLIP.visual``; its text tower is not needed.
        """
        super().__init__()
        self.config = config
        # Channels last: convolutions run several times faster in it, on CPU and GPU.
        self.tower = tower.to(getattr(torch, config.dtype)).to(memory_format=torch.channels_last)
        self.tower.requires_grad_(False).eval()
        # Behind the attention pool of CoCa and the mean of CLIPA stands a norm for what they give.
        behind = getattr(tower, "attn_pool", None) or getattr(tower, "final_ln_after_pool", False)
        self.normalise = config.stages is None and not behind

    def train(self, mode: bool = True) -> FrozenVision:
        """Stay in eval mode: a frozen encoder's statistics must not move."""
        return super().train(False)

    @property
    def preprocessing(self) -> dict[str, Any]:
        """open_clip's own preprocessing settings of this encoder: size, mean, std, resizing."""
        return dict(self.tower.preprocess_cfg)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the pictures that it reads, in pixels."""
        size = self.preprocessing["size"]
        return (size, size) if isinstance(size, int) else (size[0], size[1])

    @torch.no_grad()
    def forward(self, pixels: Tensor) -> Tensor:
        """(N, F, C, H, W) -> (N, F, V, E)."""
        num_media, frames = pixels.shape[:2]
        dtype = next(self.tower.parameters()).dtype
        flat = pixels.flatten(0, 1).to(dtype, memory_format=torch.channels_last)
        device = "cpu" if pixels.is_meta else pixels.device.type  # autocast knows no meta device
        with torch.autocast(device, enabled=False):
            maps = self.tower.forward_intermediates(
                flat,
                indices=self.config.stages or 1,
                normalize_intermediates=self.normalise,
                intermediates_only=True,
                output_fmt="NCHW",
            )["image_intermediates"]
            grid = max((each.shape[-2:] for each in maps), key=lambda size: size[0] * size[1])
            joined = torch.cat([F.interpolate(each, size=grid) for each in maps], dim=1)
        return joined.flatten(2).transpose(1, 2).unflatten(0, (num_media, frames))

    def width(self) -> int:
        """E, measured on one black picture (on the meta device: shapes alone).

        Raises:
            UserError: If the tower gives no patch features.
        """
        parameter = next(self.tower.parameters())
        black = torch.zeros(1, 1, 3, *self.size, device=parameter.device)
        try:
            return self(black).shape[-1]
        except (AttributeError, AssertionError) as error:
            raise UserError(
                f"the image tower of vision.name={self.config.name!r} gives no patch features for "
                f"vision.stages={self.config.stages}: {error}. Name stages that it has, or choose "
                "a ViT, SigLIP, ConvNeXt or ResNet."
            ) from error


def published_preprocessing(name: str) -> dict[str, Any]:
    """Find the settings on which all published weights of a built-in model agree.

    A weight file says nothing of the pictures it was trained on, and open_clip takes OpenAI's
    normalisation then, which is wrong for SigLIP.

    Args:
        name: Of any model; empty for one that is not built in.
    """
    name = name.replace("/", "-")  # ViT-B/32, as open_clip takes it too
    tags = open_clip.list_pretrained_tags_by_model(name)
    first, *others = [open_clip.get_pretrained_cfg(name, tag) for tag in tags] or [{}]
    names = first.keys() & {"mean", "std", "interpolation", "resize_mode"}
    return {each: first[each] for each in names if all(o[each] == first[each] for o in others)}


CLIP_FILE = "open_clip_config.json"


def open_clip_settings(name: str) -> dict[str, Any]:
    """Read open_clip's own configuration of a model.

    Args:
        name: As ``open_clip.create_model`` takes it.

    Returns:
        Its sections ``vision_cfg``, ``text_cfg`` and others; empty for a model that open_clip does
        not describe.
    """
    schema, place = parse_model_name(name)
    if schema is None:
        return open_clip.get_model_config(place.replace("/", "-")) or {}
    file = Path(place) / CLIP_FILE
    if schema == "hf-hub":
        file = Path(hf_hub_download(place, CLIP_FILE))
    return json.loads(file.read_text())["model_cfg"] if file.is_file() else {}


def check_text_tower(name: str) -> None:
    """A text tower that transformers builds must need no code of its own.

    open_clip builds it though only the image tower is used, and transformers would ask whether to
    run that code.

    Args:
        name: As ``open_clip.create_model`` takes it.

    Raises:
        UserError: If it does, or there is no such model.
    """
    tower = open_clip_settings(name).get("text_cfg", {}).get("hf_model_name")
    if not tower:
        return
    try:
        AutoConfig.from_pretrained(tower, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise UserError(
            f"the text tower {tower!r} of the open_clip model {name!r} cannot be built: {error}"
        ) from error


def create_model(config: VisionConfig) -> Any:
    """Build the whole open_clip model, text tower included.

    Raises:
        UserError: If its text tower asks for code of its own.
    """
    check_text_tower(config.name)
    name, weights = config.name, config.pretrained
    if weights is None or not name.startswith(("local-dir:", "hf-hub:")):
        return open_clip.create_model(
            name,
            pretrained=weights,
            force_image_size=config.image_size,
            force_preprocess_cfg=published_preprocessing(name),
            require_pretrained=True,
        )
    # open_clip passes over ``pretrained`` where a name says where its own weights are.
    model: Any = open_clip.create_model(
        name, force_image_size=config.image_size, load_weights=False, pretrained_text=False
    )
    open_clip.load_checkpoint(model, weights)
    return model


def load_vision(config: VisionConfig) -> FrozenVision:
    """Build the encoder and load its weights through open_clip's own factory.

    A weight file for a built-in name takes the preprocessing that the published weights of that
    name share. For weights of another kind write a folder with an ``open_clip_config.json``.

    Args:
        config: Name and weights.

    Raises:
        UserError: If open_clip knows no such model, or no weights for it.
    """
    try:
        model = create_model(config)
    except (RuntimeError, OSError, SafetensorError, pickle.UnpicklingError) as error:
        raise UserError(
            f"open_clip cannot load vision.name={config.name!r} with "
            f"vision.pretrained={config.pretrained!r}: {error}"
        ) from error
    return FrozenVision(config, model.visual)
