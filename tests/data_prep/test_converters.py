"""Each command on small files in the official layout, read back by the training reader."""

import base64
import io
import json
import tarfile

import pytest
import tiny
import webdataset

from data_prep import coco, documents, flickr30k, mmc4, obelics, pairs
from data_prep.command import run_command
from data_prep.downloads import build_index


def run(command, function, *arguments):
    """Run a command line; the same arguments as a user gives."""
    run_command(getattr(command, function), [str(each) for each in arguments])


def read(folder):
    paths = sorted(str(path) for path in folder.glob("*.tar"))
    return list(webdataset.WebDataset(paths, shardshuffle=False))


def fails(capsys, message, *call):
    with pytest.raises(SystemExit) as end:
        run(*call)
    assert end.value.code == 2
    assert message in capsys.readouterr().err


def manifest(folder):
    return json.loads((folder / "manifest.json").read_text())


def dropped(folder):
    return {reason: found["count"] for reason, found in manifest(folder)["dropped"].items()}


def jpeg(seed):
    return tiny.encoded(tiny.picture(seed), "JPEG")


# --- Karpathy's layout -----------------------------------------------------------------------


def karpathy(folder, name, filepath=None):
    """Six pictures in three splits, five captions each; the last has no file."""
    images = []
    for i in range(6):
        file = f"COCO_{i:012d}.jpg"
        place = folder / "images" / (filepath or "")
        place.mkdir(parents=True, exist_ok=True)
        if i < 5:
            (place / file).write_bytes(jpeg(i))
        sentences = [{"tokens": ["a"], "raw": f" picture {i} said {s}. ", "sentid": 5 * i + s}
                     for s in range(5)]  # fmt: skip
        split = ["train", "val", "test", "restval", "train", "train"][i]
        image = {"filename": file, "imgid": i, "split": split, "sentences": sentences}
        images.append({**image, **({"filepath": filepath, "cocoid": 100 + i} if filepath else {})})
    path = folder / f"dataset_{name}.json"
    path.write_text(json.dumps({"images": images, "dataset": name}))
    return path


def test_coco(tmp_path, capsys):
    annotations = karpathy(tmp_path, "coco", "train2014")
    out = tmp_path / "out"
    arguments = ["--annotations", annotations, "--images", tmp_path / "images", "--out", out]
    run(coco, "coco", *arguments, "--per_shard", 7)
    samples = read(out)
    captions = {f"picture {i} said {s}." for i in (0, 3, 4) for s in range(5)}
    assert {sample["txt"].decode() for sample in samples} == captions
    assert len(samples) == 15
    for sample in samples:
        number = int(sample["txt"].split()[1])
        assert sample["jpg"] == jpeg(number)
        about = json.loads(sample["json"])
        assert about == {"id": 100 + number, "file": f"train2014/COCO_{number:012d}.jpg"}
    assert [sample["txt"] for sample in samples] != sorted(sample["txt"] for sample in samples)
    assert manifest(out)["dropped"]["missing_file"]["count"] == 5
    assert "CC BY 4.0" in manifest(out)["license"]
    assert "15 samples" in capsys.readouterr().out
    fails(capsys, "holds shards of another job", coco, "coco", *arguments, "--captions", 1)
    other = ["--annotations", annotations, "--images", tmp_path / "images"]
    one = [*other, "--out", tmp_path / "one", "--captions", 1, "--splits", '["test"]']
    run(coco, "coco", *one)
    assert [sample["txt"] for sample in read(tmp_path / "one")] == [b"picture 2 said 0."]
    fails(capsys, "its splits are ['restval', 'test', 'train', 'val']",
          coco, "coco", *other, "--splits", '["dev"]')  # fmt: skip
    annotations.write_text('{"annotations": []}')
    fails(capsys, "is not in Karpathy's layout", coco, "coco", *other)
    fails(capsys, "there is no such folder", coco, "coco", *other[:3], tmp_path / "none")
    fails(capsys, "there is no such file", coco, "coco", "--annotations", "none", *other[2:])


def test_flickr30k(tmp_path):
    annotations = karpathy(tmp_path, "flickr30k")
    out = tmp_path / "out"
    run(flickr30k, "flickr30k", "--annotations", annotations, "--images", tmp_path / "images",
        "--out", out)  # fmt: skip
    pictures = {int(sample["txt"].split()[1]) for sample in read(out)}
    assert pictures == {0, 4}  # those of train that are there


