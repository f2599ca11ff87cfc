"""A file is there whole or not at all, whoever else writes it."""

import stat
import threading

import pytest

from miniflamingo.errors import UserError
from miniflamingo.files import read_json, whole_file, write_whole


def test_an_error_leaves_the_file_and_its_folder_as_they_were(tmp_path):
    file = tmp_path / "a.txt"
    write_whole(file, "before")

    def fail():
        with whole_file(file) as unfinished:
            unfinished.write_text("half")
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        fail()
    assert file.read_text() == "before"
    assert list(tmp_path.iterdir()) == [file]


def test_many_writers_never_leave_a_mixture(tmp_path):
    file = tmp_path / "a.txt"
    texts = [str(n) * 100_000 for n in range(4)]
    threads = [
        threading.Thread(target=lambda text=text: [write_whole(file, text) for _ in range(20)])
        for text in texts
    ]
    write_whole(file, texts[0])
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        assert file.read_text() in texts
    assert stat.S_IMODE(file.stat().st_mode) == 0o644
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("content", [b"{", b"\xff"])
def test_a_file_that_holds_no_json_is_named(tmp_path, content):
    file = tmp_path / "config.json"
    file.write_bytes(content)
    with pytest.raises(UserError, match=r"config\.json holds no JSON"):
        read_json(file)
