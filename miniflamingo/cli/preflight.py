"""What can be known to be wrong with a recipe before anything is loaded, in a second or two."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from miniflamingo.data.shards import find_shards
from miniflamingo.data.stream import check_readers
from miniflamingo.model.config import MiniFlamingoConfig
from miniflamingo.model.flamingo import MiniFlamingo
from miniflamingo.model.outline import outline

KEPT = 3
"""Checkpoints on the disk at the fullest moment: last, best, and the one being written."""


@contextmanager
def quiet() -> Iterator[None]:
    """Silence what is told about seeds and missing weights: neither matters to an outline."""
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def outline_recipe(settings: Namespace) -> MiniFlamingo:
    """Build the model of a recipe without its weights.

    Args:
        settings: The ``model`` section.

    Raises:
        ValueError: If a frozen part cannot be found or used.
    """
    config = MiniFlamingoConfig(
        language=settings.language,
        vision=settings.vision.as_dict(),
        resampler=settings.resampler.as_dict(),
        xattn=settings.xattn.as_dict(),
        train_input_rows=settings.train_input_rows,
        language_bits=settings.language_bits,
    )
    model = outline(config, settings.language_dtype)
    model.language.set_attn_implementation(settings.language_attention)
    return model


def check_recipe(config: Namespace, training: bool) -> None:
    """Stop at the first mistake that needs no weights to be seen.

    Args:
        config: All settings, parsed, nothing instantiated.
        training: Whether checkpoints will be written.

    Raises:
        ValueError: Naming the key, what it is and what it should be.
    """
    check_numbers(config)
    check_shards(config.data, readers(config))
    check_resume(config.get("ckpt_path"))
    if training:
        check_schedule(config)
    with quiet():
        model = outline_recipe(config.model)
    if training:
        check_disk(Path(config.trainer.default_root_dir or "runs/unnamed"), checkpoint_bytes(model))


def check_numbers(config: Namespace) -> None:
    """Refuse counts that leave nothing to do.

    Raises:
        ValueError: If there is no source, or a number is below the least that makes sense.
    """
    if not config.data.sources:
        raise ValueError("data.sources is empty; name at least one source of training documents.")
    least = {"data.max_tokens": 1, "data.num_workers": 0, "data.validation.batch_size": 1}
    least |= {f"data.sources.{name}.batch_size": 1 for name in config.data.sources}
    least |= {f"model.resampler.{size}": 1 for size in ("latents", "depth", "heads", "head_width")}
    least |= {f"model.xattn.{size}": 1 for size in ("every", "heads", "head_width", "ffw_mult")}
    least |= {"model.resampler.max_frames": 1, "model.xattn.first": 0}
    least |= {"model.optim.warmup_steps": 0, "model.optim.lr": 0}
    for key, smallest in least.items():
        found = value_at(config, key)
        if found < smallest:
            raise ValueError(f"{key}={found} must be at least {smallest}.")


def value_at(config: Namespace, key: str) -> Any:
    """Look up a dotted key; sources are a plain dict within the namespace."""
    value: Any = config
    for part in key.split("."):
        value = value[part]
    return value


def readers(config: Namespace) -> int | None:
    """How many processes share a source's shards: ranks times reading workers.

    Returns:
        None where the number of devices is known to Lightning alone (``auto``).
    """
    devices = config.trainer.devices
    if isinstance(devices, str):  # as it is from the command line
        listed = [each for each in devices.split(",") if each]
        devices = listed if "," in devices else int(devices) if devices.isdigit() else None
    if isinstance(devices, list):
        devices = len(devices)
    if not isinstance(devices, int) or devices < 1:
        return None
    return devices * config.trainer.num_nodes * max(1, config.data.num_workers)


def check_shards(data: Namespace, num_readers: int | None) -> None:
    """Every source needs shards, and each reader one of its own.

    Raises:
        ValueError: Naming the source.
    """
    sources = {f"data.sources.{name}": source for name, source in data.sources.items()}
    for name, source in (sources | {"data.validation": data.validation}).items():
        try:
            shards = find_shards(source.urls)
        except ValueError as error:
            raise ValueError(f"{name}.urls: {error}") from error
        if name in sources and num_readers:
            check_readers(len(shards), num_readers, source, name.removeprefix("data.sources."))


def check_resume(checkpoint: str | None) -> None:
    """A checkpoint that is named must be there; ``last`` and its like are Lightning's to find.

    Raises:
        ValueError: If it is not.
    """
    if checkpoint is None or checkpoint in ("last", "best", "hpc") or "://" in checkpoint:
        return
    if not Path(checkpoint).exists():
        raise ValueError(
            f"--ckpt_path {checkpoint}: there is no such file. Give one of RUN/checkpoints, or "
            "`last` for the newest one of the run."
        )


def check_schedule(config: Namespace) -> None:
    """A cosine ends at a step, which must be known.

    Raises:
        ValueError: If it is not.
    """
    if config.model.optim.schedule == "cosine" and config.trainer.max_steps < 1:
        raise ValueError(
            "optim.schedule=cosine needs to know the last step; set trainer.max_steps or use "
            "optim.schedule=constant."
        )


def checkpoint_bytes(model: MiniFlamingo) -> int:
    """Size of a checkpoint: each trained value with its two moments."""
    sizes = [w.numel() * w.element_size() for w in model.parameters() if w.requires_grad]
    return 3 * sum(sizes)


def check_disk(run: Path, checkpoint: int) -> None:
    """The run's folder must take files, and as many bytes as the checkpoints will have.

    A file is written and flushed: permissions alone say nothing to root, nor of a full or read-only
    file system.

    Args:
        run: ``trainer.default_root_dir``.
        checkpoint: Bytes of one.

    Raises:
        ValueError: If it does not.
    """
    if "://" in str(run):
        return
    try:
        run.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=run) as probe:
            probe.write(bytes(4096))
            probe.flush()
            os.fsync(probe.fileno())
    except OSError as error:
        raise ValueError(
            f"trainer.default_root_dir={str(run)!r} takes no files: {error.strerror}. Give a "
            "folder that can be written to."
        ) from error
    # What an earlier run left there will be written over.
    left = sum(file.stat().st_size for file in run.glob("checkpoints/*.ckpt"))
    free = shutil.disk_usage(run).free + left
    if free < KEPT * checkpoint:
        raise ValueError(
            f"trainer.default_root_dir={str(run)!r} has {free / 1e9:.2g} GB left, but "
            f"checkpoints need {KEPT * checkpoint / 1e9:.2g} GB ({KEPT} of "
            f"{checkpoint / 1e9:.2g} GB: last, best and the one being written). "
            "Make room or give another folder."
        )
