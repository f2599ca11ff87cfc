"""A second process is told who writes a folder; a dead one holds nothing."""

import json
import multiprocessing
import os
import signal

import pytest

from miniflamingo.errors import UserError
from miniflamingo.lock import LOCK, hold, release

FORK = multiprocessing.get_context("fork")


def _hold(folder, ready):
    hold(folder)
    ready.set()
    signal.pause()


def test_a_second_process_is_refused_by_the_name_of_the_first(tmp_path, caplog):
    ready = FORK.Event()
    first = FORK.Process(target=_hold, args=(tmp_path, ready))
    first.start()
    try:
        assert ready.wait(10)
        with pytest.raises(UserError, match=f"process {first.pid} on "):
            hold(tmp_path)
    finally:
        os.kill(first.pid, signal.SIGKILL)  # it cannot clean up
        first.join()
    caplog.set_level("INFO")
    file = hold(tmp_path)
    assert f"process {first.pid} on" in caplog.text
    assert json.loads((tmp_path / LOCK).read_text())["pid"] == os.getpid()
    release(file)
    assert not (tmp_path / LOCK).read_text()


def test_a_lock_of_which_nothing_can_be_read_is_no_obstacle(tmp_path):
    (tmp_path / LOCK).write_text("{")
    release(hold(tmp_path))
