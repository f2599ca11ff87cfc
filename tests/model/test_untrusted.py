"""Folders of models that were passed on run no code."""

import json
import os
import pickle

import pytest
import tiny

from miniflamingo.cost.meta_model import read_language_config
from miniflamingo.evaluation.metrics.clip_score import load_clip_tokenizer
from miniflamingo.model.config import VisionConfig
from miniflamingo.model.language import load_language
from miniflamingo.model.vision import load_vision
from miniflamingo.tokens import load_tokenizer

OWN = "open({marker!r}, 'w').close()\nclass Own:\n    pass\n"


class Calls:
    def __init__(self, folder):
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (self.folder,)


def with_own_code(folder, marker, monkeypatch):
    """Let a folder's tokenizer and configuration ask for a class of its own."""
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("a question was asked"))
    (folder / "own.py").write_text(OWN.format(marker=str(marker)))
    named = {"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": ["own.Own", None]}}
    (folder / "tokenizer_config.json").write_text(json.dumps(named))
    return folder


def test_the_tokenizer_of_a_clip_folder_runs_no_code(tmp_path, monkeypatch):
    clip = tiny.write_clip(tmp_path / "clip")
    config = json.loads((clip / "open_clip_config.json").read_text())
    config["model_cfg"]["text_cfg"] |= {
        "hf_tokenizer_name": "x",
        "tokenizer_kwargs": {"trust_remote_code": True},
    }
    (clip / "open_clip_config.json").write_text(json.dumps(config))
    with_own_code(clip, tmp_path / "ran", monkeypatch)
    with pytest.raises(ValueError, match="trust_remote_code"):
        load_clip_tokenizer(f"local-dir:{clip}")
    assert not (tmp_path / "ran").exists()


def test_a_language_model_that_needs_its_own_code_is_refused_without_a_question(
    tmp_path, monkeypatch
):
    language = tiny.write_language(tmp_path / "language")
    for file in language.glob("tokenizer*"):
        file.unlink()
    with_own_code(language, tmp_path / "ran", monkeypatch)
    config = json.loads((language / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.Own"}}
    (language / "config.json").write_text(json.dumps(config))
    for load in (load_tokenizer, read_language_config, lambda name: load_language(name, "auto")):
        with pytest.raises(ValueError, match="contains custom code which must be executed"):
            load(str(language))
    assert not (tmp_path / "ran").exists()


def test_a_pickle_in_place_of_weights_is_refused(tmp_path):
    language = tiny.write_language(tmp_path / "language")
    (language / "model.safetensors").unlink()
    content = pickle.dumps(Calls(str(tmp_path / "ran")))
    (language / "pytorch_model.bin").write_bytes(content)
    with pytest.raises(ValueError, match=r"language.*pickle.*safetensors"):
        load_language(str(language), "auto")
    assert not (tmp_path / "ran").exists()


def test_a_text_tower_that_needs_its_own_code_is_refused_without_a_question(tmp_path, monkeypatch):
    clip = tiny.write_clip(tmp_path / "clip")
    tower = with_own_code(tiny.write_language(tmp_path / "text"), tmp_path / "ran", monkeypatch)
    config = json.loads((tower / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.Own"}}
    (tower / "config.json").write_text(json.dumps(config))
    file = clip / "open_clip_config.json"
    settings = json.loads(file.read_text())
    settings["model_cfg"]["text_cfg"] |= {"hf_model_name": str(tower)}
    file.write_text(json.dumps(settings))
    with pytest.raises(ValueError, match=r"(?s)the text tower .*custom code"):
        load_vision(VisionConfig(f"local-dir:{clip}"))
    assert not (tmp_path / "ran").exists()
