"""``miniflamingo fewshot`` as a user types it, on an exported tiny model."""

import json
import os
import subprocess
import sys
from pathlib import Path

import official
import pytest
import tiny
from PIL import Image
from sklearn.metrics import roc_auc_score

from miniflamingo.cli import fewshot
from miniflamingo.evaluation import runner

VOCABULARY = {"objects": {"cat": ["cat", "cats"], "dog": ["dog", "dogs"]}}


@pytest.fixture
def task(tmp_path: Path) -> str:
    """A task file over five documents of three chunks, as the embedded world has them."""
    samples = {}
    for i in range(5):
        files = tiny.interleaved(["a cat.", "two dogs.", "a dog."], 10 * i)
        meta = json.loads(files["json"]) | {"facts": {"objects": ["dog"]}}
        samples[f"q{i}"] = files | {"json": json.dumps(meta).encode()}
    shard = tiny.write_shard(tmp_path / "fewshot" / "0.tar", samples)
    words = tmp_path / "vocabulary.json"
    words.write_text(json.dumps(VOCABULARY))
    file = tmp_path / "task.yaml"
    file.write_text(
        f"name: tiny\nqueries: {{layout: shards, urls: {shard}}}\nvocabulary: {words}\n"
        "text_examples: 0\ndecoding: {max_new_tokens: 4, beams: 2}\n"
    )
    return str(file)


@pytest.fixture
def run(exported, task, tmp_path):
    """Run the command into a folder and return that."""

    def run(*arguments: str, out: str = "out", task: str = task) -> Path:
        folder = tmp_path / out
        fewshot.main(["--model", exported, "--task", task, "--out", str(folder), *arguments])
        return folder

    return run


def predictions(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]


def test_fewshot_writes_what_the_readme_says(run, capsys):
    out = run("--shots", "0,2", "--seeds", "2", "--baselines")
    shown = capsys.readouterr().out
    assert "CIDEr-D" in shown
    assert "Is it looking? At 2 shots cider" in " ".join(shown.split())
    results = json.loads((out / "results.json").read_text())
    found = {(each["condition"], each["shots"]): each for each in results["summaries"]}
    assert set(found) == {
        ("real", 0),
        ("real", 2),
        ("query_swapped", 0),
        ("query_swapped", 2),
        ("no_media", 0),
        ("no_media", 2),
        ("support_shuffled", 2),
        ("text-only language model", 2),
        ("untrained model", 2),
    }
    assert {"cider", "bleu4", "objects"} <= found["real", 2]["scores"].keys()
    assert found["real", 2]["seeds"] == [0, 1]
    assert found["no_media", 2]["loss"] != found["real", 2]["loss"]
    rows = predictions(out)
    assert len(rows) == 5 * (2 * 2 + 5 + 2)
    assert {row["references"][0] for row in rows} == {"a dog."}
    assert {tuple(row["support"]) for row in rows if row["shots"] == 2 and row["key"] == "q0"} == {
        ("q0/0", "q0/1"),
        ("q0/1", "q0/0"),
    }
    for name in ("curve.png", "samples.png"):
        assert min(Image.open(out / name).size) > 200
    assert "Is it looking?" in (out / "report.md").read_text()


def test_results_repeat_whatever_the_batch_size(run):
    one = run("--shots", "1", "--looking", "2", "--batch-size", "1", out="one")
    two = run("--shots", "1", "--looking", "2", "--batch-size", "3", out="two")
    for row, other in zip(predictions(one), predictions(two), strict=True):
        for loss in (row.pop("loss"), other.pop("loss")):
            assert loss is None or loss > 0
        assert row == other


def test_a_run_goes_on_where_it_was_stopped(run, monkeypatch):
    whole = run("--shots", "0,1", "--looking", "0", out="whole")
    ran = []
    run_cell = runner.run_cell

    def stopped(evaluation, cell, *rest):
        ran.append(cell.shots)
        if len(ran) == 2:
            raise KeyboardInterrupt
        return run_cell(evaluation, cell, *rest)

    monkeypatch.setattr("miniflamingo.evaluation.fewshot.run_cell", stopped)
    with pytest.raises(KeyboardInterrupt):
        run("--shots", "0,1", "--looking", "0")
    assert ran == [0, 1]
    out = run("--shots", "0,1", "--looking", "0")
    assert ran == [0, 1, 1]
    assert predictions(out) == predictions(whole)


