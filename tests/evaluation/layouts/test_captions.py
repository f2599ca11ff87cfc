"""Captioning layouts, read from small files as they are published, bad ones told."""

import json
from pathlib import Path

import official
import pytest

from miniflamingo.evaluation.layouts.source import read_source


def read(layout: str, **arguments):
    return read_source({"layout": layout, **arguments})


def test_karpathy(tmp_path: Path):
    files = official.write_karpathy(tmp_path, {"train": 2, "restval": 1, "test": 2})
    test = read("karpathy", **files, split="test")
    assert [each.key for each in test] == ["1003", "1004"]
    assert test[0].answers == ("A test cat 3.", "Two dogs 0")
    assert test[0].image == tmp_path / "val2014" / "COCO_val2014_000000000003.jpg"
    assert len(read("karpathy", **files, split=["train", "restval"])) == 3


def test_karpathy_of_flickr_has_no_folders_and_its_own_ids(tmp_path: Path):
    entry = {
        "sentids": [0],
        "imgid": 7,
        "sentences": [{"raw": "A dog.", "tokens": ["a", "dog"], "imgid": 7, "sentid": 0}],
        "split": "test",
        "filename": "1000092795.jpg",
    }
    file = official.write_json(tmp_path / "f.json", {"images": [entry], "dataset": "flickr30k"})
    (example,) = read("karpathy", annotations=file, images="flickr", split="test")
    assert (example.key, example.image) == ("7", Path("flickr/1000092795.jpg"))


def test_coco_captions_as_nocaps_has_them(tmp_path: Path):
    content = {
        "info": {},
        "licenses": [],
        "images": [
            {
                "id": 0,
                "open_images_id": "0013ea",
                "file_name": "0013ea.jpg",
                "domain": "near-domain",
            }
        ],
        "annotations": [
            {"image_id": 0, "id": 0, "caption": "A baby\n is standing."},
            {"image_id": 0, "id": 1, "caption": "A child."},
        ],
    }
    file = official.write_json(tmp_path / "nocaps.json", content)
    (example,) = read("coco_captions", annotations=file, images="pictures")
    assert example.answers == ("A baby is standing.", "A child.")
    assert (example.key, example.image) == ("0", Path("pictures/0013ea.jpg"))


def test_textcaps_joins_the_captions_of_a_picture(tmp_path: Path):
    rows = [
        {"image_id": "ab", "caption_id": i, "caption_str": text, "image_path": "train/ab.jpg"}
        for i, text in enumerate(["A sign.", "A stop sign."])
    ]
    content = {"dataset_type": "val", "dataset_name": "textcaps", "data": rows}
    file = official.write_json(tmp_path / "t.json", content)
    (example,) = read("textcaps", annotations=file, images="i")
    assert (example.key, example.image) == ("ab", Path("i/ab.jpg"))
    assert example.answers == ("A sign.", "A stop sign.")


def bad_karpathy(folder: Path, **change) -> dict[str, str]:
    files = official.write_karpathy(folder, {"test": 2})
    content = json.loads(Path(files["annotations"]).read_text())
    content["images"][1] |= change
    official.write_json(Path(files["annotations"]), content)
    return files


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cocoid": 1000}, r"dataset_coco\.json: the id '1000' is there twice"),
        ({"sentences": []}, r"dataset_coco\.json: '1001' has no answer or caption"),
        ({"sentences": [{"raw": " "}]}, r"'1001' has no answer or caption"),
        ({"sentences": [{"text": "a"}]}, r"dataset_coco\.json, entry 1 lacks the field 'raw'"),
    ],
)
def test_a_bad_entry_is_told_with_file_and_id(tmp_path: Path, change, message):
    files = bad_karpathy(tmp_path, **change)
    with pytest.raises(ValueError, match=message):
        read("karpathy", **files, split="test")


def test_a_split_that_is_not_there_names_those_that_are(tmp_path: Path):
    files = official.write_karpathy(tmp_path, {"test": 1, "val": 1})
    with pytest.raises(ValueError, match=r"nothing in split 'train'; it has \['test', 'val'\]"):
        read("karpathy", **files, split="train")


def test_another_layout_is_told(tmp_path: Path):
    file = official.write_json(tmp_path / "x.json", {"annotations": []})
    with pytest.raises(ValueError, match=r"x\.json lacks the field 'images' \(it holds"):
        read("karpathy", annotations=file, images="x", split="test")