# --- img2dataset's output ----------------------------------------------------------------------


def downloads(folder, urls, as_files=False):
    """What img2dataset leaves behind; urls is {url: content, or None where it failed}."""
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    folder.mkdir()
    rows = []
    with tarfile.open(folder / "00000.tar", "w") as tar:
        for number, (url, content) in enumerate(urls.items()):
            key = f"{number:09d}"
            status = "success" if content else "failed_to_download"
            rows.append({"url": url, "key": key, "status": status})
            for ending, data in (("jpg", content), ("json", b"{}")):
                if content:
                    info = tarfile.TarInfo(f"{key}.{ending}")
                    info.size = len(data)
                    tar.addfile(info, io.BytesIO(data))
    if as_files:
        with tarfile.open(folder / "00000.tar") as tar:
            tar.extractall(folder / "00000", filter="data")
        (folder / "00000.tar").unlink()
    parquet.write_table(pa.Table.from_pylist(rows), folder / "00000.parquet")
    return folder


@pytest.mark.parametrize("as_files", [False, True])
def test_downloads_are_found_by_url(tmp_path, as_files):
    urls = {"http://a/1.jpg": jpeg(1), "http://a/2.jpg": None, "http://a/3.jpg": jpeg(3)}
    index = build_index(downloads(tmp_path / "got", urls, as_files))
    table = tmp_path / "table.jsonl"
    rows = [{"url": url, "caption": f"from {url}"} for url in [*urls, "http://never/asked.jpg"]]
    table.write_text("\n".join(map(json.dumps, rows)))
    out = tmp_path / "out"
    run(pairs, "pairs", "--table", table, "--image", "url", "--downloads", tmp_path / "got",
        "--out", out)  # fmt: skip
    got = {sample["txt"].decode(): sample["jpg"] for sample in read(out)}
    assert got == {f"from {url}": content for url, content in urls.items() if content}
    assert dropped(out) == {"missing_file": 2}
    first = manifest(out)["dropped"]["missing_file"]["first"]
    assert "'http://a/2.jpg', which was not downloaded" in first
    assert build_index(tmp_path / "got") == index


def test_a_folder_that_is_not_img2datasets_is_told(tmp_path, capsys):
    table = tmp_path / "table.jsonl"
    table.write_text('{"image": "http://a/b", "caption": "a"}')
    call = [pairs, "pairs", "--table", table, "--out", tmp_path / "out", "--downloads"]
    fails(capsys, "no .parquet files here", *call, tmp_path / "nothing")
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    (tmp_path / "other").mkdir()
    parquet.write_table(pa.table({"link": ["a"]}), tmp_path / "other" / "x.parquet")
    fails(capsys, "lacks the columns ['key', 'status', 'url']", *call, tmp_path / "other")
    fails(capsys, "download urls with img2dataset", *call[:-1])


# --- pairs -------------------------------------------------------------------------------------


def test_pairs_of_a_csv_with_paths(tmp_path, capsys):
    (tmp_path / "pics").mkdir()
    (tmp_path / "pics" / "a.png").write_bytes(tiny.encoded(tiny.picture(0)))
    (tmp_path / "pics" / "no.jpg").write_bytes(b"<html>not found</html>")
    (tmp_path.parent / "outside.png").write_bytes(tiny.encoded(tiny.picture(1)))
    table = tmp_path / "table.csv"
    table.write_text(
        "file,says,author\npics/a.png,a cat,me\npics/none.png,gone,me\npics/no.jpg,a page,me\n"
        "../outside.png,not ours,me\npics/a.png,  ,me\n"
    )
    call = [pairs, "pairs", "--table", table, "--out", tmp_path / "out"]
    fails(
        capsys, "lacks the columns ['image', 'caption']; it has ['author', 'file', 'says']", *call
    )
    run(*call, "--image", "file", "--caption", "says", "--licence", "CC0")
    (sample,) = read(tmp_path / "out")
    assert sample["png"] == tiny.encoded(tiny.picture(0))
    assert sample["txt"] == b"a cat"
    assert json.loads(sample["json"]) == {"file": "pics/a.png", "author": "me"}
    found = {
        reason: each["count"] for reason, each in manifest(tmp_path / "out")["dropped"].items()
    }
    assert found == {"missing_file": 2, "image_broken": 1, "no_text": 1}
    assert manifest(tmp_path / "out")["license"] == "CC0"


