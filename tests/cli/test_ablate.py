"""``miniflamingo latents ablate`` on the toy world: runs, results, and what is kept of them."""

import json

import pytest
import tiny
from PIL import Image
from training.conftest import config, world, write  # noqa: F401

from miniflamingo.cli.latents import main


@pytest.fixture
def task(tmp_path) -> str:
    """Two queries with an example each."""
    samples = {f"q{i}": tiny.interleaved(["a cat.", "two dogs."], 10 * i) for i in range(2)}
    shard = tiny.write_shard(tmp_path / "fewshot" / "0.tar", samples)
    file = tmp_path / "task.yaml"
    file.write_text(
        f"name: tiny\nqueries: {{layout: shards, urls: {shard}}}\ntext_examples: 0\n"
        "decoding: {max_new_tokens: 3, beams: 1}\n"
    )
    return str(file)


@pytest.fixture
def options(config, write, task, tmp_path):  # noqa: F811
    config["trainer"]["max_steps"] = 2
    config["trainer"]["enable_progress_bar"] = False
    out = ["--out", str(tmp_path / "out"), "--shots", "1"]
    return ["ablate", "--config", write(config), "--task", task, *out]


def test_runs_are_made_once_and_told_together(options, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    variants = ["--variants", "learned", "mean of patches", "--seeds"]
    main([*options, *variants, "0"])
    out = tmp_path / "out"
    rows = [json.loads(line) for line in (out / "ablation.jsonl").read_text().splitlines()]
    assert [(row["variant"], row["seed"], row["latents"]) for row in rows] == [
        ("learned", 0, 3),
        ("mean of patches", 0, 1),
    ]
    learned, mean = rows
    assert learned["trained"] > mean["trained"]
    assert len(learned["without_latent"]) == 3
    assert mean["without_latent"] == []
    for row in rows:
        assert row["loss"] > 0
        assert 0 <= row["words_named"] <= 1
        assert row["cider"] >= 0
        assert row["seconds"] > 0
    assert min(Image.open(out / "ablation.png").size) > 100

    written = (out / "learned-0" / "result.json").stat().st_mtime_ns
    capsys.readouterr()
    main([*options, *variants, "0", "1"])
    assert "learned, seed 0" not in (shown := capsys.readouterr().out)
    assert "learned, seed 1" in shown
    assert (out / "learned-0" / "result.json").stat().st_mtime_ns == written
    lines = (out / "ablation.md").read_text().splitlines()
    assert [line.split("|")[1:3] for line in lines[2:]] == [
        [" learned ", " 2 "],
        [" mean of patches ", " 2 "],
    ]

    recipe = tmp_path / "config.yaml"
    recipe.write_text(recipe.read_text().replace("max_steps: 2", "max_steps: 3"))
    with pytest.raises(ValueError, match="holds runs with another recipe; give --out a new folder"):
        main([*options, *variants, "0"])


def test_bad_input_is_told_before_any_run(options, tmp_path, capsys):
    with pytest.raises(ValueError, match="no task file"):
        main([*options, "--task", "nothing"])
    with pytest.raises(ValueError, match="shots"):
        main([*options, "--shots", "7"])
    with pytest.raises(ValueError, match=r"nowhere\.yaml is no file; give a recipe"):
        main([*options, "--config", "nowhere.yaml"])
    with pytest.raises(SystemExit):
        main([*options, "--variants", "seventeen latents"])
    assert "invalid choice: 'seventeen latents'" in capsys.readouterr().err
    assert not list((tmp_path / "out").glob("*"))
