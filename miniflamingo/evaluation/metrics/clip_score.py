"""CLIPScore: how well a caption fits its picture, without references."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from typing import Any

import open_clip
import torch
from open_clip.transform import PreprocessCfg, image_transform_v2
from safetensors import SafetensorError
from torch import Tensor, nn
from torchmetrics.multimodal import CLIPScore
from torchvision.transforms.functional import pil_to_tensor, to_pil_image

from miniflamingo.data.images import load_image
from miniflamingo.document import ImageSource
from miniflamingo.errors import UserError
from miniflamingo.evaluation.summary import Cell, Key
from miniflamingo.model.config import VisionConfig
from miniflamingo.model.vision import create_model, open_clip_settings

PAIRS_AT_ONCE = 64


class OpenClipFeatures(nn.Module):
    """An open_clip model in the shape in which torchmetrics asks for a transformers one.

    That of transformers 5 gives what torchmetrics 1.9 cannot read.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model.eval()
        self.config = None  # torchmetrics looks here for a longest text; the tokenizer cuts

    def get_image_features(self, pixels: Tensor) -> Tensor:
        """(N, 3, H, W) -> (N, E)."""
        return self.model.encode_image(pixels)

    def get_text_features(self, ids: Tensor, mask: Tensor) -> Tensor:
        """(N, L) -> (N, E)."""
        return self.model.encode_text(ids)


def load_clip_score(name: str, weights: str | None = None) -> CLIPScore:
    """Load the metric of an open_clip model.

    Args:
        name: As ``open_clip.create_model`` takes it.
        weights: The same, ``pretrained``; None where the name says them.

    Raises:
        UserError: If open_clip knows no such model, or no weights for it.
    """
    try:
        model = create_model(VisionConfig(name, weights))
    except (RuntimeError, OSError, SafetensorError, pickle.UnpicklingError) as error:
        raise UserError(
            f"open_clip cannot load {name!r} with weights {weights!r} for CLIPScore: {error}"
        ) from error
    return CLIPScore(lambda: (OpenClipFeatures(model), preparation(model, name)))


def preparation(model: Any, name: str) -> Any:
    """What makes pixels of pictures and ids of texts for an open_clip model."""
    transform: Any = image_transform_v2(PreprocessCfg(**model.visual.preprocess_cfg), False)
    tokenizer = load_clip_tokenizer(name)

    def prepare(
        images: list[Tensor] | None = None, text: list[str] | None = None, **_: Any
    ) -> dict[str, Tensor]:
        if images is not None:
            return {"pixel_values": torch.stack([transform(to_pil_image(i)) for i in images])}
        ids = tokenizer(text or [])
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}

    return prepare


def load_clip_tokenizer(name: str) -> Any:
    """Load the tokenizer of an open_clip model, running no code of its folder.

    open_clip passes ``tokenizer_kwargs`` of the folder to transformers, ``trust_remote_code`` among
    them; what the caller gives stands above that.

    Args:
        name: As ``open_clip.create_model`` takes it.
    """
    if open_clip_settings(name).get("text_cfg", {}).get("hf_tokenizer_name"):
        return open_clip.get_tokenizer(name, trust_remote_code=False)
    return open_clip.get_tokenizer(name)  # open_clip's own, which loads no code


@torch.no_grad()
def clip_scores(
    cells: Mapping[Key, Cell], picture_of: Callable[[str], ImageSource], metric: CLIPScore
) -> dict[Key, dict[str, float]]:
    """CLIPScore of each cell's answers.

    Args:
        cells: To be scored, each by itself.
        picture_of: Query id -> its picture.
        metric: By ``load_clip_score``. Scores by different models cannot be compared.

    Returns:
        ``clip_score`` of each: 100 times the mean cosine, 0 at least, as torchmetrics has it. The
        paper's is 2.5 times each cosine, 0 at least.

    Source: Hessel et al., arXiv:2104.08718.
    """
    scores = {}
    for key, cell in cells.items():
        metric.reset()
        for start in range(0, len(cell), PAIRS_AT_ONCE):
            part = cell[start : start + PAIRS_AT_ONCE]
            pictures = [pil_to_tensor(load_image(picture_of(each.key))) for each in part]
            metric.update(pictures, [each.answer for each in part])
        scores[key] = {"clip_score": float(metric.compute())}
    return scores
