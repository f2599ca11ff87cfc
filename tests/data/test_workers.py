"""A reading process outlives a scheduler's signals, never its training process."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time

from miniflamingo.data.workers import obey_parent_alone

FORK = multiprocessing.get_context("fork")


def _wait(ready):
    obey_parent_alone()
    ready.set()
    time.sleep(60)


def test_only_the_parents_sigterm_ends_a_reading_process():
    ready = FORK.Event()
    process = FORK.Process(target=_wait, args=(ready,), daemon=True)
    process.start()
    assert ready.wait(10)
    for name in ("TERM", "USR1"):
        sender = f"import os, signal; os.kill({process.pid}, signal.SIG{name})"
        subprocess.run([sys.executable, "-c", sender], check=True)
    process.join(0.3)
    assert process.exitcode is None
    os.kill(process.pid, signal.SIGTERM)  # as multiprocessing does when this process ends
    process.join(5)
    assert process.exitcode == 0
