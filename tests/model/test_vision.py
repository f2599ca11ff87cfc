"""The frozen image encoder."""

import json

import open_clip
import pytest
import tiny
import torch

from miniflamingo.model.config import VisionConfig
from miniflamingo.model.vision import load_vision


@pytest.fixture
def vision(clip_folder):
    return load_vision(VisionConfig(f"local-dir:{clip_folder}"))


def test_patches_are_those_that_open_clip_itself_would_give(vision, clip_folder):
    tower = open_clip.create_model(f"local-dir:{clip_folder}").eval().visual
    tower.output_tokens = True
    pixels = torch.randn(3, 2, 3, 16, 16)
    with torch.no_grad():
        _, tokens = tower(pixels.flatten(0, 1))  # without the class token
        patches = vision(pixels)
    assert patches.shape == (3, 2, 4, 24)
    torch.testing.assert_close(patches.flatten(0, 1), tower.ln_post(tokens), rtol=0, atol=1e-5)


def test_stages_are_joined(clip_folder):
    name = f"local-dir:{clip_folder}"
    pixels = torch.randn(1, 1, 3, 16, 16)
    first, last = (load_vision(VisionConfig(name, stages=[stage]))(pixels) for stage in (0, 1))
    both = load_vision(VisionConfig(name, stages=[0, 1]))
    assert both.width() == 48
    assert torch.equal(both(pixels), torch.cat([first, last], dim=-1))
    assert not torch.allclose(first, last)


def test_a_convolutional_tower_on_its_finest_grid(tmp_path):
    config = {
        **tiny.CLIP_CONFIG,
        "vision_cfg": {
            "timm_model_name": "test_efficientnet",
            "timm_model_pretrained": False,
            "timm_pool": "avg",
            "timm_proj": "linear",
            "image_size": 64,
        },
    }
    name = f"local-dir:{tiny.write_clip(tmp_path, config)}"
    pixels = torch.randn(1, 1, 3, 64, 64)
    fine, coarse = (load_vision(VisionConfig(name, stages=[stage]))(pixels) for stage in (3, 4))
    assert fine.shape[2] == 4 * coarse.shape[2] == 16
    joined = load_vision(VisionConfig(name, stages=[3, 4]))(pixels)
    width = fine.shape[-1]
    assert torch.equal(joined[..., :width], fine)
    # Every place of the coarse map stands behind the four fine places that it covers.
    repeated = coarse[0, 0].unflatten(0, (2, 2)).repeat_interleave(2, 0).repeat_interleave(2, 1)
    assert torch.equal(joined[0, 0, :, width:], repeated.flatten(0, 1))


def test_another_picture_size(clip_folder):
    vision = load_vision(VisionConfig(f"local-dir:{clip_folder}", image_size=32))
    assert vision.preprocessing["size"] in (32, (32, 32), [32, 32])
    assert vision(torch.randn(1, 1, 3, 32, 32)).shape == (1, 1, 16, 24)  # 4 x 4 patches of 8 x 8


def test_frozen_and_in_eval_mode(vision):
    vision.train()
    assert not any(module.training for module in vision.modules())
    assert not any(parameter.requires_grad for parameter in vision.parameters())
    pixels = torch.randn(1, 1, 3, 16, 16, requires_grad=True)
    assert not vision(pixels).requires_grad


def test_preprocessing_is_the_encoders_own(clip_folder, tmp_path):
    folder = tiny.write_clip(tmp_path)
    config = json.loads((folder / "open_clip_config.json").read_text())
    config["preprocess_cfg"] = {"mean": [0.1, 0.2, 0.3], "resize_mode": "squash"}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    preprocessing = load_vision(VisionConfig(f"local-dir:{folder}")).preprocessing
    assert preprocessing["mean"] == [0.1, 0.2, 0.3]
    assert preprocessing["resize_mode"] == "squash"
    assert preprocessing["size"] in (16, (16, 16), [16, 16])


@pytest.mark.parametrize(
    ("name", "pretrained"),
    [
        ("ViT-Z-99", None),
        ("ViT-B-32", "no_such_tag"),
        ("local-dir:no/such/folder", None),
        ("ViT-B-32", None),  # random weights are no encoder
    ],
)
def test_an_encoder_that_cannot_be_loaded(name, pretrained):
    with pytest.raises(ValueError, match=f"vision.name='{name}'"):
        load_vision(VisionConfig(name, pretrained))
