"""Layouts of questions, read from small files as they are published."""

import json
from pathlib import Path

import official
import pytest

from miniflamingo.evaluation.layouts.source import read_source


def read(layout: str, **arguments):
    return read_source({"layout": layout, **arguments})


def test_textvqa(tmp_path: Path):
    row = {"question": "what?", "image_id": "ab", "answers": ["nous", "nous les", ""]}
    content = {"dataset_type": "val", "data": [row | {"question_id": 34602}]}
    file = official.write_json(tmp_path / "t.json", content)
    (example,) = read("textvqa", annotations=file, images="i")
    assert (example.key, example.question) == ("34602", "what?")
    assert example.answers == ("nous", "nous les", "")  # a vote, but nothing to show
    assert example.written == ("nous", "nous les")


def test_vqa(tmp_path: Path):
    examples = read("vqa", **official.write_vqa(tmp_path, "val2014", 5, 2))
    assert [each.key for each in examples] == ["50", "60"]
    assert examples[1].question == "How many 1?"
    assert examples[1].answers[:4] == ("2", "two", "2", "3")
    assert examples[1].image == tmp_path / "val2014" / "COCO_val2014_000000000006.jpg"


def test_vizwiz(tmp_path: Path):
    answers = [{"answer": "basil", "answer_confidence": "yes"}] * 10
    rows = [{"image": "VizWiz_val_0.jpg", "question": "What is it?", "answers": answers}]
    file = official.write_json(tmp_path / "val.json", rows)
    (example,) = read("vizwiz", annotations=file, images="v")
    assert (example.key, example.image) == ("VizWiz_val_0.jpg", Path("v/VizWiz_val_0.jpg"))
    assert example.answers == ("basil",) * 10


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "there is no file"), (b"{", "is no JSON"), (b"\xff\xfe{", "is no UTF-8")],
)
def test_an_unreadable_annotation_file_is_told(tmp_path: Path, content, message):
    file = tmp_path / "x.json"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read("vizwiz", annotations=str(file), images="x")


def test_questions_without_answers_are_told(tmp_path: Path):
    files = official.write_vqa(tmp_path, "val2014", 5, 2)
    content = json.loads(Path(files["annotations"]).read_text())
    content["annotations"].pop()
    official.write_json(Path(files["annotations"]), content)
    with pytest.raises(ValueError, match=r"annotations\.json has no answers to question 60"):
        read("vqa", **files)
