"""Every layout read from small files as they are published, and what is wrong with bad ones."""

import json
from pathlib import Path

import official
import pytest
import tiny

from miniflamingo.evaluation.layouts import LAYOUTS, check_source, read_source


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


def test_own_folder(tmp_path: Path):
    official.write_pictures(tmp_path, "a.png", "deep/b.jpg")
    (tmp_path / "a.txt").write_text("a cat\n\nthe cat\n")
    (tmp_path / "deep/b.txt").write_text("a dog")
    examples = read("folder", images=str(tmp_path))
    assert [(e.key, e.answers) for e in examples] == [
        ("a.png", ("a cat", "the cat")),
        ("deep/b.jpg", ("a dog",)),
    ]


def test_own_table(tmp_path: Path):
    file = tmp_path / "t.csv"
    rows = ["image,question,answer", "a.png,what?,a cat", "a.png,what?,cat", '"b.png",,"a\ndog"']
    file.write_text("\n".join(rows))
    examples = read("table", annotations=str(file))
    assert [(e.question, e.answers) for e in examples] == [
        ("what?", ("a cat", "cat")),
        ("", ("a dog",)),
    ]
    assert examples[0].image == tmp_path / "a.png"


def test_shards_hold_queries_with_a_support_set_of_their_own(tmp_path: Path):
    files = tiny.interleaved(["one", "two", "three"], 0)
    meta = json.loads(files["json"]) | {"facts": {"objects": ["cat"]}}
    shard = tiny.write_shard(tmp_path / "0.tar", {"q": files | {"json": json.dumps(meta).encode()}})
    (query,) = read("shards", urls=str(shard))
    assert (query.key, query.answers, query.facts) == ("q", ("three",), {"objects": ["cat"]})
    assert [each.answers for each in query.support] == [("one",), ("two",)]
    assert [each.key for each in query.support] == ["q/0", "q/1"]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ({"layout": "parquet"}, "'parquet' is unknown; choose one of karpathy, coco_captions"),
        ({"images": "x"}, "layout: None is unknown"),
        ({"layout": "folder", "image": "x"}, r"unknown fields \['image'\], missing.*\['images'\]"),
    ],
)
def test_a_wrong_source_is_told(source, message):
    with pytest.raises(ValueError, match=message):
        check_source(source)


def test_every_layout_says_what_it_reads():
    assert all(read.__doc__ and "Args:" in read.__doc__ for read in LAYOUTS.values())


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


def test_an_empty_folder_is_told(tmp_path: Path):
    with pytest.raises(ValueError, match="there are no pictures"):
        read("folder", images=str(tmp_path))


def test_a_query_without_a_picture_is_told(tmp_path: Path):
    content = json.dumps({"chunks": [{"text": "a"}, {"text": "b"}]}).encode()
    shard = tiny.write_shard(tmp_path / "0.tar", {"q": {"json": content}})
    with pytest.raises(ValueError, match=r"0\.tar: chunk 'q/0' holds 0 pictures"):
        read("shards", urls=str(shard))
