"""Shards encoded once: the same losses, and no other encoder."""

import json
import re
from itertools import islice

import pytest
import tiny
import torch
import yaml
from conftest import RESAMPLER, XATTN

from data_prep.command import run_command
from data_prep.features import features
from miniflamingo import MiniFlamingo, MiniFlamingoProcessor
from miniflamingo.batch import PatchMedia
from miniflamingo.cli import fit
from miniflamingo.data.datamodule import InterleavedData
from miniflamingo.data.patches import read_patches
from miniflamingo.data.shards import read_samples
from miniflamingo.data.source import SourceConfig
from miniflamingo.model import flamingo
from miniflamingo.model.fingerprint import encoder_fingerprint
from miniflamingo.tokens import load_tokenizer

TEXTS = ["a red cat.", "two blue cups.", "three dogs.", "a green dog."]
ROUNDING = 2e-3
"""Of a loss, where patches are stored in bfloat16 and the encoder computes in float32."""


@pytest.fixture
def recipe(tmp_path, language_folder, clip_folder):
    """A recipe of pairs and documents; a third of the pairs has no picture."""
    for shard in range(2):
        pairs = {f"p{shard}{i}": tiny.pair(TEXTS[i], 7 * shard + i) for i in range(3)}
        pairs[f"p{shard}1"]["png"] = b"no picture"
        tiny.write_shard(tmp_path / "pairs" / f"{shard}.tar", pairs)
        documents = {f"d{shard}{i}": tiny.interleaved(TEXTS[i : i + 2], 9 * i) for i in range(3)}
        frames = [tiny.encoded(tiny.picture(seed)) for seed in (70, 71)]
        chunks = [{"text": "before"}, {"image": ["0.png", "1.png"], "text": "a clip of two."}]
        documents[f"d{shard}3"] = {
            "json": json.dumps({"chunks": chunks, "from": "me"}).encode(),
            "0.png": frames[0],
            "1.png": frames[1],
        }
        tiny.write_shard(tmp_path / "documents" / f"{shard}.tar", documents)

    def source(name):
        return {"urls": f"{tmp_path}/{name}/*.tar", "batch_size": 2, "max_frames": 2}

    settings = {
        "model": {
            "language": str(language_folder),
            "vision": {"name": f"local-dir:{clip_folder}"},
            "resampler": RESAMPLER | {"max_frames": 2},
            "xattn": XATTN,
            "source_weights": {"pairs": 1.0, "documents": 1.0},
            "optim": {"lr": 1e-3, "warmup_steps": 1},
        },
        "data": {
            "sources": {"pairs": source("pairs"), "documents": source("documents")},
            "validation": source("documents"),
            "num_workers": 0,
        },
        "trainer": {
            "accelerator": "cpu",
            "max_steps": 2,
            "val_check_interval": 2,
            "num_sanity_val_steps": 0,
            "enable_progress_bar": False,
            "default_root_dir": str(tmp_path / "run"),
            "callbacks": [
                {
                    "class_path": "miniflamingo.training.callbacks.warm_start.ResamplerWarmStart",
                    "init_args": {
                        "source": "pairs", "pictures": 4, "steps": 2, "least": 1, "most": 0.9
                    },
                }
            ],
        },
    }  # fmt: skip
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


def model_tokenizer(recipe):
    return load_tokenizer(yaml.safe_load(recipe.read_text())["model"]["language"])


def encode(recipe, source, out, *arguments):
    call = ["--recipe", recipe, "--source", source, "--out", out, *arguments]
    run_command(features, [str(each) for each in call])
    return json.loads((out / "manifest.json").read_text())


