"""Samples as they come out of a shard."""

import pytest
import tiny

from miniflamingo.data.shards import read_samples


@pytest.fixture
def read(tmp_path):
    """Write files of one key into a shard, and read them back as a sample."""

    def read(files, key="000"):
        (sample,) = read_samples([str(tiny.write_shard(tmp_path / "a.tar", {key: files}))])
        return sample

    return read
