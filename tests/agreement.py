"""How closely two results agree."""

from torch import Tensor


def assert_agrees(ours: Tensor, reference: Tensor, tolerance: float = 1e-5) -> None:
    """The largest deviation, as a part of the largest reference value, is within the tolerance."""
    assert ours.shape == reference.shape
    deviation = (ours - reference).abs().max() / reference.abs().max()
    assert deviation <= tolerance
