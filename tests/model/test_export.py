"""The exported folder and everything that can be wrong with one."""

import json
import re
import shutil

import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file

from miniflamingo import Chunk, Document, MiniFlamingo, MiniFlamingoProcessor
from miniflamingo.model.export import WEIGHTS_FILE, is_own_weight


@pytest.fixture
def folder(model, processor, tmp_path):
    model.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def test_a_round_trip_changes_nothing(model, folder):
    prompt = Document([Chunk(tiny.picture(0), "a cat"), Chunk(tiny.picture(1))])
    again = MiniFlamingo.from_pretrained(folder)
    processor = MiniFlamingoProcessor.from_pretrained(folder)
    assert not again.training
    for (name, mine), (other, loaded) in zip(
        model.state_dict().items(), again.state_dict().items(), strict=True
    ):
        assert name == other
        assert torch.equal(mine, loaded), name
    inputs = processor([prompt])
    with torch.no_grad():
        assert torch.equal(model(**inputs).logits, again(**inputs).logits)


def test_the_folder_holds_own_weights_and_no_pickle(model, folder):
    names = {file.name for file in folder.iterdir()}
    assert names >= {"config.json", "README.md", WEIGHTS_FILE, "tokenizer.json"}
    assert {file.suffix for file in folder.iterdir()} <= {".json", ".md", ".safetensors", ".jinja"}
    stored = load_file(folder / WEIGHTS_FILE)
    assert set(stored) == {name for name in model.state_dict() if is_own_weight(name)}
    assert any(name.endswith("xattn.attention_gate") for name in stored)
    frozen = [name for name, p in model.named_parameters() if not p.requires_grad]
    assert frozen
    assert not set(stored) & set(frozen)


def test_the_frozen_parts_are_the_same_in_another_precision(folder):
    again = MiniFlamingo.from_pretrained(folder, dtype="bfloat16")
    assert again.language.dtype == torch.bfloat16
    assert again.resampler.latents.dtype == torch.float32


@pytest.mark.parametrize("missing", ["config.json", WEIGHTS_FILE])
def test_a_folder_that_is_no_export(folder, missing):
    (folder / missing).unlink()
    with pytest.raises(ValueError, match=f"not an exported MiniFlamingo: {missing} is missing"):
        MiniFlamingo.from_pretrained(folder)


def test_a_folder_that_does_not_exist(tmp_path):
    with pytest.raises(ValueError, match="not an exported MiniFlamingo"):
        MiniFlamingo.from_pretrained(tmp_path / "nothing")
    with pytest.raises(ValueError, match=r"preprocessor_config\.json is missing"):
        MiniFlamingoProcessor.from_pretrained(tmp_path / "nothing")


def test_another_kind_of_model(folder, language_folder):
    shutil.copy(language_folder / "config.json", folder / "config.json")
    with pytest.raises(ValueError, match="of type 'llama', expected 'miniflamingo'"):
        MiniFlamingo.from_pretrained(folder)


def test_weights_that_do_not_fit_are_listed(folder):
    weights = load_file(folder / WEIGHTS_FILE)
    latents = weights.pop("resampler.latents")
    weights["resampler.patents"] = latents
    weights["resampler.norm.weight"] = torch.ones(99)
    save_file(weights, folder / WEIGHTS_FILE)
    with pytest.raises(ValueError, match="does not fit its config") as error:
        MiniFlamingo.from_pretrained(folder)
    assert re.findall(r"\n  (.+)", str(error.value)) == [
        "missing: resampler.latents",
        "unexpected: resampler.patents",
        "shape of resampler.norm.weight: found (99,), expected (16,)",
    ]


@pytest.mark.parametrize("part", ["language", "vision"])
def test_a_frozen_part_that_is_not_the_one_it_was_trained_with(
    folder, part, language_folder, clip_folder, tmp_path
):
    config = json.loads((folder / "config.json").read_text())
    if part == "language":
        other = tiny.write_language(tmp_path / "other", seed=1)
        config["language"] = str(other)
    else:
        other = shutil.copytree(clip_folder, tmp_path / "other")
        weights = load_file(other / "open_clip_model.safetensors")
        name = "visual.transformer.resblocks.1.mlp.c_fc.weight"
        weights[name] = -weights[name]
        save_file(weights, other / "open_clip_model.safetensors")
        config["vision"]["name"] = f"local-dir:{other}"
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=f"frozen {part} model .* is not the one") as error:
        MiniFlamingo.from_pretrained(folder)
    assert str(other) in str(error.value)


def test_a_frozen_part_that_moved_may_be_named_anew(model, folder, language_folder, tmp_path):
    moved = shutil.copytree(language_folder, tmp_path / "moved")
    config = json.loads((folder / "config.json").read_text())
    config["language"] = str(moved)
    (folder / "config.json").write_text(json.dumps(config))
    again = MiniFlamingo.from_pretrained(folder)
    assert torch.equal(again.resampler.latents, model.resampler.latents)
