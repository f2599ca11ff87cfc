"""Reasons have names, and names travel."""

import pickle
import re
from pathlib import Path

import pytest

from miniflamingo.data.dropped import REASONS, Dropped, naming


def test_the_sample_and_its_shard_are_named():
    with (
        pytest.raises(Dropped, match=r"^sample 'a' of b\.tar: too bad$") as error,
        naming({"__key__": "a", "__url__": "b.tar"}),
    ):
        raise Dropped("bad_json", "too bad")
    assert error.value.reason == "bad_json"


def test_other_errors_are_our_own_mistakes_and_pass():
    with pytest.raises(KeyError), naming({"__key__": "a"}):
        raise KeyError("a")


def test_a_worker_may_send_it():
    again = pickle.loads(pickle.dumps(Dropped("no_text", "nothing there")))
    assert (again.reason, str(again)) == ("no_text", "nothing there")


def test_every_reason_stands_in_the_documentation():
    page = (Path(__file__).parents[2] / "docs" / "data.md").read_text()
    told = set(re.findall(r"`([a-z]+(?:_[a-z]+)*)`", page))
    assert set(REASONS) <= told
