"""An error in a reading process ends the command at once, whoever reads and whatever is wrong."""

import shutil
from pathlib import Path

import pytest
from command import finish, start


def cut_in_half(shard):
    shard.write_bytes(shard.read_bytes()[: shard.stat().st_size // 2 + 100])


def children_of(pid):
    statuses = [path for path in Path("/proc").glob("[0-9]*/status") if path.is_file()]
    return [path for path in statuses if f"\nPPid:\t{pid}\n" in path.read_text()]


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("pattern", ["validation/*.tar", "pairs/*.tar"])
def test_a_source_that_cannot_be_read_ends_the_run(
    config, write, tmp_path, world, pattern, workers
):
    copy = tmp_path / "world"
    shutil.copytree(world, copy)
    for shard in copy.glob(pattern):
        if "pairs" in pattern:
            shard.write_bytes(b"<html>404 Not Found</html>" * 100)
        else:
            cut_in_half(shard)
    data = config["data"]
    data["num_workers"] = workers
    data["sources"]["pairs"]["urls"] = f"{copy}/pairs/*.tar"
    data["validation"]["urls"] = f"{copy}/validation/*.tar"
    config["trainer"]["callbacks"] = []
    process = start(["fit", "--config", write(config)], tmp_path / "log")
    assert finish(process, 60) in (1, 2)
    assert "miniflamingo fit:" in (tmp_path / "log").read_text()
    assert not children_of(process.pid)
