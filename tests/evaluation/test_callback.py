"""The few-shot score as a callback of a real training run."""

import csv
import json
import sys
from pathlib import Path

import official
import pytest
from lightning import Trainer
from lightning.pytorch.strategies import ModelParallelStrategy

from miniflamingo import MiniFlamingo, MiniFlamingoProcessor
from miniflamingo.__main__ import main
from miniflamingo.evaluation.callback import FewShotScore
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


def test_the_score_is_logged_and_equals_that_of_the_exported_model(
    config, write, task, monkeypatch
):
    callback = {
        "class_path": "miniflamingo.evaluation.callback.FewShotScore",
        "init_args": {"task": task, "shots": [0, 2], "queries": 3},
    }
    config["trainer"]["callbacks"] = [*config["trainer"]["callbacks"][1:], callback]
    config["trainer"] |= {"max_steps": 2, "val_check_interval": 2}
    monkeypatch.setattr(sys, "argv", ["miniflamingo", "fit", "--config", write(config)])
    main()
    folder = Path(config["trainer"]["default_root_dir"])
    (file,) = folder.rglob("metrics.csv")
    rows = list(csv.DictReader(file.open()))
    model = MiniFlamingo.from_pretrained(folder / "model")
    reader = Reader(model, MiniFlamingoProcessor.from_pretrained(folder / "model"))
    data = load_data(load_task(task), 3)
    run = Evaluation(reader, load_task(task), data, at_random(data))
    for shots in (0, 2):
        (logged,) = [r[f"fewshot/coco/cider/{shots}"] for r in rows if r.get("val/loss")]
        expected = headline_score(run_cell(run, Cell("real", shots, 0), data.queries), "captioning")
        assert float(logged) == pytest.approx(expected, abs=1e-6)


def test_a_sharded_model_is_refused(task):
    trainer = Trainer(strategy=ModelParallelStrategy(), accelerator="cpu", devices=2, logger=False)
    with pytest.raises(ValueError, match="FewShotScore lets each rank complete"):
        FewShotScore(task, [0]).setup(trainer, None, "fit")


def test_a_wrong_task_is_told_before_training(task):
    with pytest.raises(ValueError, match=r"asks for 9 but the support set of .* holds 5"):
        FewShotScore(task, [9])
    assert json.loads(Path(task).read_text())["name"] == "coco"
