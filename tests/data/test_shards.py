"""From urls over tar files to samples, whatever state they are in."""

import gzip
import http.server
import io
import os
import re
import tarfile
import threading
from functools import partial

import fsspec
import pytest
import tiny

from miniflamingo.data import shards as shards_module
from miniflamingo.data.dropped import Dropped
from miniflamingo.data.shards import BrokenShard, find_shards, read_samples, read_shard
from miniflamingo.data.urls import check_pace

SAMPLES = {f"{i}": {"png": bytes([i]) * 700, "txt": b"a"} for i in range(5)}


@pytest.fixture
def shard(tmp_path):
    return tiny.write_shard(tmp_path / "0.tar", SAMPLES)


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(shards_module.time, "sleep", lambda seconds: None)


def read(url, **settings):
    """The keys of a shard's samples, and what it ended with."""
    keys = []
    try:
        for sample in read_shard(str(url), **settings):
            keys.append(sample["__key__"])
    except BrokenShard as error:
        return keys, str(error)
    return keys, None


def test_a_sample_is_the_files_of_one_key(shard):
    first, *_ = read_samples([str(shard)])
    assert first == SAMPLES["0"] | {"__key__": "0", "__url__": str(shard)}
    assert read(shard) == (list(SAMPLES), None)


def test_a_compressed_shard(shard, tmp_path):
    path = tmp_path / "0.tar.gz"
    path.write_bytes(gzip.compress(shard.read_bytes()))
    assert read(path) == (list(SAMPLES), None)
    path.write_bytes(gzip.compress(shard.read_bytes())[:-300])
    assert read(path)[1].startswith(f"shard {path}: after ")


@pytest.mark.parametrize("size", range(0, 3 * 2560, 256))
def test_a_shard_that_was_cut_anywhere_gives_whole_samples_and_says_so(shard, size):
    shard.write_bytes(shard.read_bytes()[:size])  # a sample is 512 + 1024 + 512 + 512 bytes
    keys, error = read(shard)
    # That a sample is whole is known when the first file of the next has been read.
    complete = max(0, size // 2560 - (size % 2560 < 512 + 700))
    assert keys == list(SAMPLES)[:complete]
    assert error.startswith(f"shard {shard}: after {complete} samples: ")


def test_a_header_that_is_damaged_is_not_the_end(shard):
    content = bytearray(shard.read_bytes())
    content[2 * 2560 : 2 * 2560 + 512] = b"x" * 512
    shard.write_bytes(content)
    keys, error = read(shard)
    assert keys == ["0"]
    assert "where a file or the tar's end should be" in error


def test_a_file_that_claims_to_be_huge_is_not_waited_for(shard, tmp_path):
    info = tarfile.TarInfo("1.png")
    info.size = 2**40
    path = tmp_path / "1.tar"
    path.write_bytes(shard.read_bytes()[:2560] + info.tobuf())
    assert read(path) == (
        [],
        f"shard {path}: after 0 samples: '1.png' claims to hold {2**40} bytes",
    )


def test_names_that_are_no_plain_files_or_have_no_ending(tmp_path):
    path = tmp_path / "0.tar"
    with tarfile.open(path, "w") as tar:
        for name, kind in [
            ("../../etc/passwd", tarfile.REGTYPE),
            ("folder", tarfile.DIRTYPE),
            ("0.png", tarfile.SYMTYPE),
            ("__notes__/0.json", tarfile.REGTYPE),
            ("../1.txt", tarfile.REGTYPE),
            ("a.b/c.d.TXT", tarfile.REGTYPE),
        ]:
            info = tarfile.TarInfo(name)
            info.type = kind
            tar.addfile(info, io.BytesIO())
    found = list(read_samples([str(path)]))
    assert [{name for name in sample if name[0] != "_"} for sample in found] == [{"txt"}, {"d.txt"}]
    assert [sample["__key__"] for sample in found] == ["../1", "a.b/c"]
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["png", "__url__", "__key__"])
def test_a_sample_with_a_name_twice_is_dropped_alone(tmp_path, name):
    path = tmp_path / "0.tar"
    with tarfile.open(path, "w") as tar:
        for file in ("0.png", "1.png", f"1.{name}", "1.txt", "2.png"):
            tar.addfile(tarfile.TarInfo(file), io.BytesIO())
    first, second, third = read_shard(str(path))
    assert (first["__key__"], third["__key__"]) == ("0", "2")
    assert isinstance(second, Dropped)
    assert second.reason == "duplicate_file"
    assert str(second) == f"sample '1' of {path} holds {name!r} twice."
    with pytest.raises(Dropped, match="twice"):
        list(read_samples([str(path)]))


def test_a_shard_that_is_gone(tmp_path):
    keys, error = read(tmp_path / "0.tar")
    assert (keys, "No such file" in error) == ([], True)


