"""A toy world on disk and the configuration of a run on it."""

from pathlib import Path
from typing import Any

import pytest
import tiny
import yaml
from conftest import RESAMPLER, XATTN

TEXTS = ["a red cat.", "two blue cups.", "three dogs.", "a green dog.", "two red cats."]


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pairs, interleaved documents and validation documents in shards."""
    folder = tmp_path_factory.mktemp("world")
    for shard in range(3):
        pairs = {f"p{shard}{i}": tiny.pair(TEXTS[i], 7 * shard + i) for i in range(5)}
        tiny.write_shard(folder / "pairs" / f"{shard}.tar", pairs)
        documents = {
            f"d{shard}{i}": tiny.interleaved([TEXTS[i], TEXTS[i + 1]], 100 * shard + 5 * i)
            for i in range(4)
        }
        tiny.write_shard(folder / "documents" / f"{shard}.tar", documents)
    validation = {f"v{i}": tiny.interleaved([TEXTS[i], TEXTS[4]], 500 + 2 * i) for i in range(4)}
    tiny.write_shard(folder / "validation" / "0.tar", validation)
    return folder


@pytest.fixture
def config(world: Path, language_folder: Path, clip_folder: Path, tmp_path: Path) -> dict[str, Any]:
    """Settings of a run of six steps."""
    return {
        "seed_everything": 0,
        "model": {
            "language": str(language_folder),
            "vision": {"name": f"local-dir:{clip_folder}"},
            "resampler": RESAMPLER,
            "xattn": XATTN | {"start": "zero_outputs"},
            "optim": {"lr": 1e-2, "warmup_steps": 2, "schedule": "cosine"},
        },
        "data": {
            "sources": {
                "pairs": {"urls": f"{world}/pairs/*.tar", "batch_size": 3, "weight": 0.5},
                "documents": {"urls": f"{world}/documents/*.tar", "batch_size": 2},
            },
            "validation": {"urls": f"{world}/validation/*.tar", "batch_size": 2},
            "num_workers": 0,
        },
        "trainer": {
            "accelerator": "cpu",
            "devices": 1,
            "max_steps": 6,
            "gradient_clip_val": 1.0,
            "log_every_n_steps": 2,
            "val_check_interval": 2,
            "num_sanity_val_steps": 0,
            "default_root_dir": str(tmp_path / "run"),
            "callbacks": [
                {
                    "class_path": "miniflamingo.training.callbacks.warm_start.ResamplerWarmStart",
                    "init_args": {
                        "source": "pairs", "pictures": 12, "steps": 3, "least": 1, "most": 0.9
                    },
                },
                {"class_path": "miniflamingo.training.callbacks.throughput.Throughput"},
                {"class_path": "miniflamingo.evaluation.callbacks.sample_captions.SampleCaptions"},
                {
                    "class_path": "lightning.pytorch.callbacks.ModelCheckpoint",
                    "init_args": {
                        "dirpath": str(tmp_path / "run" / "checkpoints"),
                        "filename": "{step}",
                        "every_n_train_steps": 3,
                        "save_top_k": -1,
                        "save_last": True,
                    },
                },
            ],
        },
    }  # fmt: skip


@pytest.fixture
def write(tmp_path: Path):
    """Write a configuration and return its path."""

    def write(config: dict[str, Any]) -> str:
        path = tmp_path / "config.yaml"
        path.write_text(yaml.safe_dump(config))
        return str(path)

    return write
