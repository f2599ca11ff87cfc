"""Slow arithmetic is told."""

import pytest
import torch

from miniflamingo.training import precision


@pytest.mark.parametrize(("seconds", "warned"), [(0.001, False), (0.0019, False), (0.007, True)])
def test_only_slow_bfloat16_is_worth_a_word(seconds, warned, monkeypatch):
    times = {torch.float32: 0.001, torch.bfloat16: seconds}
    monkeypatch.setattr(precision, "product_time", times.__getitem__)
    warning = precision.bfloat16_warning()
    assert (warning is not None) == warned
    if warning:
        assert "7 times slower" in warning
        assert "--trainer.precision 32-true" in warning


def test_it_measures_this_machine():
    assert 0 < precision.product_time(torch.float32, size=64) < 1
