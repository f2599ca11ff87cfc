"""Measure the embedded CLIP on held-out compositions: retrieval, naming, and a linear probe."""

from dataclasses import dataclass

import torch
from open_clip.model import CLIP
from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedTokenizerFast

from data_prep.captions import with_article
from data_prep.embedded.clip_features import Pictures, sample_captions, tokenize
from data_prep.embedded.clip_model import image_tower
from data_prep.embedded.scenes import COLOURS, Scene, load_kinds

RETRIEVAL = 256  # pictures and captions to tell apart


@dataclass(frozen=True)
class Measures:
    """What the model card reports, each between 0 and 1.

    Attributes:
        caption_to_picture: Top-1 of 256, held-out compositions and styles.
        picture_to_caption: The same, the other way.
        zero_shot_objects: Pictures of one kind given the right name out of all.
        probe_objects: Pictures whose kinds a linear probe on mean patch tokens all names.
    """

    caption_to_picture: float
    picture_to_caption: float
    zero_shot_objects: float
    probe_objects: float


def measure(
    model: CLIP,
    tokenizer: PreTrainedTokenizerFast,
    train: Pictures,
    test: Pictures,
    seed: int,
) -> Measures:
    """Measure retrieval, zero-shot naming and the linear probe on held-out compositions."""
    with torch.inference_mode():
        captions = sample_captions(f"{seed} clip test captions", test.scenes, True)
        texts = model.encode_text(tokenize(tokenizer, captions), normalize=True)
        images = F.normalize(image_tower(model).head(test.pooled), dim=-1)
        to_picture, to_caption = _retrieval(texts, images), _retrieval(images, texts)
        names = zero_shot_names(model, tokenizer)  # (kinds, 256)
        single = [i for i, scene in enumerate(test.scenes) if scene.relation is None]
        guesses = (images[single] @ names.T).argmax(dim=1).tolist()
    kinds = list(load_kinds())
    right = [kinds[g] == test.scenes[i].kinds[0] for g, i in zip(guesses, single, strict=True)]
    return Measures(
        caption_to_picture=round(to_picture, 4),
        picture_to_caption=round(to_caption, 4),
        zero_shot_objects=round(sum(right) / len(right), 4),
        probe_objects=round(probe_objects(train, test, seed), 4),
    )


def _retrieval(queries: Tensor, answers: Tensor) -> float:
    """Find each query's own answer among 256: the share found, over all groups of 256."""
    groups = zip(queries.split(RETRIEVAL), answers.split(RETRIEVAL), strict=True)
    hits = [(q @ a.T).argmax(dim=1) == torch.arange(len(q)) for q, a in groups]
    return torch.cat(hits).float().mean().item()


def zero_shot_names(model: CLIP, tokenizer: PreTrainedTokenizerFast) -> Tensor:
    """Encode "a picture of a cat, in front of red." for each kind, averaged over the colours.

    Returns:
        (kinds, embedding), normalised.
    """
    rows = []
    for kind in load_kinds():
        prompts = [f"a picture of {with_article(kind)}, in front of {c}." for c in COLOURS]
        rows.append(model.encode_text(tokenize(tokenizer, prompts), normalize=True).mean(dim=0))
    return F.normalize(torch.stack(rows), dim=-1)


def probe_objects(train: Pictures, test: Pictures, seed: int, steps: int = 2000) -> float:
    """Fit a linear probe for objects on mean patch tokens.

    Returns:
        The share of held-out pictures whose kinds are exactly the most likely ones.
    """
    torch.manual_seed(seed)
    mean, deviation = train.patches.mean(dim=0), train.patches.std(dim=0) + 1e-5
    inputs = (train.patches - mean) / deviation
    targets = _kinds_shown(train.scenes)
    probe = torch.nn.Linear(inputs.shape[1], targets.shape[1])
    optimizer = torch.optim.AdamW(probe.parameters(), lr=2e-3, weight_decay=0.1)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.01, total_iters=steps)
    for _ in range(steps):
        rows = torch.randint(len(inputs), (128,))
        share = targets[rows] / targets[rows].sum(dim=1, keepdim=True)
        loss = F.cross_entropy(probe(inputs[rows]), share)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    with torch.inference_mode():
        scores = probe((test.patches - mean) / deviation)
    wanted = _kinds_shown(test.scenes)
    right = [
        set(score.topk(int(shown.sum())).indices.tolist()) == set(shown.nonzero()[:, 0].tolist())
        for score, shown in zip(scores, wanted, strict=True)
    ]
    return sum(right) / len(right)


def _kinds_shown(scenes: list[Scene]) -> Tensor:
    """Mark the kinds in each scene. Returns: (N, kinds), 0 or 1."""
    place = {name: index for index, name in enumerate(load_kinds())}
    shown = torch.zeros(len(scenes), len(place))
    for row, scene in enumerate(scenes):
        shown[row, [place[kind] for kind in scene.kinds]] = 1
    return shown
