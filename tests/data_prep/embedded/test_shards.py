import hashlib
import io
import json
import re
import shutil
from collections import namedtuple
from pathlib import Path

import pytest
import webdataset
from PIL import Image

from data_prep.captions import Style, vocabulary
from data_prep.embedded import __main__ as embedded
from data_prep.embedded.scenes import PICTURE
from data_prep.embedded.shards import (
    CHUNKS,
    WorldArguments,
    document_sample,
    write_world,
)
from data_prep.shards import write_shard

Usage = namedtuple("Usage", "total used free")
SMALL = WorldArguments(seed=1, pairs=20, documents=18, validation=2, fewshot=3)


@pytest.fixture(scope="module")
def world(tmp_path_factory, drawings):
    folder = tmp_path_factory.mktemp("world")
    write_world(folder, SMALL, drawings)
    return folder


def read(folder):
    shards = sorted(str(path) for path in folder.glob("*.tar"))
    return list(webdataset.WebDataset(shards, shardshuffle=False)) if shards else []


def content(folder):
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_pairs_are_pictures_with_captions(world):
    samples = read(world / "pairs")
    assert len(samples) == SMALL.pairs
    assert len({sample["__key__"] for sample in samples}) == SMALL.pairs
    for sample in samples:
        assert Image.open(io.BytesIO(sample["jpg"])).size == (PICTURE, PICTURE)
        assert " " in sample["txt"].decode()


@pytest.mark.parametrize(
    ("name", "split", "num"),
    [
        ("documents", "train", SMALL.documents),
        ("validation", "validation", SMALL.validation),
        ("fewshot", "fewshot", SMALL.fewshot),
    ],
)
def test_documents_list_their_chunks_in_one_style(world, name, split, num):
    samples = read(world / name)
    assert len(samples) == num
    for sample in samples:
        document = json.loads(sample["json"])
        assert [chunk["image"] for chunk in document["chunks"]] == [f"{i}.jpg" for i in range(9)]
        assert all(Image.open(io.BytesIO(sample[c["image"]])) for c in document["chunks"])
        assert Style(**document["style"]).split == split
        assert len({chunk["text"] for chunk in document["chunks"]}) == CHUNKS
        assert ("facts" in document) == (split == "fewshot")


def test_the_query_is_last_and_its_facts_are_in_the_vocabulary(world):
    forms = json.loads((world / "fewshot" / "vocabulary.json").read_text())
    assert forms == vocabulary()
    for sample in read(world / "fewshot"):
        document = json.loads(sample["json"])
        query = document["chunks"][-1]["text"]
        for field, values in document["facts"].items():
            for value in values:
                words = re.findall(r"\w+", query)
                assert set(forms[field][value]) & set(words), (query, value)


def test_training_data_comes_in_many_shards(world):
    assert len(list((world / "pairs").glob("*.tar"))) >= 8
    assert len(list((world / "documents").glob("*.tar"))) >= 8


def test_the_same_seed_gives_the_same_bytes(world, tmp_path, drawings):
    write_world(tmp_path, SMALL, drawings)
    assert content(tmp_path) == content(world)


def test_another_seed_gives_other_bytes(sprites):
    one, other = (document_sample(seed, "train", 0, sprites) for seed in (0, 1))
    assert one["json"] != other["json"]


def test_a_sample_does_not_depend_on_how_many_there_are(world, tmp_path, drawings):
    write_world(tmp_path, WorldArguments(1, 3, 1, 1, 1), drawings)
    few = {s["__key__"]: s["jpg"] for s in read(tmp_path / "pairs")}
    many = {s["__key__"]: s["jpg"] for s in read(world / "pairs")}
    assert few.items() <= many.items()


def test_the_manifest_knows_every_shard(world):
    manifest = json.loads((world / "manifest.json").read_text())
    tars = {str(path.relative_to(world)) for path in world.rglob("*.tar")}
    assert set(manifest["shards"]) == tars
    for shard, entry in manifest["shards"].items():
        data = (world / shard).read_bytes()
        assert entry["sha256"] == hashlib.sha256(data).hexdigest()
        assert entry["bytes"] == len(data)
    assert sum(e["samples"] for s, e in manifest["shards"].items() if "pairs" in s) == SMALL.pairs
    assert manifest["arguments"]["seed"] == SMALL.seed
    assert "CC-BY-SA-4.0" in manifest["license"]
    assert "OpenMoji" in (world / "CREDITS.md").read_text()


def test_finished_data_is_left_alone(world, tmp_path):
    before = {path: path.stat().st_mtime_ns for path in world.rglob("*")}
    write_world(world, SMALL, tmp_path / "no drawings here")
    assert {path: path.stat().st_mtime_ns for path in world.rglob("*")} == before


def test_data_made_with_other_arguments_is_not_overwritten(world, drawings):
    with pytest.raises(ValueError, match="Delete it or choose another --out"):
        write_world(world, WorldArguments(seed=2), drawings)


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(b"cut short")])
def test_a_lost_or_damaged_shard_is_written_again(damage, world, tmp_path, drawings):
    copy = tmp_path / "copy"
    shutil.copytree(world, copy)
    damage(copy / "pairs" / "000003.tar")
    write_world(copy, SMALL, drawings)
    assert content(copy) == content(world)


def test_a_shard_cut_short_is_never_seen(tmp_path):
    def samples():
        yield {"__key__": "one", "txt": "first"}
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_shard(tmp_path / "000000.tar", samples())
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_noticed_before_anything_is_written(tmp_path, drawings, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(100, 100, 1_000_000))
    with pytest.raises(OSError, match=r"the embedded data: it needs .* MB .* only 1 MB are free"):
        write_world(tmp_path / "new", WorldArguments(), drawings)
    assert not (tmp_path / "new").exists()


def test_a_split_may_be_empty_but_not_negative(tmp_path, drawings):
    write_world(tmp_path, WorldArguments(0, 1, 0, 0, 0), drawings)
    assert read(tmp_path / "fewshot") == []
    with pytest.raises(ValueError, match="documents must not be negative"):
        WorldArguments(documents=-1)


def test_the_command_writes_the_data_and_says_where(tmp_path, drawings, monkeypatch, capsys):
    monkeypatch.setattr(embedded, "fetch", lambda *_: drawings)
    sizes = ["--pairs", "2", "--documents", "1", "--validation", "1", "--fewshot", "1"]
    embedded.main(["--data-only", "--out", str(tmp_path), *sizes])
    assert str(tmp_path) in capsys.readouterr().out
    assert len(read(tmp_path / "fewshot")) == 1
