"""Scores beside the task's own, asked for on the command line."""

from pathlib import Path

import pytest
import tiny

from miniflamingo.cli.fewshot import load_more, make_parser, more_scores
from miniflamingo.evaluation.example import Example
from miniflamingo.evaluation.prediction import Prediction
from miniflamingo.evaluation.tasks import Task, TaskData

ARGUMENTS = ["--model", "m", "--task", "t", "--out", "o"]


@pytest.mark.parametrize("asked", [["--java"], ["--clip-score", "ViT-B-32"]])
def test_scores_of_captions_are_refused_for_other_tasks(asked):
    args = make_parser().parse_args([*ARGUMENTS, *asked])
    with pytest.raises(ValueError, match="'questions' has metric: vqa"):
        load_more(args, Task("questions", {}, metric="vqa"))


def test_clip_score_is_of_each_cell_with_real_pictures(tmp_path: Path):
    text = tiny.CLIP_CONFIG["text_cfg"] | {"vocab_size": 49408}
    clip = tiny.write_clip(tmp_path / "clip", tiny.CLIP_CONFIG | {"text_cfg": text})
    args = make_parser().parse_args([*ARGUMENTS, "--clip-score", f"local-dir:{clip}"])
    query = Example("q", tiny.picture(0), ("a cat",), "file")
    cells = [
        Prediction(condition, 1, seed, "q", (), "a cat", "a cat", ["a cat"])
        for condition in ("real", "no_media")
        for seed in (0, 1)
    ]
    metric = load_more(args, Task("captions", {}))
    found = more_scores(args.java, metric, TaskData([query], [], [], {}), cells)
    assert list(found) == [("real", 1, 0), ("real", 1, 1)]
    assert all(-100 <= scores["clip_score"] <= 100 for scores in found.values())
