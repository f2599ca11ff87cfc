"""A job: shards with a manifest, kept when finished, never seen half-written."""

import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections import namedtuple
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import webdataset

from data_prep import shards
from data_prep.jobs import EachRow, Job, Part, describe, run_job
from data_prep.shards import write_shard
from data_prep.workers import WorkerDied, run_parts
from miniflamingo.data.dropped import Dropped

Usage = namedtuple("Usage", "total used free")


@dataclass(frozen=True)
class Convert:
    """Numbers to samples. Odd things happen at certain numbers, while a marker file is missing."""

    log: Path
    drop: tuple[int, ...] = ()
    kill_at: int = -1

    def __call__(self, key, row):
        with (self.log / f"{row}").open("a") as file:
            file.write("x")
        if row == self.kill_at and not (self.log / "killed").exists():
            (self.log / "killed").touch()
            os.kill(os.getpid(), 9)
        if row in self.drop:
            raise Dropped("no_text", f"row {row} says nothing")
        return {"__key__": key, "txt": f"row {row}".encode()}


HOLDS = """
import time
from pathlib import Path
from miniflamingo.lock import hold
held = hold(Path({out!r}))
print("held", flush=True)
time.sleep(60)
"""


def make_job(log, shards=3, rows=4, **settings):
    log.mkdir(exist_ok=True)
    parts = [
        Part(f"{shard:06d}", range(shard * rows, (shard + 1) * rows)) for shard in range(shards)
    ]
    convert = EachRow(Convert(log, **settings))
    return Job("numbers", {"rows": rows}, parts, convert, "counting", "CC0", {"layout": "pairs"})


def read(folder):
    paths = sorted(str(path) for path in folder.glob("*.tar"))
    samples = webdataset.WebDataset(paths, shardshuffle=False)
    return [(sample["__key__"], sample["txt"].decode()) for sample in samples]


EVERYTHING = [
    (f"{shard:06d}{place:06d}", f"row {4 * shard + place}")
    for shard in range(3)
    for place in range(4)
]


def visible(folder):
    return {path.name for path in folder.iterdir() if not path.name.startswith(".")}


@pytest.mark.parametrize("workers", [1, 2])
def test_a_job_writes_shards_and_a_manifest_that_knows_them(tmp_path, workers):
    out = tmp_path / "out"
    manifest = run_job(make_job(tmp_path / "log", drop=(1, 5)), out, workers, None)
    kept = [each for each in EVERYTHING if each[1] not in ("row 1", "row 5")]
    assert read(out) == kept
    assert visible(out) == {"000000.tar", "000001.tar", "000002.tar", "manifest.json"}
    assert json.loads((out / "manifest.json").read_text()) == manifest
    for name, entry in manifest["shards"].items():
        content = (out / name).read_bytes()
        assert entry["sha256"] == hashlib.sha256(content).hexdigest()
        assert entry["bytes"] == len(content)
    assert [entry["samples"] for entry in manifest["shards"].values()] == [3, 3, 4]
    assert manifest["samples"] == 10
    assert manifest["dropped"] == {"no_text": {"count": 2, "first": "row 1 says nothing"}}
    assert (manifest["source"], manifest["license"]) == ("counting", "CC0")
    assert manifest["layout"] == "pairs"
    shown = describe(manifest, out)
    assert "3 shards, 10 samples" in shown
    assert "dropped 2 no_text, the first: row 1 says nothing" in shown


def test_finished_shards_are_kept_and_damaged_ones_written_again(tmp_path):
    job, out = make_job(tmp_path / "log"), tmp_path / "out"
    run_job(job, out, 1, None)
    before = {path.name: path.stat().st_mtime_ns for path in out.glob("*.tar")}
    (out / "000001.tar").write_bytes(b"cut short")
    whole = (out / "000000.tar").read_bytes()
    (out / "000000.tar").write_bytes(whole[:-1] + b"\x01")  # the same size
    run_job(job, out, 1, None)
    assert read(out) == EVERYTHING
    after = {path.name: path.stat().st_mtime_ns for path in out.glob("*.tar")}
    assert {name for name in before if after[name] != before[name]} == {"000000.tar", "000001.tar"}
    assert (out / "000000.tar").read_bytes() == whole


def test_a_job_that_was_stopped_goes_on_with_what_is_missing(tmp_path):
    log, out = tmp_path / "log", tmp_path / "out"
    job = make_job(log)

    def stops(name, rows):
        if name == "000001":
            raise KeyboardInterrupt
        yield from job.convert(name, rows)

    with pytest.raises(KeyboardInterrupt):
        run_job(replace(job, convert=stops), out, 1, None)
    assert visible(out) == {"000000.tar"}  # no manifest: it is not finished
    run_job(job, out, 1, None)
    assert read(out) == EVERYTHING
    # Rows 0 to 3 are looked at before each start, and converted once.
    assert [len((log / str(row)).read_text()) for row in range(12)] == [3] * 4 + [1] * 8


