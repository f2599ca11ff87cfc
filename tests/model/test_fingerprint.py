"""A frozen part that changed in any way that matters is another one; a precision is not."""

import json

import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file

from miniflamingo import MiniFlamingo, MiniFlamingoProcessor
from miniflamingo.generation.reader import Reader
from miniflamingo.model.fingerprint import (
    SAMPLED,
    VERSION,
    differing_settings,
    fingerprint,
    fingerprint_like,
    sampled_fingerprint,
)


@pytest.fixture
def exported(build, processor, tmp_path):
    """A model whose frozen parts are its own to change, and where they are."""
    language = tiny.write_language(tmp_path / "language")
    clip = tiny.write_clip(tmp_path / "clip")
    build(language=language, clip=clip).save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    return tmp_path


def test_every_value_counts_and_a_precision_does_not():
    weights = {"a": torch.randn(5000), "b": torch.randn(3, 7)}
    known = fingerprint(weights)
    assert known.startswith(VERSION)
    assert fingerprint({n: w.bfloat16() for n, w in weights.items()}) == known
    for place in (1, 4321):
        other = weights["a"].clone()
        other[place] += 1
        assert fingerprint(weights | {"a": other}) != known
        assert fingerprint_like(known, weights | {"a": other}) != known
    assert fingerprint(weights | {"b": weights["b"].view(7, 3)}) != known


def test_an_older_fingerprint_is_compared_as_it_was_made():
    weights = {"a": torch.randn(5000)}
    known = sampled_fingerprint(weights)
    assert fingerprint_like(known, weights) == known
    weights["a"][:: 5000 // SAMPLED] += 1
    assert fingerprint_like(known, weights) != known


def test_a_value_between_the_sampled_ones_is_seen(exported):
    file = exported / "language" / "model.safetensors"
    weights = load_file(file)
    name = max(weights, key=lambda each: weights[each].numel())
    weights[name].view(-1)[1] += 1
    save_file(weights, file, {"format": "pt"})
    with pytest.raises(ValueError, match=r"frozen language model .*fingerprint"):
        MiniFlamingo.from_pretrained(exported / "model")


@pytest.mark.parametrize(
    ("file", "section", "name", "value"),
    [
        ("language/config.json", None, "rms_norm_eps", 0.5),
        ("language/config.json", None, "hidden_act", "gelu"),
        ("clip/open_clip_config.json", "model_cfg", "quick_gelu", True),
    ],
)
def test_another_arithmetic_is_another_model(exported, file, section, name, value):
    path = exported / file
    config = json.loads(path.read_text())
    place = config[section] if section else config
    if section:
        place.setdefault(name, False)
        path.write_text(json.dumps(config))
        # What it was trained with says so too.
        saved = exported / "model" / "config.json"
        text = json.loads(saved.read_text())
        text["vision_tower"][name] = False
        saved.write_text(json.dumps(text))
    place[name] = value
    path.write_text(json.dumps(config))
    with pytest.raises(ValueError, match=f"{name}: {value}, trained with"):
        MiniFlamingo.from_pretrained(exported / "model")


def test_what_is_not_arithmetic_may_change(exported):
    path = exported / "language" / "config.json"
    config = json.loads(path.read_text())
    config |= {"use_cache": False, "_name_or_path": "elsewhere", "pad_token_id": 3}
    path.write_text(json.dumps(config))
    MiniFlamingo.from_pretrained(exported / "model")


def test_settings_that_one_side_does_not_know_do_not_differ():
    before, now = {"a": 1, "b": {"c": [1, 2]}, "old": 1}, {"a": 1, "b": {"c": (1, 2)}, "new": 2}
    assert not differing_settings(before, now)
    assert differing_settings(before, now | {"b": {"c": [1, 3]}}) == [
        "b.c: [1, 3], trained with [1, 2]"
    ]


@pytest.mark.parametrize("left", [None, {}, {"language": "v2-x"}])
def test_an_export_without_fingerprints_is_refused(exported, left):
    file = exported / "model" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"fingerprints": left}))
    with pytest.raises(ValueError, match=r"no fingerprints of the frozen .*vision"):
        MiniFlamingo.from_pretrained(exported / "model")


def test_a_tokenizer_that_was_edited_is_refused(exported):
    file = exported / "model" / "tokenizer.json"
    content = json.loads(file.read_text())
    words = content["model"]["vocab"]
    words["\u0120cat"], words["\u0120dog"] = words["\u0120dog"], words["\u0120cat"]
    file.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="the tokenizer of this processor are not those"):
        MiniFlamingoProcessor.from_pretrained(exported / "model")


@pytest.mark.parametrize("name", ["mean", "size"])
def test_pixels_of_another_normalisation_are_refused(exported, name):
    processor = MiniFlamingoProcessor.from_pretrained(exported / "model")
    model = MiniFlamingo.from_pretrained(exported / "model")
    model.config.fingerprints |= processor.fingerprints()  # as training does
    Reader(model, processor)
    processor.preprocessing = processor.preprocessing | {name: 17}
    with pytest.raises(ValueError, match="preprocessing of this processor"):
        Reader(model, processor)


def test_using_a_tokenizer_does_not_change_it(exported):
    processor = MiniFlamingoProcessor.from_pretrained(exported / "model")
    before = processor.fingerprints()
    processor.tokenizer(["a", "a cat"], truncation=True, max_length=1)
    processor.save_pretrained(exported / "again")
    again = MiniFlamingoProcessor.from_pretrained(exported / "again")
    assert before == processor.fingerprints() == again.fingerprints()
