"""What the embedded CLIP is trained and measured on: scenes, captions, image features."""

import random
from dataclasses import dataclass

import torch
from open_clip.model import CLIP
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import normalize, pil_to_tensor
from tqdm import tqdm
from transformers import PreTrainedTokenizerFast

from data_prep.captions import caption, sample_style
from data_prep.embedded.clip_model import CONTEXT, IMAGE_SIZE, MEAN, STD, image_trunk
from data_prep.embedded.scenes import Scene, Sprites, draw, sample_scene


@dataclass(frozen=True)
class Pictures:
    """Scenes and what the locked tower makes of them.

    Attributes:
        scenes: The N scenes.
        pooled: (N, 1280), the trunk's output.
        patches: (N, 432), the mean patch tokens of both last stages.
    """

    scenes: list[Scene]
    pooled: Tensor
    patches: Tensor


def sample_scenes(seed: str, num: int, held_out: bool) -> list[Scene]:
    """Draw scenes of held-out compositions, or of all others."""
    rng = random.Random(seed)
    return [sample_scene(rng, held_out) for _ in range(num)]


def sample_captions(seed: str, scenes: list[Scene], held_out: bool) -> list[str]:
    """Caption each scene in a random style of its own."""
    rng = random.Random(seed)
    split = "validation" if held_out else "train"
    return [caption(scene, sample_style(rng, split)) for scene in scenes]


def to_pixels(picture: Image.Image) -> Tensor:
    """Prepare a picture as the model's own transform would.

    Returns:
        (3, IMAGE_SIZE, IMAGE_SIZE), normalised.
    """
    if picture.size != (IMAGE_SIZE, IMAGE_SIZE):
        picture = picture.resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BICUBIC)
    return normalize(pil_to_tensor(picture).float() / 255, [MEAN] * 3, [STD] * 3)


def tokenize(tokenizer: PreTrainedTokenizerFast, captions: list[str]) -> Tensor:
    """Turn captions into (N, CONTEXT) ids, as open_clip's wrapper does."""
    return tokenizer(
        captions, max_length=CONTEXT, padding="max_length", truncation=True, return_tensors="pt"
    ).input_ids


@torch.no_grad()
def look_at(model: CLIP, scenes: list[Scene], sprites: Sprites, batch: int = 64) -> Pictures:
    """Draw the scenes and run the locked image tower over them once."""
    pooled, patches = [], []
    trunk = image_trunk(model)
    for start in tqdm(range(0, len(scenes), batch), desc="image features", unit="batch"):
        part = scenes[start : start + batch]
        pixels = torch.stack([to_pixels(draw(scene, sprites)) for scene in part])
        final, stages = trunk.forward_intermediates(pixels, indices=[3, 4])
        pooled.append(trunk.forward_head(final))
        patches.append(torch.cat([stage.mean(dim=(2, 3)) for stage in stages], dim=1))
    return Pictures(scenes, torch.cat(pooled), torch.cat(patches))
