"""A folder and a checkpoint that version 0.1 wrote load, with the very weights and output."""

import json
import shutil
from pathlib import Path

import pytest
import tiny
import torch
from conftest import RESAMPLER, XATTN
from safetensors.torch import load_file

from miniflamingo import Chunk, Document, MiniFlamingo, MiniFlamingoProcessor
from miniflamingo.model.config import (
    ResamplerConfig,
    VisionConfig,
    XattnConfig,
)
from miniflamingo.model.export import fingerprints, own_state_dict, read_config
from miniflamingo.training.checkpoint import read_checkpoint
from miniflamingo.training.module import FlamingoModule
from miniflamingo.training.optim import OptimConfig

GOLDEN = Path(__file__).parent.parent / "golden"


@pytest.fixture
def frozen(language_folder, clip_folder):
    """Where the frozen parts are: built from the same seed as when the files were written."""
    return {"LANGUAGE": str(language_folder), "CLIP": str(clip_folder)}


@pytest.fixture
def folder(frozen, tmp_path):
    """The folder, with the places of the frozen parts of this run."""
    shutil.copytree(GOLDEN / "export_0_1", tmp_path / "model")
    config = tmp_path / "model" / "config.json"
    text = config.read_text()
    for name, place in frozen.items():
        text = text.replace(name, place)
    config.write_text(text)
    return tmp_path / "model"


@pytest.fixture
def checked(folder):
    """The folder, with fingerprints as they are computed today: weights are what is tested."""
    file = folder / "config.json"
    model = MiniFlamingo.build(read_config(folder))
    config = json.loads(file.read_text()) | {"fingerprints": fingerprints(model)}
    file.write_text(json.dumps(config))
    return folder


def test_an_exported_folder_has_its_weights_and_output(checked):
    model = MiniFlamingo.from_pretrained(checked)
    stored = load_file(checked / "model.safetensors")
    loaded = own_state_dict(model)
    assert stored.keys() == loaded.keys()
    assert all(torch.equal(stored[name], loaded[name]) for name in stored)
    processor = MiniFlamingoProcessor.from_pretrained(checked)
    prompt = Document([Chunk(tiny.picture(0), "a cat"), Chunk(tiny.picture(1))])
    inputs = processor([prompt])
    expected = load_file(GOLDEN / "export_0_1_logits.safetensors")
    assert torch.equal(inputs["input_ids"], expected["input_ids"])
    with torch.no_grad():
        torch.testing.assert_close(model(**inputs).logits, expected["logits"])


def test_a_checkpoint_has_the_weights_of_the_folder(frozen):
    found = read_checkpoint(GOLDEN / "checkpoint_0_1.ckpt")
    module = FlamingoModule(
        frozen["LANGUAGE"],
        VisionConfig(f"local-dir:{frozen['CLIP']}"),
        ResamplerConfig(**RESAMPLER | {"depth": 1}),
        XattnConfig(**XATTN | {"start": "zero_outputs"}),
        OptimConfig(lr=1e-2),
        {"pairs": 1.0},
    )
    module.on_load_checkpoint(found)
    module.load_state_dict(found["state_dict"], strict=False)
    stored = load_file(GOLDEN / "export_0_1" / "model.safetensors")
    loaded = own_state_dict(module.model)
    assert stored.keys() == loaded.keys()
    assert all(torch.equal(stored[name], loaded[name]) for name in stored)


def test_older_fingerprints_are_still_compared_and_new_ones_written(folder, tmp_path, caplog):
    model = MiniFlamingo.from_pretrained(folder)
    assert "exported by an older version" in caplog.text
    model.save_pretrained(tmp_path / "again")
    caplog.clear()
    MiniFlamingo.from_pretrained(tmp_path / "again")
    assert not caplog.text