def test_pairs_of_a_parquet_file_that_holds_its_pictures(tmp_path):
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    rows = [{"image": {"bytes": jpeg(i), "path": f"{i}.jpg"}, "caption": f"no {i}"} for i in (1, 2)]
    rows.append({"image": jpeg(3), "caption": "no 3"})
    for number, some in enumerate((rows[:2], rows[2:])):
        parquet.write_table(pa.Table.from_pylist(some), tmp_path / f"{number}.parquet")
    run(pairs, "pairs", "--table", tmp_path, "--out", tmp_path / "out")
    assert {s["txt"].decode(): s["jpg"] for s in read(tmp_path / "out")} == {
        f"no {i}": jpeg(i) for i in (1, 2, 3)
    }


# --- web pages ---------------------------------------------------------------------------------


def mmc4_row(number, names, **changes):
    infos = [
        {"image_name": name, "raw_url": f"http://m/{name}", "matched_text_index": 0,
         "matched_sim": 0.3}
        for name in names
    ]  # fmt: skip
    return {
        "url": f"http://page/{number}",
        "text_list": ["one.", "two."],
        "image_info": infos,
        "similarity_matrix": [[0.3, 0.2] for _ in names],
        "could_have_url_duplicate": 0,
    } | changes


def test_mmc4(tmp_path):
    (tmp_path / "pics").mkdir()
    for name in ("a", "b"):
        (tmp_path / "pics" / f"{name}.jpg").write_bytes(jpeg(ord(name)))
    rows = [
        mmc4_row(0, ["a.jpg", "gone.jpg", "b.jpg"]),
        mmc4_row(1, ["gone.jpg"]),
        mmc4_row(2, ["a.jpg"], text_list=None),
        mmc4_row(3, []),
    ]
    table = tmp_path / "docs_shard_0_v2.jsonl"
    table.write_text("\n".join(map(json.dumps, rows)) + "\nnot json\n")
    out = tmp_path / "out"
    run(mmc4, "mmc4", "--rows", table, "--images", tmp_path / "pics", "--out", out)
    (sample,) = read(out)
    page = json.loads(sample["json"])
    pictures = [info.pop("image_base64", None) for info in page["image_info"]]
    assert page == rows[0]
    assert [p and base64.b64decode(p) for p in pictures] == [jpeg(ord("a")), None, jpeg(ord("b"))]
    assert dropped(out) == {"missing_file": 1, "bad_json": 2, "too_few_images": 1}


def test_mmc4_by_url_and_with_its_pictures_in_it(tmp_path):
    rows = [mmc4_row(0, ["a.jpg", "b.jpg"])]
    rows[0]["image_info"][1]["image_base64"] = base64.b64encode(jpeg(2)).decode()
    (tmp_path / "rows").mkdir()
    (tmp_path / "rows" / "docs.jsonl").write_text(json.dumps(rows[0]))
    downloads(tmp_path / "got", {"http://m/a.jpg": jpeg(1)})
    run(mmc4, "mmc4", "--rows", tmp_path / "rows", "--downloads", tmp_path / "got",
        "--out", tmp_path / "out")  # fmt: skip
    (sample,) = read(tmp_path / "out")
    infos = json.loads(sample["json"])["image_info"]
    assert [base64.b64decode(info["image_base64"]) for info in infos] == [jpeg(1), jpeg(2)]


def test_obelics(tmp_path):
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    urls = {"http://o/0.jpg": jpeg(0), "http://o/1.jpg": None, "http://o/3.png": jpeg(3)}
    downloads(tmp_path / "got", urls)
    rows = [
        {
            "images": ["http://o/0.jpg", None, "http://o/1.jpg", "http://o/3.png", None],
            "texts": [None, "first", None, None, "second"],
            "metadata": "[]",
        },
        {"images": ["http://o/1.jpg"], "texts": [None], "metadata": "[]"},
        {"images": [None], "texts": ["a", "b"], "metadata": "[]"},
    ]
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "obelics.parquet")
    out = tmp_path / "out"
    run(obelics, "obelics", "--rows", tmp_path / "obelics.parquet", "--downloads",
        tmp_path / "got", "--out", out)  # fmt: skip
    (sample,) = read(out)
    assert json.loads(sample["json"]) == rows[0]
    assert {n: c for n, c in sample.items() if n[0].isdigit()} == {
        "0.jpg": jpeg(0),
        "3.jpg": jpeg(3),
    }
    assert dropped(out) == {"missing_file": 1, "bad_json": 1}


