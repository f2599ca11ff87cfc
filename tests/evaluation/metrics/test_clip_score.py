"""CLIPScore through torchmetrics, by any open_clip model."""

import pytest
import tiny
import torch
from torchvision.transforms.functional import pil_to_tensor

from miniflamingo.evaluation.metrics.clip_score import clip_scores, load_clip_score
from miniflamingo.evaluation.prediction import Prediction

ANSWERS = ["a cat", "two dogs on a hill", ""]


def test_it_is_the_mean_cosine_of_captions_and_their_pictures(tmp_path):
    text = tiny.CLIP_CONFIG["text_cfg"] | {"vocab_size": 49408}  # of open_clip's own tokenizer
    clip = tiny.write_clip(tmp_path / "clip", tiny.CLIP_CONFIG | {"text_cfg": text})
    cell = [
        Prediction("real", 0, 0, str(i), (), answer, answer, ["x"])
        for i, answer in enumerate(ANSWERS)
    ]
    metric = load_clip_score(f"local-dir:{clip}")
    found = clip_scores({("real", 0, 0): cell}, lambda key: tiny.picture(int(key), 20), metric)
    features, prepare = metric.model, metric.processor
    images = [pil_to_tensor(tiny.picture(i, 20)) for i in range(3)]
    with torch.no_grad():
        seen = features.get_image_features(prepare(images=images)["pixel_values"])
        read = features.get_text_features(*prepare(text=ANSWERS).values())
    expected = 100 * torch.cosine_similarity(seen, read).mean().clamp(min=0)
    assert found["real", 0, 0]["clip_score"] == pytest.approx(float(expected), rel=1e-4)


def test_a_model_that_open_clip_does_not_know_is_told():
    with pytest.raises(ValueError, match=r"cannot load 'ViT-Z' with weights None for CLIPScore"):
        load_clip_score("ViT-Z")
