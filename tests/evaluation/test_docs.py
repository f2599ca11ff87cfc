"""docs/evaluation.md speaks of what there is."""

import re
from pathlib import Path

from miniflamingo.cli.fewshot import make_parser
from miniflamingo.evaluation.results import PREDICTIONS_FILE, RESULTS_FILE

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "evaluation.md").read_text()
OWN = {"embedded", "smoke"}  # made here, not fetched


def test_every_shipped_task_says_where_its_files_come_from():
    tasks = {file.stem for file in (ROOT / "configs" / "tasks").glob("*.yaml")} - OWN
    assert tasks == set(re.findall(r"^\| `([a-z0-9_]+)` \|.*\|.*\|$", TEXT, re.MULTILINE))


def test_every_option_that_is_named_exists():
    known = {name for action in make_parser()._actions for name in action.option_strings}
    named = set(re.findall(r"--[a-z][a-z-]+", TEXT))
    assert named - known == {"--compare", "--anyway"}  # read before the others


def test_the_files_have_the_names_that_are_written():
    for name in (RESULTS_FILE, PREDICTIONS_FILE, "report.md", "curve.png", "samples.png"):
        assert f"`{name}`" in TEXT
