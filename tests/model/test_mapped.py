"""Ranks of one machine share the frozen language model's file instead of copying it each."""

from pathlib import Path

import pytest
import torch

from miniflamingo.model.language import load_language

MAPS = Path("/proc/self/maps")


def mapped(file: Path) -> list[range]:
    """Addresses at which this process sees a file, without a copy of it."""
    lines = [line.split(maxsplit=5) for line in MAPS.read_text().splitlines()]
    bounds = [line[0].split("-") for line in lines if line[-1].strip() == str(file)]
    return [range(int(start, 16), int(end, 16)) for start, end in bounds]


@pytest.mark.skipif(not MAPS.exists(), reason="asks Linux")
def test_a_frozen_language_model_in_its_saved_precision_is_the_file_itself(language_folder):
    file = (language_folder / "model.safetensors").resolve()
    for dtype, shared in (("auto", True), (torch.bfloat16, False)):
        language = load_language(str(language_folder), dtype)
        places = mapped(file)
        assert [
            any(weight.data_ptr() in place for place in places) for weight in language.parameters()
        ] == [shared] * len(list(language.parameters()))
