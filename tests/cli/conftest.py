"""An exported tiny model for the commands."""

from collections.abc import Callable
from pathlib import Path

import pytest

from miniflamingo import MiniFlamingo, MiniFlamingoProcessor


@pytest.fixture
def exported(
    build: Callable[..., MiniFlamingo], processor: MiniFlamingoProcessor, tmp_path: Path
) -> str:
    """A folder as training exports it."""
    folder = tmp_path / "model"
    build(opened=True).save_pretrained(folder)
    processor.save_pretrained(folder)
    return str(folder)
