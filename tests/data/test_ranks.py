"""Two ranks of a real trainer, killed and resumed."""

import json
from collections import Counter

import pytest
import tiny
from recorded import STEPS, train

SIZES = {"pairs": [9, 1, 4, 13], "documents": [2, 7, 1, 5]}


@pytest.fixture
def fit(processor, language_folder, tmp_path):
    """Train two ranks; returns the exit code and what each wrote down."""
    for name, sizes in SIZES.items():
        for shard, size in enumerate(sizes):
            samples = {f"{name}{shard}-{i}": tiny.pair("a", 20 * shard + i) for i in range(size)}
            tiny.write_shard(tmp_path / name / f"{shard}.tar", samples)
    bad = {"png": b"no", "txt": b"a"}
    samples = {str(i): bad if i in (1, 3) else tiny.pair("a", i) for i in range(7)}
    tiny.write_shard(tmp_path / "validation" / "0.tar", samples)

    def fit(name, *mixing, **settings):
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        known = str(language_folder), processor.preprocessing
        code = train(folder, *known, *mixing, **settings)
        return code, [read(folder / f"{rank}.jsonl") for rank in range(2)]

    return fit


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.mark.parametrize(
    ("workers", "mixture"),
    [(0, "all"), pytest.param(2, "all", marks=pytest.mark.slow), (0, "sample")],
)
def test_two_ranks_killed_at_a_step_go_on_as_if_undisturbed(fit, tmp_path, workers, mixture):
    code, whole = fit("whole", workers, mixture)
    assert code == 0
    code, _ = fit("killed", workers, mixture, killed_at=8)
    assert code != 0
    checkpoint = tmp_path / "killed" / "last.ckpt"
    code, rest = fit("rest", workers, mixture, checkpoint=checkpoint)
    assert code == 0
    for mine, expected in zip(rest, whole, strict=True):
        assert mine == expected[6:]  # keys and losses alike, from the last checkpoint on
    if mixture == "sample":
        assert [list(step[1]) for step in whole[0]] == [list(step[1]) for step in whole[1]]


def test_uneven_shards_hold_up_nobody(fit, tmp_path):
    """Ranks come to the ends of their epochs at different steps."""
    code, ranks = fit("run")
    assert code == 0
    assert [len(steps) for steps in ranks] == [STEPS, STEPS]
    for name, sizes in SIZES.items():
        found = Counter(key for steps in ranks for step in steps for key in step[1][name])
        assert len(found) == sum(sizes)
    validated = [read(tmp_path / "run" / f"{rank}.validation") for rank in range(2)]
    assert validated == [[["0", "2"], ["4", "6"]] * 2, [["5", "5"], ["5", "5"]] * 2]
