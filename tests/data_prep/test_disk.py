import shutil
from collections import namedtuple

import pytest

from data_prep.disk import require_disk_space

Usage = namedtuple("Usage", "total used free")


def test_enough_space_passes_for_a_folder_that_does_not_exist_yet(tmp_path):
    require_disk_space(tmp_path / "not" / "there", 1, "a file")
    assert not (tmp_path / "not").exists()  # asking makes nothing


def test_too_little_space_says_how_much_is_needed_and_free(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(100, 90, 3_000_000))
    with pytest.raises(OSError, match=r"the data: it needs 20 MB .* only 3 MB are free"):
        require_disk_space(tmp_path, 20_000_000, "the data")
