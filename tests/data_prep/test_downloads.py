"""The index of downloads: of the files as they are, and of none outside the folder."""

import os
import sqlite3

import pyarrow
import pyarrow.parquet
import pytest
import tiny

from data_prep.downloads import INDEX, build_index, hash_url, open_index

URLS = [f"http://example.org/{number}" for number in range(3)]


def download(folder, side):
    """Write a shard of three pictures as img2dataset does; returns their bytes."""
    samples = {f"{n:05}": {"png": tiny.encoded(tiny.picture(n, side))} for n in range(3)}
    tiny.write_shard(folder / "00000.tar", samples)
    table = {"url": URLS, "key": list(samples), "status": ["success"] * 3}
    pyarrow.parquet.write_table(pyarrow.table(table), folder / "00000.parquet")
    return [files["png"] for files in samples.values()]


def test_an_index_is_made_anew_when_its_tars_were(tmp_path):
    download(tmp_path, 16)
    index = build_index(tmp_path)
    made = index.stat().st_mtime_ns
    assert build_index(tmp_path).stat().st_mtime_ns == made
    right = download(tmp_path, 24)
    later = (tmp_path / "00000.tar").stat().st_mtime + 60
    os.utime(tmp_path / "00000.tar", (later, later))
    downloads = open_index(build_index(tmp_path))
    assert [downloads.read(url) for url in URLS] == right


@pytest.mark.parametrize("name", ["../outside.png", "absolute"])
def test_an_index_reads_nothing_outside_its_folder(tmp_path, name):
    folder, outside = tmp_path / "downloads", tmp_path / "outside.png"
    folder.mkdir()
    download(folder, 16)
    tiny.picture(0).save(outside)
    index = build_index(folder)
    with sqlite3.connect(index) as database:
        row = (hash_url("http://x"), str(outside) if name == "absolute" else name, 0, 50)
        database.execute("INSERT INTO pictures VALUES (?, ?, ?, ?)", row)
    database.close()
    with pytest.raises(ValueError, match=f"{INDEX}.*outside its folder"):
        open_index(index).read("http://x")
