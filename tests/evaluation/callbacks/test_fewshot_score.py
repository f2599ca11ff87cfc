"""The few-shot score as a callback of a real training run."""

import csv
import json
import sys
from pathlib import Path

import official
import pytest
import torch
from evaluation import score_on_ranks
from lightning import Trainer
from lightning.pytorch.strategies import ModelParallelStrategy
from safetensors.torch import load_file
from training.test_strategies import launch

from miniflamingo import MiniFlamingo, MiniFlamingoProcessor
from miniflamingo.__main__ import main
from miniflamingo.evaluation.callbacks.fewshot_score import FewShotScore
from miniflamingo.evaluation.runner import Cell, Evaluation, run_cell
from miniflamingo.evaluation.summary import headline_score
from miniflamingo.evaluation.support import at_random
from miniflamingo.evaluation.tasks import load_data, load_task
from miniflamingo.generation.reader import Reader

pytest_plugins = ["training.conftest"]


@pytest.fixture
def task(tmp_path: Path) -> str:
    files = official.write_karpathy(tmp_path / "coco", {"train": 5, "test": 4})
    source = {"layout": "karpathy", **files}
    content = {
        "name": "coco",
        "queries": source | {"split": "test"},
        "support": source | {"split": "train"},
        "decoding": {"max_new_tokens": 4, "beams": 1},
    }
    return official.write_json(tmp_path / "coco.yaml", content)


@pytest.fixture
def fit(config, write, task, tmp_path, monkeypatch):
    """Train four steps and validate twice, with the callback or without; returns the folder."""
    callback = {
        "class_path": "miniflamingo.evaluation.callbacks.fewshot_score.FewShotScore",
        "init_args": {"task": task, "shots": [0, 2], "queries": 3},
    }

    def fit(name: str, scored: bool) -> Path:
        folder = tmp_path / name
        others = config["trainer"]["callbacks"][1:3]
        trainer = config["trainer"] | {"max_steps": 4, "default_root_dir": str(folder)}
        trainer["callbacks"] = [*others, *([callback] if scored else [])]
        line = ["miniflamingo", "fit", "--config", write(config | {"trainer": trainer})]
        monkeypatch.setattr(sys, "argv", line)
        main()
        return folder

    return fit


def test_the_score_is_logged_and_equals_that_of_the_exported_model(fit, task):
    folder = fit("run", scored=True)
    (file,) = folder.rglob("metrics.csv")
    rows = list(csv.DictReader(file.open()))
    model = MiniFlamingo.from_pretrained(folder / "model")
    reader = Reader(model, MiniFlamingoProcessor.from_pretrained(folder / "model"))
    data = load_data(load_task(task), 3)
    run = Evaluation(reader, load_task(task), data, at_random(data))
    for shots in (0, 2):
        *_, logged = [r[f"fewshot/coco/cider/{shots}"] for r in rows if r.get("val/loss")]
        cell = run_cell(run, Cell("real", shots, 0), data.queries)
        assert float(logged) == pytest.approx(headline_score(cell, "captioning"), abs=1e-6)


def test_training_does_not_notice_the_score(fit):
    plain, scored = (fit(name, name == "scored") for name in ("plain", "scored"))
    weights, others = (load_file(f / "model" / "model.safetensors") for f in (plain, scored))
    assert weights.keys() == others.keys()
    assert [name for name in weights if not torch.equal(weights[name], others[name])] == []


def test_two_ranks_log_the_score_of_one(task, language_folder, clip_folder, tmp_path):
    settings = {"task": task, "language": str(language_folder), "clip": str(clip_folder)}
    say_what_it_says(task, score_on_ranks.train(tmp_path / "one", **settings).module)
    expected = score_on_ranks.train(tmp_path / "one", **settings).scores
    assert min(expected.values()) > 0
    strategies = ("ddp", "sharded")
    plan = {name: settings | {"strategy": name, "ranks": 2} for name in strategies}
    launch(tmp_path, plan, script=score_on_ranks.__file__)
    for name in strategies:
        for rank in range(2):
            found = json.loads((tmp_path / f"{name}-{rank}.json").read_text())
            assert found == pytest.approx(expected, abs=1e-5)


def say_what_it_says(task: str, module) -> None:
    """Make a trained model's answers the queries' captions, so that it has a score."""
    reader, data = Reader(module.model, module.processor), load_data(load_task(task), 3)
    run = Evaluation(reader, load_task(task), data, at_random(data))
    said = {p.key: p.answer for p in run_cell(run, Cell("real", 2, 0), data.queries)}
    file = Path(json.loads(Path(task).read_text())["queries"]["annotations"])
    content = json.loads(file.read_text())
    for entry in content["images"]:
        if str(entry["cocoid"]) in said:
            entry["sentences"] = [{"raw": f"{said[str(entry['cocoid'])]} a"}]
    file.write_text(json.dumps(content))


def test_a_sharded_model_does_not_classify(task, tmp_path):
    content = json.loads(Path(task).read_text()) | {"metric": "accuracy", "classify": True}
    file = official.write_json(tmp_path / "classes.yaml", content)
    trainer = Trainer(strategy=ModelParallelStrategy(), accelerator="cpu", devices=2, logger=False)
    with pytest.raises(ValueError, match="cannot score the task 'coco' while weights are sharded"):
        FewShotScore(file, [0]).setup(trainer, None, "fit")


def test_a_wrong_task_is_told_before_training(task):
    with pytest.raises(ValueError, match=r"asks for 9 but the support set of .* holds 5"):
        FewShotScore(task, [9])
    assert json.loads(Path(task).read_text())["name"] == "coco"
