"""Patch features of another encoder are told by the manifest beside them; weights stay unread."""

import json
from functools import cache

import pytest
from jsonargparse import Namespace

from miniflamingo.cost.meta_model import outline_vision
from miniflamingo.data.source import SourceConfig
from miniflamingo.model.config import VisionConfig
from miniflamingo.model.fingerprint import encoder_fingerprint
from miniflamingo.model.vision import load_vision
from miniflamingo.recipe import feature_checks
from miniflamingo.recipe.feature_checks import check_features

PUBLISHED = {"name": "ViT-B-32", "pretrained": "openai", "stages": None, "image_size": None}


outlined = cache(lambda vision: outline_vision(VisionConfig(**json.loads(vision))))


@pytest.fixture
def check(tmp_path):
    """Check a recipe's encoder against a manifest beside one shard."""
    (tmp_path / "0.tar").write_bytes(b"")
    source = SourceConfig(f"{tmp_path}/*.tar", 1)
    data = Namespace(sources={"pairs": source}, validation=source)

    def check(vision: dict, manifest: object) -> None:
        text = manifest if isinstance(manifest, str) else json.dumps(manifest)
        (tmp_path / "manifest.json").write_text(text)
        check_features(data, outlined(json.dumps(vision)))

    return check


def made_by(vision: dict, fingerprint: str = "0" * 64, size=(224, 224)) -> dict:
    whole = {"dtype": "float32", **vision}
    note = {"fingerprint": fingerprint, "vision": whole, "preprocessing": {"size": size}}
    return {"command": "features", "encoder": note}


@pytest.mark.parametrize(
    ("change", "size", "message"),
    [
        (
            {"pretrained": "laion2b_s34b_b79k"},
            224,
            r"weights laion2b_s34b_b79k instead of openai\)",
        ),
        ({"name": "ViT-B-16"}, [224, 224], r"\(name ViT-B-16 instead of ViT-B-32\)"),
        ({"stages": [3, 4]}, 224, r"\(stages \[3, 4\] instead of None\)"),
        ({"image_size": 336}, [336, 336], r"\(size \[336, 336\] instead of \[224, 224\]\)"),
    ],
)
def test_published_encoders_are_compared_without_weights(check, monkeypatch, change, size, message):
    monkeypatch.setattr(feature_checks, "load_vision", None)
    check(PUBLISHED, made_by({**PUBLISHED, "name": "ViT-B/32"}))
    with pytest.raises(ValueError, match=f"^data.sources.pairs holds patch .*{message}.*Set model"):
        check(PUBLISHED, made_by({**PUBLISHED, **change}, size=size))


def test_of_a_folder_the_weights_decide(check, clip_folder):
    vision = {**PUBLISHED, "name": f"local-dir:{clip_folder}", "pretrained": None}
    encoder = load_vision(VisionConfig(**vision))
    right, older = encoder_fingerprint(encoder), encoder_fingerprint(encoder, known="")
    elsewhere = {**vision, "name": "local-dir:/moved"}
    check(vision, made_by(elsewhere, right, 16))
    check(vision, made_by(elsewhere, older, 16))
    with pytest.raises(ValueError, match=f"fingerprint 000000000000 instead of {older[:12]}"):
        check(vision, made_by(vision, size=16))


@pytest.mark.parametrize("manifest", ['{"command": "pairs"}', "cut sho", '{"encoder": {}}', "[]"])
def test_other_manifests_stop_nothing(check, monkeypatch, caplog, manifest):
    monkeypatch.setattr(feature_checks, "load_vision", None)
    check(PUBLISHED, manifest)
    assert ("is no manifest as data_prep writes them" in caplog.text) == ("pairs" not in manifest)