def test_a_folder_of_another_job_is_refused(tmp_path):
    out = tmp_path / "out"
    run_job(make_job(tmp_path / "log"), out, 1, None)
    with pytest.raises(ValueError, match=r"holds shards of another job: .*'rows': 4.*'rows': 2"):
        run_job(make_job(tmp_path / "log", rows=2), out, 1, None)
    strange = tmp_path / "strange"
    strange.mkdir()
    (strange / "a.tar").touch()
    with pytest.raises(ValueError, match=r"holds a\.tar and no record of how it was made"):
        run_job(make_job(tmp_path / "log"), strange, 1, None)


def test_a_job_without_one_usable_row_says_why(tmp_path):
    job = make_job(tmp_path / "log", shards=1, drop=(0, 1, 2, 3))
    with pytest.raises(ValueError, match="not one row of counting could be used: row 0 says"):
        run_job(job, tmp_path / "out", 1, None)
    assert visible(tmp_path / "out") == set()
    with pytest.raises(ValueError, match="found no rows at all in counting"):
        run_job(replace(job, parts=[]), tmp_path / "other", 1, None)


def test_too_small_a_disk_is_noticed_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(100, 100, 10))
    with pytest.raises(OSError, match="not enough disk space for about 12 samples"):
        run_job(make_job(tmp_path / "log"), tmp_path / "out", 1, None)
    assert not (tmp_path / "out").exists()


def test_a_disk_that_fills_up_leaves_no_half_shard_and_says_what_to_do(tmp_path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shards.os, "fsync", full)
    with pytest.raises(OSError, match=r"the disk is full: .*a\.tar could not be written") as error:
        write_shard(tmp_path / "a.tar", [{"__key__": "a", "txt": b"a"}])
    assert error.value.errno == errno.ENOSPC
    assert list(tmp_path.iterdir()) == []


def test_a_local_worker_that_is_killed_ends_the_job_which_then_goes_on(tmp_path):
    job, out = make_job(tmp_path / "log", kill_at=6), tmp_path / "out"
    with pytest.raises(WorkerDied, match="run the same command again"):
        run_job(job, out, 2, None)
    assert "manifest.json" not in visible(out)
    run_job(job, out, 2, None)
    assert read(out) == EVERYTHING
    assert not list(out.glob(".*.unfinished"))


def test_workers_must_be_one_or_more():
    with pytest.raises(ValueError, match="--workers is 0"):
        list(run_parts(len, [], 0, None))


@pytest.mark.slow  # Ray takes ten seconds to start
def test_a_ray_worker_killed_mid_job_loses_and_doubles_nothing(tmp_path):
    pytest.importorskip("ray")
    log, out = tmp_path / "log", tmp_path / "out"
    job = make_job(log, shards=6, kill_at=10)
    manifest = run_job(job, out, 2, "local")
    assert (log / "killed").exists()
    assert [text for _, text in read(out)] == [f"row {row}" for row in range(24)]
    assert manifest["samples"] == 24
    assert not list(out.glob(".*.unfinished"))
    assert visible(out) == {*manifest["shards"], "manifest.json"}


@pytest.mark.slow
def test_an_error_in_a_ray_worker_is_the_users_own(tmp_path):
    pytest.importorskip("ray")
    with pytest.raises(ValueError, match="invalid literal"):
        list(run_parts(int, ["1", "no number"], 1, "local"))


@pytest.mark.slow
def test_ray_gives_each_part_a_gpu_of_its_own(monkeypatch):
    pytest.importorskip("ray")
    monkeypatch.setenv("RAY_OVERRIDE_RESOURCES", '{"GPU": 2}')
    seen = list(run_parts(os.getenv, ["CUDA_VISIBLE_DEVICES"] * 4, 2, "local", gpus=1))
    assert len(seen) == 4
    assert set(seen) <= {"0", "1"}
    with pytest.raises(ValueError, match="--ray local found 2 GPUs, and each part needs 3"):
        list(run_parts(os.getenv, ["CUDA_VISIBLE_DEVICES"], 2, "local", gpus=3))


def test_two_jobs_do_not_write_one_folder(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    other = subprocess.Popen(
        [sys.executable, "-c", HOLDS.format(out=str(out))], stdout=subprocess.PIPE, text=True
    )
    try:
        assert other.stdout.readline() == "held\n"
        mine = out / ".0.1234.unfinished"
        mine.write_text("")
        with pytest.raises(ValueError, match=f"process {other.pid} on"):
            run_job(make_job(tmp_path / "log"), out, 1, None)
        assert mine.exists()  # it is the other's
    finally:
        other.kill()
        other.wait()
    run_job(make_job(tmp_path / "log"), out, 1, None)
    assert read(out) == EVERYTHING
    assert not mine.exists()
