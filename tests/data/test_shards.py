"""From urls to shards."""

import re

import pytest
import tiny

from miniflamingo.data.shards import find_shards


def test_globs_and_ranges_are_expanded_in_order(tmp_path):
    for name in ("b1", "a2", "a1", "c0"):
        tiny.write_shard(tmp_path / f"{name}.tar", {"0": tiny.pair("a", 0)})
    names = [f"{tmp_path}/{name}.tar" for name in ("a1", "a2", "b1")]
    assert find_shards([f"{tmp_path}/a*.tar", f"{tmp_path}/b1.tar"]) == names
    assert find_shards(f"{tmp_path}/a{{1..2}}.tar") == names[:2]
    urls = [f"https://example.org/{i:02}.tar" for i in range(3)]
    assert find_shards("https://example.org/{00..02}.tar") == urls


def test_no_shards_at_a_path(tmp_path):
    tiny.write_shard(tmp_path / "0.tar", {"0": tiny.pair("a", 0)})
    missing = f"{tmp_path}/1.tar"
    with pytest.raises(ValueError, match=re.escape(f"no shards at '{missing}'")):
        find_shards(f"{tmp_path}/{{0..1}}.tar")
