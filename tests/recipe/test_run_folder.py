"""A run's folder belongs to one run and one process."""

import multiprocessing

import pytest

from miniflamingo.errors import UserError
from miniflamingo.recipe.run_folder import (
    check_unused,
    is_first_rank,
    set_aside,
)

FORK = multiprocessing.get_context("fork")


@pytest.mark.parametrize("left", ["checkpoints/last.ckpt", "model/config.json"])
def test_a_folder_with_a_run_is_refused_and_can_be_emptied(tmp_path, left):
    (tmp_path / left).parent.mkdir()
    (tmp_path / left).write_text("")
    for name in ("csv", "fewshot", "samples"):
        (tmp_path / name).mkdir()
    for name in ("summary.md", "curves.png", "events.out.tfevents.1", "notes.txt"):
        (tmp_path / name).write_text("")
    with pytest.raises(UserError, match=r"--ckpt_path last.*--overwrite.*default_root_dir"):
        check_unused(tmp_path)
    for number in (1, 2):
        place = set_aside(tmp_path)
        assert place == tmp_path / "earlier" / str(number)
        assert (place / left).is_file()
        assert (place / "fewshot").is_dir()
        check_unused(tmp_path)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["earlier", "notes.txt"]
        for path in list(place.iterdir()):
            path.rename(tmp_path / path.name)
    assert set_aside(tmp_path / "earlier") is None


def test_what_every_rank_writes_at_once_is_no_earlier_run(tmp_path):
    (tmp_path / "csv").mkdir()
    (tmp_path / "csv" / "metrics.csv").write_text("")
    (tmp_path / "config.yaml").write_text("")
    check_unused(tmp_path)


@pytest.mark.parametrize(
    ("environment", "first"),
    [
        ({}, True),
        ({"RANK": "0", "LOCAL_RANK": "0"}, True),
        ({"RANK": "8", "LOCAL_RANK": "0"}, False),  # the first of its machine alone
        ({"LOCAL_RANK": "1"}, False),
        ({"SLURM_PROCID": "3"}, False),
    ],
)
def test_the_first_rank_holds_the_folder(environment, first):
    assert is_first_rank(environment) is first
