"""Layouts of classes, read from small files as they are published."""

import json
from pathlib import Path

import official
import pytest

from miniflamingo.evaluation.layouts.classes import read_class_names
from miniflamingo.evaluation.layouts.source import read_source


def read(layout: str, **arguments):
    return read_source({"layout": layout, **arguments})


def test_hateful_memes(tmp_path: Path):
    lines = [
        {"id": 8291, "img": "img/08291.png", "label": 1, "text": "white people"},
        {"id": 46971, "img": "img/46971.png", "label": 0, "text": "a cat"},
    ]
    file = tmp_path / "dev_seen.jsonl"
    file.write_text("\n".join(map(json.dumps, lines)))
    examples = read("hateful_memes", annotations=str(file), images="h")
    assert [each.answers for each in examples] == [("yes",), ("no",)]
    assert (examples[1].question, examples[1].image) == ("a cat", Path("h/img/46971.png"))


def test_image_folder_takes_the_first_name_of_each_class(tmp_path: Path):
    examples = read("image_folder", **official.write_image_folder(tmp_path, 2))
    assert [each.answers for each in examples] == [("tench",), ("tench",), ("dog",), ("dog",)]
    assert examples[0].key == "n01440764/n01440764_0.JPEG"


def test_a_class_without_a_name_is_told(tmp_path: Path):
    files = official.write_image_folder(tmp_path, 1)
    Path(files["class_names"]).write_text("n01440764 tench\n")
    with pytest.raises(ValueError, match=r"no line for the folder .*n02084071"):
        read("image_folder", **files)


def test_an_unknown_label_is_told(tmp_path: Path):
    file = tmp_path / "d.jsonl"
    file.write_text(json.dumps({"id": 1, "img": "a.png", "label": 2, "text": "a"}))
    with pytest.raises(ValueError, match=r"d\.jsonl, entry 0 has label 2; expected 0 or 1"):
        read("hateful_memes", annotations=str(file), images="h")


@pytest.mark.parametrize(
    ("lines", "names"),
    [
        ("n02012849 crane\nn03126707 crane", {"crane bird", "construction crane"}),
        ("a maillot\nb maillot, tank suit", {"maillot", "tank suit"}),
        ("a maillot, tank suit\nb maillot", None),
        ("a tench\nb tench", None),
    ],
)
def test_no_two_classes_have_one_name(tmp_path, lines, names):
    file = tmp_path / "names.txt"
    file.write_text(lines + "\n")
    if names is None:
        with pytest.raises(ValueError, match="the folders a and b are both called"):
            read_class_names(str(file))
    else:
        assert set(read_class_names(str(file)).values()) == names
