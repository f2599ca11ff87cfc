"""``miniflamingo latents`` as a user types it, on an exported tiny model."""

import json
from pathlib import Path

import pytest
import tiny
import torch
from PIL import Image

from miniflamingo import MiniFlamingo, MiniFlamingoProcessor
from miniflamingo.cli.latents import main


@pytest.fixture
def exported(build, processor, tmp_path) -> str:
    """A folder as training exports it."""
    folder = tmp_path / "model"
    build(opened=True).save_pretrained(folder)
    processor.save_pretrained(folder)
    return str(folder)


@pytest.fixture
def pictures(tmp_path) -> list[str]:
    """Two files of one name in different folders."""
    files = []
    for seed in range(2):
        file = tmp_path / str(seed) / "cat.png"
        file.parent.mkdir()
        tiny.picture(seed, 20 + 5 * seed).save(file)
        files.append(str(file))
    return files


def test_prove_prints_tables_and_sentences(exported, pictures, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    main(["prove", "--model", exported, *pictures, "--caption", "two [red] cats."])
    shown = " ".join(capsys.readouterr().out.split())
    assert "resampler.latents" in shown
    assert "3 latents x 16" in shown
    assert "largest difference 0, and 0 from the parameter resampler.latents." in shown
    assert 'The loss of the caption "two [red] cats.", ' in shown
    assert "reaches 3 of the 3 latents through the frozen language model" in shown
    assert "0 require a gradient and 0 got one." in shown


def test_prove_for_scripts(exported, pictures, capsys):
    main(["prove", "--model", exported, *pictures, "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["images"] == pictures
    assert found["queries_apart"] == found["queries_from_parameter"] == 0
    assert found["outputs_apart"] > 0
    assert min(found["gradient_norms"]) > 0
    for part in found["frozen"].values():
        assert (part["requiring_gradient"], part["with_gradient"]) == (0, 0)


def test_show_writes_pictures_and_numbers(exported, pictures, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    out = tmp_path / "new" / "out"
    main(["show", "--model", exported, *pictures, "--out", str(out)])
    shown = capsys.readouterr().out
    numbers = json.loads((out / "latents.json").read_text())["images"]
    assert [each["image"] for each in numbers] == pictures
    files = [name for each in numbers for name in each["files"]]
    assert "0_cat_layer1.png" in files
    assert "1_cat_layer2.png" in files
    assert len(set(files)) == len(files) >= 4
    assert {file.name for file in out.iterdir()} == {*files, "latents.json"}
    for name in files:
        assert min(Image.open(out / name).size) > 200
        assert str(out / name) in shown
    assert "attention on patches" in shown


def test_a_model_that_says_nothing_is_told(exported, pictures, tmp_path, capsys, monkeypatch):
    end = MiniFlamingoProcessor.from_pretrained(exported).tokens.end_of_chunk
    monkeypatch.setattr(MiniFlamingo, "generate", lambda self, **kwargs: torch.tensor([[end]]))
    main(["show", "--model", exported, pictures[0], "--out", str(tmp_path / "out")])
    assert "the model says nothing of this picture" in capsys.readouterr().out
    (numbers,) = json.loads((tmp_path / "out" / "latents.json").read_text())["images"]
    assert (numbers["words"], numbers["files"]) == ([], ["0_cat_layer1.png", "0_cat_layer2.png"])


@pytest.mark.parametrize("command", ["prove", "show"])
def test_a_missing_picture_is_told_before_the_model_loads(command, pictures, tmp_path):
    out = ["--out", str(tmp_path)] if command == "show" else []
    with pytest.raises(ValueError, match=r"cannot read the picture nope\.png"):
        main([command, "--model", "no/such/model", pictures[0], "nope.png", *out])


@pytest.mark.parametrize("command", ["prove", "show"])
def test_a_folder_that_is_no_export_is_told(command, pictures, tmp_path):
    out = ["--out", str(tmp_path / "out")] if command == "show" else []
    with pytest.raises(ValueError, match="is not an exported MiniFlamingo"):
        main([command, "--model", str(tmp_path), *pictures, *out])
    assert not (tmp_path / "out").exists()


def test_one_picture_is_too_few_to_prove(pictures, capsys):
    with pytest.raises(SystemExit):
        main(["prove", "--model", "m", pictures[0]])
    assert "required: IMAGE_B" in capsys.readouterr().err


def test_a_file_is_no_folder_for_pictures(pictures):
    with pytest.raises(ValueError, match=r"--out .*cat\.png is a file; give a folder"):
        main(["show", "--model", "no/such/model", pictures[0], "--out", pictures[1]])
    assert Path(pictures[1]).is_file()


@pytest.fixture
def shards(tmp_path) -> str:
    """Held-out documents of two pictures each."""
    texts = ["a red cat.", "two blue cups.", "three dogs."]
    documents = {f"d{i}": tiny.interleaved(texts[i : i + 2] or texts, 40 + 2 * i) for i in range(3)}
    return str(tiny.write_shard(tmp_path / "held_out" / "0.tar", documents))


def test_clusters_measures_and_draws(exported, shards, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "140")
    out = tmp_path / "out"
    options = ["--data", shards, "--pictures", "5", "--out", str(out)]
    main(["clusters", "--model", exported, *options])
    shown = capsys.readouterr().out
    found = json.loads((out / "agreement.json").read_text())
    assert found["pictures"] == 5
    assert len(found["agreement"]) == 8
    for row in found["agreement"]:
        assert row["ari"]["low"] <= row["ari"]["value"] <= row["ari"]["high"] <= 1
    assert "latents drawn anew" in shown
    for name in ("agreement.png", "groups.png"):
        assert min(Image.open(out / name).size) > 200
        assert name in shown


def test_grounding_measures_and_draws(exported, shards, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "140")
    out = tmp_path / "out"
    main(["grounding", "--model", exported, "--data", shards, "--out", str(out)])
    shown = capsys.readouterr().out
    found = json.loads((out / "grounding.json").read_text())
    assert found["documents"] == 3
    assert found["gated_before"] == [1, 2]
    assert len(found["loss"]) == 8
    assert len(found["without_latent"]) == 3
    assert found["loss"]["real"] != pytest.approx(found["loss"]["attention_closed"], rel=1e-3)
    assert "attention closed, feed-forward open, before layer 2" in shown
    assert min(Image.open(out / "grounding.png").size) > 200


@pytest.mark.parametrize("command", ["clusters", "grounding"])
def test_bad_data_and_folders_are_told(command, exported, pictures, tmp_path):
    out = ["--out", str(tmp_path / "out")]
    nothing = str(tmp_path / "*.tar")
    with pytest.raises(ValueError, match="no shards at"):
        main([command, "--model", exported, "--data", nothing, *out])
    text = tiny.write_shard(tmp_path / "text.tar", {"a": {"json": b"[]"}})  # no object
    with pytest.raises(ValueError, match="hold no usable documents"):
        main([command, "--model", exported, "--data", str(text), *out])
    with pytest.raises(ValueError, match=r"--out .*cat\.png is a file; give a folder"):
        main([command, "--model", exported, "--data", nothing, "--out", pictures[0]])


def test_documents_without_pictures_have_nothing_to_cluster(exported, tmp_path):
    page = json.dumps({"chunks": [{"text": "two cats"}]}).encode()
    shard = tiny.write_shard(tmp_path / "text.tar", {"a": {"json": page}})
    options = ["--data", str(shard), "--out", str(tmp_path / "out")]
    with pytest.raises(ValueError, match="none of 1 documents holds a picture"):
        main(["clusters", "--model", exported, *options])