def test_a_folder_of_another_evaluation_is_refused(run):
    run("--shots", "1", "--looking", "0")
    with pytest.raises(ValueError, match=r"another evaluation \(support: 'drawn for.*--out"):
        run("--shots", "1", "--looking", "0", "--support", "rices")


def test_damaged_predictions_are_told(run):
    out = run("--shots", "1", "--looking", "0")
    file = out / "cells" / "1-0-real.jsonl"
    file.write_text(file.read_text()[:-20])
    with pytest.raises(ValueError, match=r"1-0-real\.jsonl, line 5 is no prediction"):
        run("--shots", "1", "--looking", "0")


def test_two_results_are_compared(run, capsys):
    first = run("--shots", "1", "--looking", "0", out="a")
    second = run("--shots", "1", "--looking", "0", "--support", "rices", out="b")
    with pytest.raises(ValueError, match="not made in the same way"):
        fewshot.main(["--compare", str(first), str(second)])
    fewshot.main(["--compare", str(first), str(second), "--anyway"])
    assert "B - A" in capsys.readouterr().out


def test_a_task_of_questions(run, tmp_path):
    queries = official.write_vqa(tmp_path / "vqa", "val2014", 0, 4)
    support = official.write_vqa(tmp_path / "vqa", "train2014", 50, 6)
    file = tmp_path / "vqa.yaml"
    source = {"layout": "vqa"}
    task = {
        "name": "vqa",
        "metric": "vqa",
        "queries": source | queries,
        "support": source | support,
        "template": "Question: {question} Answer: {answer}",
        "decoding": {"max_new_tokens": 3},
    }
    file.write_text(json.dumps(task))  # JSON is YAML
    out = run("--shots", "0,2", "--support", "rices", "--cache", str(tmp_path), task=str(file))
    rows = [row for row in predictions(out) if row["condition"] == "real"]
    assert all(0 <= row["score"] <= 1 for row in rows)
    assert all(len(row["support"]) == 2 for row in rows)  # the two without pictures at 0 shots
    assert "vqa_accuracy" in (out / "results.json").read_text()
    assert len(list(tmp_path.glob("*.safetensors"))) == 1


def test_a_task_of_classes(run, tmp_path, capsys):
    queries = official.write_image_folder(tmp_path / "val", 2)
    support = official.write_image_folder(tmp_path / "train", 3)
    task = {
        "name": "imagenet",
        "metric": "accuracy",
        "classify": True,
        "queries": {"layout": "image_folder"} | queries,
        "support": {"layout": "image_folder"} | support,
        "template": "Output: {answer}",
    }
    file = tmp_path / "classes.yaml"
    file.write_text(json.dumps(task))
    out = run("--shots", "2", "--permutations", "2", task=str(file))
    rows = [row for row in predictions(out) if row["condition"] == "real"]
    for row in rows:
        assert set(row["likelihoods"]) == {"tench", "dog"}
        assert row["answer"] == max(row["likelihoods"], key=row["likelihoods"].get)
    assert json.loads((out / "results.json").read_text())["protocol"]["classes"] == 2
    with pytest.raises(ValueError, match="--baselines writes answers, but the task 'imagenet'"):
        run("--baselines", task=str(file))