def test_globs_and_ranges_are_expanded_in_order(tmp_path):
    for name in ("b1", "a2", "a1", "c0"):
        tiny.write_shard(tmp_path / f"{name}.tar", {"0": tiny.pair("a", 0)})
    names = [f"{tmp_path}/{name}.tar" for name in ("a1", "a2", "b1")]
    assert find_shards([f"{tmp_path}/a*.tar", f"{tmp_path}/b1.tar"]) == names
    assert find_shards(f"{tmp_path}/a{{1..2}}.tar") == names[:2]
    assert find_shards(f"file://{tmp_path}/a1.tar") == names[:1]
    urls = [f"https://example.org/{i:02}.tar" for i in range(3)]
    assert find_shards("https://example.org/{00..02}.tar") == urls
    assert find_shards("pipe:cat {0..1}.tar") == ["pipe:cat 0.tar", "pipe:cat 1.tar"]


def test_no_shards_at_a_path(tmp_path):
    tiny.write_shard(tmp_path / "0.tar", {"0": tiny.pair("a", 0)})
    missing = f"{tmp_path}/1.tar"
    with pytest.raises(ValueError, match=re.escape(f"no shards at '{missing}'")):
        find_shards(f"{tmp_path}/{{0..1}}.tar")


def test_what_fsspec_opens(shard):
    for name in ("b", "a"):
        fsspec.filesystem("memory").pipe_file(f"/shards/{name}.tar", shard.read_bytes())
    found = find_shards("memory://shards/*.tar")
    assert found == ["memory:///shards/a.tar", "memory:///shards/b.tar"]
    assert read(found[0]) == (list(SAMPLES), None)
    keys, error = read("memory://shards/c.tar")
    assert (keys, "c.tar: after 0 samples" in error) == ([], True)
    with pytest.raises(ValueError, match="no shards at 'memory://nothing"):
        find_shards("memory://nothing/*.tar")


def test_a_kind_of_url_that_nothing_opens():
    with pytest.raises(ValueError, match=r"cannot open 'ps5://bucket/0\.tar': Protocol"):
        find_shards("ps5://bucket/{0..3}.tar")


def test_commands(shard):
    assert read(f"pipe:cat {shard}") == (list(SAMPLES), None)
    keys, error = read(f"pipe:head -c 6000 {shard}; exit 7")
    assert keys == ["0"] or keys == []  # what has come when the command is seen to have failed
    assert error is not None
    assert read("pipe:exit 3")[1] is not None


class Server(http.server.BaseHTTPRequestHandler):
    """Serves one shard, and fails in a way that the path names, at most ``failures`` times."""

    failures = 0

    def __init__(self, content, *args):
        self.content = content
        super().__init__(*args)

    def do_GET(self):
        failing = self.path.strip("/") if Server.failures else "well"
        Server.failures -= 1
        if failing == "missing":
            self.send_error(404)
            return
        self.send_response(200)
        if failing != "unsized":
            self.send_header("Content-Length", str(len(self.content)))
        self.end_headers()
        length = len(self.content) if failing == "well" else 2 * 2560 + 600
        self.wfile.write(self.content[:length])
        self.wfile.flush()
        if failing == "silent":
            self.server.stopped.wait(10)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(shard):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Server, shard.read_bytes()))
    server.stopped = threading.Event()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.stopped.set()
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("failing", "message"),
    [
        ("missing", "HTTP Error 404"),
        ("breaks", "the server broke off"),
        ("unsized", "unexpected end of data"),
        ("silent", "timed out"),
    ],
)
def test_a_server_that_fails_is_asked_again_and_read_on(server, monkeypatch, failing, message):
    url = f"{server}/{failing}"
    monkeypatch.setattr(Server, "failures", 2)
    assert read(url, timeout=0.3) == (list(SAMPLES), None)
    monkeypatch.setattr(Server, "failures", 10)
    keys, error = read(url, timeout=0.3)
    assert keys == ([] if failing == "missing" else ["0"])
    assert error.startswith(f"shard {url}: after {len(keys)} samples: ")
    assert message in error
    assert Server.failures == 10 - shards_module.ATTEMPTS