def test_obelics_with_embedded_pictures(tmp_path):
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    row = {"images": [{"bytes": jpeg(1)}, None], "texts": [None, "a text"]}
    parquet.write_table(pa.Table.from_pylist([row]), tmp_path / "rows.parquet")
    run(obelics, "obelics", "--rows", tmp_path / "rows.parquet", "--out", tmp_path / "out")
    (sample,) = read(tmp_path / "out")
    assert sample["0.jpg"] == jpeg(1)
    assert json.loads(sample["json"]) == {"images": ["0.jpg", None], "texts": [None, "a text"]}


# --- one's own documents -----------------------------------------------------------------------


def test_documents_of_json_lines(tmp_path):
    for name in ("a.jpg", "f0.jpg", "f1.jpg"):
        (tmp_path / name).write_bytes(jpeg(len(name)))
    (tmp_path / "clip.mp4").write_bytes(b"clip")
    good = {
        "key": "mine",
        "by": "me",
        "chunks": [
            {"text": "before"},
            {"image": "a.jpg", "text": "one"},
            {"image": ["f0.jpg", "f1.jpg"], "text": "two"},
            {"image": "clip.mp4", "text": "three"},
        ],
    }
    bad = [{"chunks": [{"image": "none.jpg", "text": ""}]}, {"chunks": []}, {"chunks": ["a"]}, {}]
    table = tmp_path / "documents.jsonl"
    table.write_text("\n".join(map(json.dumps, [good, *bad])))
    out = tmp_path / "out"
    run(documents, "documents", "--documents", table, "--out", out)
    (sample,) = read(out)
    document = json.loads(sample["json"])
    images = [chunk.get("image") for chunk in document["chunks"]]
    assert images == [None, "1.jpg", ["2.0.jpg", "2.1.jpg"], "3.mp4"]
    assert [chunk["text"] for chunk in document["chunks"]] == ["before", "one", "two", "three"]
    assert (document["key"], document["by"]) == ("mine", "me")
    assert sample["1.jpg"] == jpeg(5)
    assert sample["2.1.jpg"] == jpeg(6)
    assert sample["3.mp4"] == b"clip"
    assert dropped(out) == {"missing_file": 1, "bad_json": 3}


def test_documents_of_a_folder(tmp_path, capsys):
    notes = tmp_path / "notes" / "deep"
    notes.mkdir(parents=True)
    (notes / "a.jpg").write_bytes(jpeg(1))
    (notes / "b.png").write_bytes(tiny.encoded(tiny.picture(2)))
    (notes / "page.md").write_text(
        '# Title\n\n![first](a.jpg "a title")\n\nOne.\n\n![](b.png)\nTwo.\n'
    )
    (notes / "a.txt").write_text("a picture alone\n")
    (notes / "empty.md").write_text(" \n")
    out = tmp_path / "out"
    run(documents, "documents", "--documents", tmp_path / "notes", "--out", out)
    pair, page = ((s, json.loads(s["json"])) for s in read(out))
    assert pair[1]["chunks"] == [{"image": "0.jpg", "text": "a picture alone"}]
    assert page[1]["key"] == "deep/page.md"
    assert page[1]["chunks"] == [
        {"text": "# Title"},
        {"image": "1.jpg", "text": "One."},
        {"image": "2.png", "text": "Two."},
    ]
    assert (page[0]["1.jpg"], pair[0]["0.jpg"]) == (jpeg(1), jpeg(1))
    assert manifest(out)["dropped"]["no_text"]["count"] == 1
    (tmp_path / "nothing").mkdir()
    fails(capsys, "holds neither Markdown files nor pictures", documents, "documents",
          "--documents", tmp_path / "nothing", "--out", tmp_path / "x")  # fmt: skip


@pytest.mark.parametrize("command", [coco, flickr30k, pairs, mmc4, obelics, documents])
def test_help_explains_every_option(command, capsys):
    name = command.__name__.rpartition(".")[2]
    with pytest.raises(SystemExit) as end:
        run(command, name, "--help")
    assert end.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    for words in ("Folder of the shards", "Local processes", "runs on the Ray cluster of this"):
        assert words in shown
