"""The commands as a user types them, on an exported tiny model."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny
from PIL import Image

from miniflamingo import MiniFlamingo, MiniFlamingoProcessor
from miniflamingo.__main__ import COMMANDS, usage
from miniflamingo.cli import caption, fewshot

VOCABULARY = {"objects": {"cat": ["cat", "cats"], "dog": ["dog", "dogs"]}}


@pytest.fixture
def exported(
    build: Callable[..., MiniFlamingo], processor: MiniFlamingoProcessor, tmp_path: Path
) -> str:
    """A folder as training exports it."""
    folder = tmp_path / "model"
    build(opened=True).save_pretrained(folder)
    processor.save_pretrained(folder)
    return str(folder)


@pytest.fixture
def task(tmp_path: Path) -> str:
    """A task file over five documents of three chunks."""
    samples = {}
    for i in range(5):
        files = tiny.interleaved(["a cat.", "two dogs.", "a dog."], 10 * i)
        meta = json.loads(files["json"]) | {"facts": {"objects": ["dog"]}}
        samples[f"q{i}"] = files | {"json": json.dumps(meta).encode()}
    shard = tiny.write_shard(tmp_path / "fewshot" / "0.tar", samples)
    words = tmp_path / "vocabulary.json"
    words.write_text(json.dumps(VOCABULARY))
    file = tmp_path / "task.yaml"
    decoding = "{max_new_tokens: 4, beams: 2}"
    file.write_text(f"name: tiny\nshards: {shard}\nvocabulary: {words}\ndecoding: {decoding}\n")
    return str(file)


def test_fewshot_writes_what_the_readme_says(exported, task, tmp_path, capsys):
    out = tmp_path / "out"
    arguments = ["--model", exported, "--task", task, "--shots", "0,2", "--out", str(out)]
    fewshot.main([*arguments, "--baselines"])
    assert "cider" in capsys.readouterr().out
    results = json.loads((out / "results.json").read_text())
    assert list(results["metrics"]) == ["0", "2"]
    assert {"cider", "bleu4", "objects", "swapped_cider"} <= results["metrics"]["2"].keys()
    assert set(results["baselines"]) == {
        "text-only language model, 2 shots",
        "untrained model, 2 shots",
    }
    rows = [json.loads(line) for line in (out / "predictions.jsonl").read_text().splitlines()]
    assert len(rows) == 5 * (2 * 2 + 2)
    assert {row["truth"] for row in rows} == {"a dog."}
    assert "| shots | 0 | 2 |" in (out / "report.md").read_text()
    for name in ("curve.png", "samples.png"):
        assert min(Image.open(out / name).size) > 200


def test_results_repeat(exported, task, tmp_path):
    texts = []
    for name in ("one", "two"):
        out = tmp_path / name
        fewshot.main(["--model", exported, "--task", task, "--shots", "1", "--out", str(out)])
        texts.append((out / "predictions.jsonl").read_text())
    assert texts[0] == texts[1]


def test_caption_prints_one_line_a_picture(exported, tmp_path, capsys):
    files = []
    for seed in range(3):
        files.append(str(tmp_path / f"{seed}.png"))
        tiny.picture(seed, 20).save(files[-1])
    arguments = ["--model", exported, "--shot", files[0], "a cat.", *files[1:]]
    caption.main([*arguments, "--max-new-tokens", "4", "--json"])
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["image"] for row in rows] == files[1:]
    assert all(isinstance(row["caption"], str) for row in rows)


def test_a_missing_picture_is_told_before_the_model_loads():
    with pytest.raises(ValueError, match=r"cannot read the picture nope\.png"):
        caption.main(["--model", "no/such/model", "nope.png"])


def test_a_folder_that_is_no_export_is_told(tmp_path):
    file = tmp_path / "0.png"
    tiny.picture(0).save(file)
    with pytest.raises(ValueError, match="is not an exported MiniFlamingo"):
        caption.main(["--model", str(tmp_path), str(file)])


def test_too_many_shots_are_told_before_the_model_loads(task, tmp_path):
    arguments = ["--model", "no/such/model", "--task", task, "--out", str(tmp_path)]
    with pytest.raises(ValueError, match="asks for 3 but the support set of 'q0' holds 2"):
        fewshot.main([*arguments, "--shots", "3"])


@pytest.mark.parametrize("shots", ["a,b", "-1", ""])
def test_shots_that_are_no_numbers_are_refused(shots, task, tmp_path, capsys):
    with pytest.raises(SystemExit):
        fewshot.main(["--model", "m", "--task", task, "--out", str(tmp_path), f"--shots={shots}"])
    assert "--shots" in capsys.readouterr().err


def test_a_users_mistake_ends_with_one_line_and_code_2():
    command = [sys.executable, "-m", "miniflamingo", "caption", "--model", "m", "nope.png"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1].startswith("miniflamingo caption: cannot read")
    assert "Traceback" not in done.stderr


def test_usage_names_every_command():
    assert all(name in usage() for name in COMMANDS)
