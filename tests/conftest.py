"""Shared tiny models, built once and loaded from disk by the package's own code."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from hypothesis import settings

from miniflamingo import MiniFlamingo, MiniFlamingoProcessor
from miniflamingo.model.config import ResamplerConfig, VisionConfig, XattnConfig, make_config
from miniflamingo.tokens import load_tokenizer, media_tokens

torch.set_num_threads(1)
# The same examples in every run, however slow the machine is.
settings.register_profile("suite", deadline=None, derandomize=True)
settings.load_profile("suite")

RESAMPLER = {"latents": 3, "depth": 2, "heads": 2, "head_width": 8, "width": 16}
XATTN = {"first": 1, "every": 1, "heads": 2, "head_width": 8, "ffw_mult": 2}


@pytest.fixture(scope="session")
def language_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random llama with its tokenizer."""
    return tiny.write_language(tmp_path_factory.mktemp("language"))


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random open_clip model."""
    return tiny.write_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture
def build(language_folder: Path, clip_folder: Path) -> Callable[..., MiniFlamingo]:
    """Build a model through ``MiniFlamingo.build``; keywords change its settings."""

    def build(
        language: Path = language_folder,
        clip: Path = clip_folder,
        train_input_rows: bool = True,
        stages: list[int] | None = None,
        resampler: dict[str, Any] | None = None,
        opened: bool = False,
        language_bits: int | None = None,
        **xattn: Any,
    ) -> MiniFlamingo:
        torch.manual_seed(0)
        config = make_config(
            str(language),
            VisionConfig(f"local-dir:{clip}", stages=stages),
            ResamplerConfig(**(RESAMPLER | (resampler or {}))),
            XattnConfig(**(XATTN | xattn)),
            media_tokens(load_tokenizer(str(language))),
            train_input_rows,
            language_bits,
        )
        model = MiniFlamingo.build(config)
        if opened:
            open_gates(model)
        return model.eval()

    return build


@torch.no_grad()
def open_gates(model: MiniFlamingo) -> None:
    """Give every new weight a value that makes pictures matter a lot."""
    for block in model.gated_blocks():
        block.attention_gate.fill_(1.5)
        block.ffw_gate.fill_(-0.4)
        block.to_out.weight.normal_(std=0.5)
    model.token_rows.input_rows.normal_(std=0.3)
    model.token_rows.output_rows.normal_(std=0.3)


@pytest.fixture
def model(build: Callable[..., MiniFlamingo]) -> MiniFlamingo:
    """A model whose gates are open."""
    return build(opened=True)


@pytest.fixture(scope="session")
def processor(language_folder: Path) -> MiniFlamingoProcessor:
    """The tiny models' processor."""
    preprocessing = {"size": 16, "interpolation": "bicubic", "resize_mode": "shortest"}
    return MiniFlamingoProcessor(load_tokenizer(str(language_folder)), preprocessing)