def test_a_task_of_two_classes_is_scored_by_roc_auc(run, tmp_path, capsys):
    sources = {}
    for part, first in (("queries", 0), ("support", 100)):
        lines = [
            {"id": i, "img": f"img/{i}.png", "label": i % 2, "text": "a cat"}
            for i in range(first, first + 6)
        ]
        official.write_pictures(tmp_path, *(line["img"] for line in lines))
        file = tmp_path / f"{part}.jsonl"
        file.write_text("\n".join(map(json.dumps, lines)))
        sources[part] = {"layout": "hateful_memes", "annotations": str(file)}
        sources[part]["images"] = str(tmp_path)
    file = tmp_path / "memes.yaml"
    file.write_text(json.dumps({"name": "memes", "metric": "roc_auc", "classify": True, **sources}))
    out = run("--shots", "0,2", "--seeds", "2", task=str(file))
    results = json.loads((out / "results.json").read_text())
    found = {(each["condition"], each["shots"]): each for each in results["summaries"]}
    areas = []
    for seed in (0, 1):
        rows = [r for r in predictions(out) if (r["condition"], r["seed"]) == ("real", seed)]
        rows = [row for row in rows if row["shots"] == 2]
        truths = [row["references"] == ["yes"] for row in rows]
        margins = [row["likelihoods"]["yes"] - row["likelihoods"]["no"] for row in rows]
        areas.append(roc_auc_score(truths, margins))
    area = found["real", 2]["scores"]["roc_auc"]
    assert area["mean"] == pytest.approx(sum(areas) / 2)
    assert area["low"] <= area["mean"] <= area["high"]
    assert results["headline"] == "roc_auc"
    assert found["no_media", 2]["real"] == pytest.approx(areas[0])
    assert "ROC AUC" in capsys.readouterr().out
    fewshot.main(["--compare", str(out), str(out)])
    assert capsys.readouterr().out.count("1.000") == 2  # p at 0 and at 2 shots


def test_too_many_shots_are_told_before_the_model_loads(task, tmp_path):
    arguments = ["--model", "no/such/model", "--task", task, "--out", str(tmp_path)]
    with pytest.raises(ValueError, match="asks for 3 but the support set of 'q0' holds 2"):
        fewshot.main([*arguments, "--shots", "3"])


def test_a_folder_that_is_no_export_is_told_before_any_work(task, tmp_path):
    arguments = ["--model", "no/such/model", "--task", task, "--out", str(tmp_path)]
    with pytest.raises(ValueError, match="no/such/model is not an exported MiniFlamingo"):
        fewshot.main([*arguments, "--shots", "1"])


@pytest.mark.parametrize("part", ["language", "vision"])
def test_a_model_without_its_frozen_parts_is_told(run, exported, part):
    file = Path(exported) / "config.json"
    config = json.loads(file.read_text())
    if part == "language":
        config["language"] = "./gone"
    else:
        config["vision"]["name"] = "local-dir:./gone"
    file.write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"\./gone"):
        run("--shots", "1")


def test_a_broken_picture_is_told_with_file_and_id(run, tmp_path):
    official.write_pictures(tmp_path / "mine", "a.png", "b.png", "c.png")
    for name in "abc":
        (tmp_path / "mine" / f"{name}.txt").write_text("a cat")
    official.write_pictures(tmp_path / "more", "d.png", "e.png")
    for name in "de":
        (tmp_path / "more" / f"{name}.txt").write_text("a dog")
    (tmp_path / "mine" / "b.png").write_bytes(b"no picture")
    file = tmp_path / "mine.yaml"
    file.write_text(
        "name: mine\n"
        f"queries: {{layout: folder, images: {tmp_path}/more}}\n"
        f"support: {{layout: folder, images: {tmp_path}/mine}}\n"
    )
    with pytest.raises(ValueError, match=r"mine/b\.txt: 'b\.png': cannot read the picture"):
        run("--shots", "1", task=str(file))


@pytest.mark.parametrize(
    "option",
    ["--shots=a,b", "--shots=-1", "--shots=", "--seeds=0", "--queries=x", "--looking=-1"],
)
def test_options_that_are_no_numbers_are_refused(option, task, tmp_path, capsys):
    with pytest.raises(SystemExit):
        fewshot.main(["--model", "m", "--task", task, "--out", str(tmp_path), option])
    assert option.split("=")[0] in capsys.readouterr().err


@pytest.mark.slow
def test_three_ranks_by_torchrun_write_what_one_writes(run, exported, task, tmp_path):
    alone = run("--shots", "0,1", "--looking", "4", out="alone")
    out = tmp_path / "shared"
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "3"]
    command += ["-m", "miniflamingo", "fewshot", "--model", exported, "--task", task]
    command += ["--shots", "0,1", "--looking", "4", "--out", str(out)]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    subprocess.run(command, check=True, timeout=600, env=environment)
    assert len(predictions(out)) == len(predictions(alone))
    for row, other in zip(predictions(out), predictions(alone), strict=True):
        losses = row.pop("loss"), other.pop("loss")
        assert losses == (None, None) or losses[0] == pytest.approx(losses[1], rel=1e-5)
        assert row == other
