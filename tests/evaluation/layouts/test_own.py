"""One's own files."""

import json
from pathlib import Path

import official
import pytest
import tiny

from miniflamingo.evaluation.layouts.source import read_source


def read(layout: str, **arguments):
    return read_source({"layout": layout, **arguments})


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


def test_an_empty_folder_is_told(tmp_path: Path):
    with pytest.raises(ValueError, match="there are no pictures"):
        read("folder", images=str(tmp_path))


def test_a_query_without_a_picture_is_told(tmp_path: Path):
    content = json.dumps({"chunks": [{"text": "a"}, {"text": "b"}]}).encode()
    shard = tiny.write_shard(tmp_path / "0.tar", {"q": {"json": content}})
    with pytest.raises(ValueError, match=r"0\.tar: chunk 'q/0' holds 0 pictures"):
        read("shards", urls=str(shard))
