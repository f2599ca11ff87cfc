"""The configuration holds typed sections and is plain values on disk alone."""

import json

import pytest

from miniflamingo.model.config import MiniFlamingoConfig, ResamplerConfig, VisionConfig, XattnConfig

VISION = {"name": "ViT-L-14", "stages": [3, 4]}


def test_sections_are_typed_in_memory_and_plain_on_disk(tmp_path):
    config = MiniFlamingoConfig(
        vision=VisionConfig(**VISION), resampler=ResamplerConfig(latents=3), xattn=XattnConfig(2)
    )
    config.save_pretrained(tmp_path)
    written = json.loads((tmp_path / "config.json").read_text())
    assert written["vision"] == VISION | {
        "pretrained": None,
        "image_size": None,
        "dtype": "float32",
    }
    assert written["resampler"]["latents"] == 3
    again = MiniFlamingoConfig.from_pretrained(tmp_path)
    assert again.vision == config.vision
    assert again.resampler == config.resampler
    assert again.xattn == config.xattn
    assert again.to_dict() == config.to_dict()


@pytest.mark.parametrize("left_out", [{}, {"resampler": None, "xattn": None}])
def test_what_an_older_file_leaves_out_keeps_its_default(left_out):
    config = MiniFlamingoConfig.from_dict({"vision": VISION, **left_out})
    assert config.resampler == ResamplerConfig()
    assert config.xattn == XattnConfig()


@pytest.mark.parametrize(
    ("section", "values", "message"),
    [
        ("resampler", {"latent": 3}, r"resampler\.latent in .* is unknown; resampler has latents"),
        ("xattn", [1], r"xattn=\[1\] in .* must be a mapping"),
        ("vision", {}, r"vision\.name is missing"),
    ],
)
def test_a_section_that_cannot_be_read_is_named(section, values, message):
    with pytest.raises(ValueError, match=message):
        MiniFlamingoConfig.from_dict({section: values})
