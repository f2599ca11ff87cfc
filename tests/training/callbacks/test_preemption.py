"""A second Ctrl-C does not wait for the end of the step."""

import signal

import pytest

from miniflamingo.training.callbacks.preemption import Preemption


def test_only_the_second_ctrl_c_stops_at_once(capfd):
    preemption = Preemption()
    preemption.remember(signal.SIGINT, None)
    assert preemption.received is signal.SIGINT
    assert "Ctrl-C again stops at once" in capfd.readouterr().err
    with pytest.raises(KeyboardInterrupt):
        preemption.remember(signal.SIGINT, None)