def test_features_are_the_encoders_and_the_manifest_says_whose(recipe, tmp_path, build):
    out = tmp_path / "features"
    manifest = encode(recipe, "documents", out, "--batch_size", 3)
    model = build()
    assert manifest["encoder"]["fingerprint"] == encoder_fingerprint(model.vision)
    assert manifest["samples"] == 8
    samples = list(read_samples([str(out / "000000.tar")]))
    assert [sample["__key__"] for sample in samples] == ["d00", "d01", "d02", "d03"]
    last = json.loads(samples[-1]["json"])
    assert last["from"] == "me"
    assert last["chunks"] == [
        {"text": "before"},
        {"image": "1.safetensors", "text": "a clip of two."},
    ]
    clip = read_patches(samples[-1]["1.safetensors"])
    assert clip.values.dtype == torch.bfloat16
    processor = MiniFlamingoProcessor(model_tokenizer(recipe), model.vision.preprocessing)
    frames = torch.stack([processor.transform(tiny.picture(seed)) for seed in (70, 71)])
    expected = model.vision(frames[None])[0]
    torch.testing.assert_close(clip.values.float(), expected, rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_losses_are_those_of_the_pictures(recipe, tmp_path, build, dtype):
    for source in ("pairs", "documents"):
        encode(recipe, source, tmp_path / f"{source}-features", "--dtype", dtype)
    model = build(opened=True, resampler={"max_frames": 2})
    encoder = encoder_fingerprint(model.vision)
    processor = MiniFlamingoProcessor(model_tokenizer(recipe), model.vision.preprocessing, encoder)

    def data(ending):
        sources = {
            name: SourceConfig(f"{tmp_path}/{name}{ending}/*.tar", 2, max_frames=2)
            for name in ("pairs", "documents")
        }
        return InterleavedData(processor, sources, sources["documents"], num_workers=0)

    def losses(data, source):
        for batch in islice(data.source_loader(source), 3):
            yield batch.keys, tiny.loss_of(model, batch).item()

    from_pixels, from_features = data(""), data("-features")
    assert isinstance(next(iter(from_features.source_loader("documents"))).media, PatchMedia)
    both = list(
        zip(losses(from_pixels, "documents"), losses(from_features, "documents"), strict=True)
    )
    for (keys, expected), (read, loss) in both:
        assert read == keys
        assert loss == pytest.approx(expected, rel=ROUNDING)
    # Pairs without a usable picture are not in the feature shards at all.
    keys = [key for read, _ in losses(from_features, "pairs") for key in read]
    assert set(keys) <= {"p00", "p02", "p10", "p12"}
    manifest = json.loads((tmp_path / "pairs-features" / "manifest.json").read_text())
    assert manifest["dropped"]["image_broken"]["count"] == 2


def test_training_on_features_with_a_warm_start_and_from_another_encoder(
    recipe, tmp_path, monkeypatch
):
    settings = yaml.safe_load(recipe.read_text())
    for name in ("pairs", "documents"):
        encode(recipe, name, tmp_path / f"{name}-features")
        settings["data"]["sources"][name]["urls"] = f"{tmp_path}/{name}-features/*.tar"
    settings["data"]["validation"]["urls"] = f"{tmp_path}/documents-features/*.tar"
    trained = tmp_path / "features.yaml"
    trained.write_text(yaml.safe_dump(settings))
    fit.main(["fit", "--config", str(trained)])
    exported = tmp_path / "run" / "model"
    model = MiniFlamingo.from_pretrained(exported)
    processor = MiniFlamingoProcessor.from_pretrained(exported)
    assert processor.encoder == encoder_fingerprint(model.vision)

    other = tiny.write_clip(tmp_path / "another clip", seed=5)
    settings["model"]["vision"]["name"] = f"local-dir:{other}"
    trained.write_text(yaml.safe_dump(settings))
    with monkeypatch.context() as patched:
        patched.setattr(flamingo, "load_language", None)  # nothing of it is asked for
        manifest = re.escape(str(tmp_path / "documents-features" / "manifest.json"))
        with pytest.raises(
            ValueError, match=rf"data.sources.documents .*fingerprint .*: {manifest}"
        ):
            fit.main(["fit", "--config", str(trained)])
    for name in ("pairs", "documents"):  # as where shards were copied alone
        (tmp_path / f"{name}-features" / "manifest.json").unlink()
    with pytest.raises(ValueError, match=r"were made by the image encoder .* but this model's is"):
        fit.main(["fit", "--config", str(trained), "--overwrite"])


def test_unknown_sources_and_recipes_are_told(recipe, tmp_path, capsys):
    for call, message in (
        ((recipe, "pears", tmp_path / "x"), "has the sources ['documents', 'pairs', 'validation']"),
        ((tmp_path / "none.yaml", "pairs", tmp_path / "x"), "there is no such file"),
    ):
        with pytest.raises(SystemExit) as end:
            encode(*call)
        assert end.value.code == 2
        assert message in capsys.readouterr().err