@pytest.mark.parametrize("kind", [b"L", b"K", b"x", b"g"])
def test_a_header_that_claims_too_much_is_told_before_it_is_read(tmp_path, kind):
    header = tarfile.TarInfo("././@LongLink")
    header.size, header.type = 500 << 20, kind
    (tmp_path / "0.tar").write_bytes(header.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    with pytest.raises(BrokenShard, match="claims a header of 524288000 bytes"):
        list(read_shard(str(tmp_path / "0.tar")))


@pytest.mark.parametrize(
    "content",
    [
        b"\x1f\x8b\x08\x04" + bytes(6),  # gzip that announces an extra field and ends
        b"\x1f\x8b\x08\x08name",  # and a name
        b"\xfd7zXZ\x00" + bytes(20),
        b"BZh9" + bytes(20),
        b"<html>404 Not Found</html>" * 100,
    ],
)
def test_whatever_is_no_tar_is_a_broken_shard(tmp_path, content):
    shard = tmp_path / "0.tar"
    shard.write_bytes(content)
    with pytest.raises(BrokenShard):
        list(read_shard(str(shard)))


def test_the_files_of_a_sample_have_a_limit_together(tmp_path, monkeypatch):
    monkeypatch.setattr(shards_module, "MOST_SAMPLE_BYTES", 1000)
    files = {
        "a": {"txt": bytes(600), "png": bytes(600), "json": b"{}"},
        "b": {"txt": bytes(600)},
    }
    large, sound = read_shard(str(tiny.write_shard(tmp_path / "0.tar", files)))
    assert isinstance(large, Dropped)
    assert large.reason == "sample_too_large"
    assert "sample 'a'" in str(large)
    assert sound["txt"] == bytes(600)


@pytest.mark.parametrize("compressed", [False, True])
def test_tars_that_were_joined_are_told(tmp_path, compressed):
    parts = []
    for name in "ab":
        shard = tiny.write_shard(tmp_path / f"{name}.tar", {name: {"txt": b"a cup."}})
        parts.append(shard.read_bytes())
    joined = b"".join(parts)
    (tmp_path / "both.tar").write_bytes(gzip.compress(joined) if compressed else joined)
    samples = []
    with pytest.raises(BrokenShard, match="shards of their own"):
        samples.extend(read_shard(str(tmp_path / "both.tar")))


def test_zeros_behind_the_end_are_no_tar(tmp_path):
    shard = tiny.write_shard(tmp_path / "0.tar", {"a": {"txt": b"a cup."}})
    shard.write_bytes(shard.read_bytes() + bytes(100_000))
    assert [sample["__key__"] for sample in read_shard(str(shard))] == ["a"]


def test_a_file_of_no_sample_does_not_reset_a_samples_size(tmp_path, monkeypatch):
    monkeypatch.setattr(shards_module, "MOST_SAMPLE_BYTES", 1000)
    shard = tmp_path / "0.tar"
    with tarfile.open(shard, "w") as tar:
        for name in ("a.1.png", "README", "a.2.png"):
            member = tarfile.TarInfo(name)
            member.size = 600
            tar.addfile(member, io.BytesIO(bytes(600)))
    (large,) = read_shard(str(shard))
    assert isinstance(large, Dropped)


@pytest.mark.parametrize("kind", ["folder", "pipe"])
def test_what_is_no_file_is_told_before_it_is_waited_for(tmp_path, kind):
    place = tmp_path / "place"
    if kind == "folder":
        place.mkdir()
    else:
        os.mkfifo(place)
    message = {"folder": r"is a folder.*\*\.tar", "pipe": "is no file"}[kind]
    with pytest.raises(ValueError, match=message):
        find_shards(str(place))


def test_no_urls_are_told():
    with pytest.raises(ValueError, match="urls is empty"):
        find_shards([])


class Dripping(http.server.BaseHTTPRequestHandler):
    """Never silent, never done."""

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "100000")
        self.end_headers()
        for _ in range(100):
            self.wfile.write(b"x")
            self.wfile.flush()
            if self.server.stopped.wait(0.05):
                return

    def log_message(self, *args):
        pass


@pytest.fixture
def dripping():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Dripping)
    server.stopped = threading.Event()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/0.tar"
    server.stopped.set()
    server.shutdown()
    server.server_close()


def test_a_server_that_drips_is_told_at_the_start_and_given_up_later(dripping):
    with pytest.raises(
        ValueError, match=r"the server sent \d+ bytes in 1 seconds\. Training would"
    ):
        check_pace(dripping, 0.6)
    keys, message = read(dripping, timeout=0.3)
    assert not keys
    assert re.search(r"the server sent \d+ bytes in \d seconds", message)


def test_a_sound_or_a_missing_server_is_no_matter_of_pace(server):
    check_pace(f"{server}/well", 5)
    check_pace(f"{server}/missing", 5)
    check_pace("http://127.0.0.1:9/0.tar", 5)


def test_keys_with_dots_are_told_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr(shards_module, "MOST_SAMPLE_BYTES", 1000)
    files = {"page.v1.1": {"txt": bytes(600)}, "page.v1.2": {"txt": bytes(600)}}
    (dropped,) = read_shard(str(tiny.write_shard(tmp_path / "0.tar", files)))
    assert "ends at the first dot" in str(dropped)
