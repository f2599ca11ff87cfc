"""An outline has the shapes of the model that it stands for, and needs no weights."""

import dataclasses
import json
import shutil

import pytest
import tiny
import torch

from miniflamingo.cost import meta_model as outlines
from miniflamingo.cost.meta_model import (
    outline,
    outline_language,
    outline_vision,
    read_language_config,
)
from miniflamingo.model.config import VisionConfig


def weights_of(model):
    return {
        name: (weight.shape, weight.dtype, weight.requires_grad)
        for name, weight in model.named_parameters()
    }


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_it_is_the_model_without_its_values(family, build, tmp_path):
    model = build(language=tiny.write_language(tmp_path, family), train_input_rows=False)
    outlined = outline(model.config)
    assert weights_of(outlined) == weights_of(model)
    assert {weight.device.type for weight in outlined.parameters()} == {"meta"}
    assert outlined.vision.preprocessing["size"] == model.vision.preprocessing["size"]
    assert outlined.config.text_config.model_type == family


def test_configuration_files_are_enough(build, language_folder, clip_folder, tmp_path):
    model = build()
    for folder, file in ((language_folder, "config.json"), (clip_folder, "open_clip_config.json")):
        (tmp_path / folder.name).mkdir()
        shutil.copy(folder / file, tmp_path / folder.name)
    model.config.language = str(tmp_path / language_folder.name)
    moved = f"local-dir:{tmp_path / clip_folder.name}"
    model.config.vision = dataclasses.replace(model.config.vision, name=moved)
    assert weights_of(outline(model.config)) == weights_of(model)


def test_a_hub_encoder_needs_its_configuration_alone(clip_folder, monkeypatch):
    asked = []

    def download(name, file):
        asked.append((name, file))
        return str(clip_folder / file)

    monkeypatch.setattr(outlines, "hf_hub_download", download)
    tower = outline_vision(VisionConfig("hf-hub:org/clip"))
    assert asked == [("org/clip", "open_clip_config.json")]
    assert tower.width() == tiny.CLIP_CONFIG["vision_cfg"]["width"]


@pytest.mark.parametrize(
    ("asked", "saved", "found"),
    [("auto", "bfloat16", "bfloat16"), ("auto", None, "float32"), ("float16", None, "float16")],
)
def test_dtype_of_the_language_model(asked, saved, found, language_folder, tmp_path):
    config = json.loads((language_folder / "config.json").read_text()) | {"dtype": saved}
    (tmp_path / "config.json").write_text(json.dumps(config))
    language = outline_language(read_language_config(str(tmp_path)), asked)
    assert language.dtype == getattr(torch, found)


def test_mistakes_are_told(language_folder, tmp_path):
    with pytest.raises(ValueError, match=r"language_dtype='half-full' is not auto"):
        outline_language(read_language_config(str(language_folder)), "half-full")
    with pytest.raises(ValueError, match="cannot read the configuration of language="):
        read_language_config(str(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "bloom"}')
    with pytest.raises(ValueError, match="'bloom' cannot be used"):
        read_language_config(str(tmp_path))
    with pytest.raises(ValueError, match=r"vision\.pretrained='nope' .* it has openai"):
        outline_vision(VisionConfig("ViT-L-14", "nope"))
    with pytest.raises(ValueError, match="it has none for that name"):
        outline_vision(VisionConfig("ViT-Z-99", "openai"))
    with pytest.raises(ValueError, match=r"cannot build vision\.name='local-dir:nowhere'"):
        outline_vision(VisionConfig("local-dir:nowhere"))
