"""What can be known to be wrong with a recipe before anything is loaded, in a second or two."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from miniflamingo.cost.meta_model import outline
from miniflamingo.data.shards import find_shards
from miniflamingo.data.stream import check_readers
from miniflamingo.data.urls import check_pace, scheme_of
from miniflamingo.errors import UserError
from miniflamingo.model.config import MiniFlamingoConfig
from miniflamingo.model.flamingo import MiniFlamingo
from miniflamingo.model.language import learned_positions
from miniflamingo.recipe.feature_checks import check_features

PATIENCE = 15.0
"""Seconds in which a server must have sent the first bytes of a shard."""

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
        UserError: If a frozen part cannot be found or used.
    """
    config = MiniFlamingoConfig.from_dict(
        {
            "language": settings.language,
            "vision": settings.vision.as_dict(),
            "resampler": settings.resampler.as_dict(),
            "xattn": settings.xattn.as_dict(),
            "train_input_rows": settings.train_input_rows,
            "language_bits": settings.language_bits,
        }
    )
    model = outline(config, settings.language_dtype)
    if settings.language_attention is not None:
        model.language.set_attn_implementation(settings.language_attention)
    return model


def check_recipe(config: Namespace, training: bool) -> None:
    """Stop at the first mistake that needs no weights to be seen.

    Args:
        config: All settings, parsed, nothing instantiated.
        training: Whether checkpoints will be written.

    Raises:
        UserError: Naming the key, what it is and what it should be.
    """
    check_numbers(config)
    ranks = number_of_ranks(config.trainer)
    check_started(ranks, os.environ)
    check_shards(config.data, ranks and ranks * max(1, config.data.num_workers))
    check_resume(config.get("ckpt_path"))
    if training:
        check_schedule(config)
    with quiet():
        model = outline_recipe(config.model)
    check_positions(config.data.max_tokens, model)
    check_features(config.data, model.vision)
    if training:
        check_disk(Path(config.trainer.default_root_dir or "runs/unnamed"), checkpoint_bytes(model))


def check_numbers(config: Namespace) -> None:
    """Refuse counts that leave nothing to do.

    Raises:
        UserError: If there is no source, or a number is below the least that makes sense.
    """
    if not config.data.sources:
        raise UserError("data.sources is empty; name at least one source of training documents.")
    least = {"data.max_tokens": 1, "data.num_workers": 0, "data.validation.batch_size": 1}
    least |= {f"data.sources.{name}.batch_size": 1 for name in config.data.sources}
    least |= {f"model.resampler.{size}": 1 for size in ("latents", "heads", "head_width")}
    least |= {f"model.xattn.{size}": 1 for size in ("every", "heads", "head_width", "ffw_mult")}
    least |= {"model.resampler.max_frames": 1, "model.resampler.depth": 0, "model.xattn.first": 0}
    least |= {"model.optim.warmup_steps": 0, "model.optim.lr": 0}
    for key, smallest in least.items():
        found = value_at(config, key)
        if found < smallest:
            raise UserError(f"{key}={found} must be at least {smallest}.")


def value_at(config: Namespace, key: str) -> Any:
    """Look up a dotted key; sources are a plain dict within the namespace."""
    value: Any = config
    for part in key.split("."):
        value = value[part]
    return value


def number_of_ranks(trainer: Namespace) -> int | None:
    """Devices of all machines.

    Returns:
        None where Lightning alone knows (``auto``).
    """
    devices = trainer.devices
    if isinstance(devices, str):  # as it is from the command line
        listed = [each for each in devices.split(",") if each]
        devices = listed if "," in devices else int(devices) if devices.isdigit() else None
    if isinstance(devices, list):
        devices = len(devices)
    if not isinstance(devices, int) or devices < 1:
        return None
    return devices * trainer.num_nodes


def check_started(ranks: int | None, environment: Mapping[str, str]) -> None:
    """As many ranks must have been started as the recipe has.

    With one device in the recipe each of them would train for itself, into the same folder.

    Args:
        ranks: Of the recipe; None if not known.
        environment: In which srun and torchrun say how many they started.

    Raises:
        UserError: If it is another number.
    """
    if "TORCHELASTIC_RUN_ID" in environment:
        launcher, started = "torchrun", int(environment["WORLD_SIZE"])
    elif "SLURM_STEP_ID" in environment:
        launcher, started = "srun", int(environment["SLURM_NTASKS"])
    else:
        return
    if ranks is not None and started != ranks:
        raise UserError(
            f"{launcher} started {started} processes, but trainer.devices x trainer.num_nodes is "
            f"{ranks}. Set them after --config, as configs/cluster/ does: what comes last wins."
        )


def check_shards(data: Namespace, num_readers: int | None) -> None:
    """Every source needs shards, and each reader one of its own.

    Args:
        data: The ``data`` section.
        num_readers: Ranks times workers; None if the ranks are not known yet.

    Raises:
        UserError: Naming the source.
    """
    for name, source in data.sources.items():
        shards = shards_of(f"data.sources.{name}", source.urls)
        check_readers(len(shards), num_readers or 1, source, name)
        check_server(f"data.sources.{name}", shards[0], source.timeout)
    shards = shards_of("data.validation", data.validation.urls)
    check_server("data.validation", shards[0], data.validation.timeout)


def check_server(key: str, url: str, timeout: float) -> None:
    """The server of a source must send its first shard at a usable pace.

    Args:
        key: Of the source in the recipe, for the message.
        url: Its first shard; anything but http is passed over.
        timeout: Of the source; at most ``PATIENCE`` seconds of it are waited.

    Raises:
        UserError: If it is too slow.
    """
    if scheme_of(url) in ("http", "https"):
        try:
            check_pace(url, min(timeout, PATIENCE))
        except UserError as error:
            raise UserError(f"{key}.urls: {error}") from error


def shards_of(key: str, urls: str | list[str]) -> list[str]:
    """Find shards.

    Raises:
        UserError: If there are none, naming the key.
    """
    try:
        return find_shards(urls)
    except ValueError as error:
        raise UserError(f"{key}.urls: {error}") from error


def check_positions(max_tokens: int, model: MiniFlamingo) -> None:
    """No document may be longer than the positions that the language model has learned.

    Args:
        max_tokens: ``data.max_tokens``.
        model: The recipe's model; weights are not needed.

    Raises:
        UserError: If one may be.
    """
    positions = learned_positions(model.language)
    if positions is not None and max_tokens > positions:
        raise UserError(
            f"data.max_tokens={max_tokens} is more than the {positions} positions that "
            f"model.language={model.config.language!r} has learned. Lower data.max_tokens, or "
            "take a language model with rotary positions."
        )


def check_resume(checkpoint: str | None) -> None:
    """A checkpoint that is named must be there; ``last`` and its like are Lightning's to find.

    Raises:
        UserError: If it is not.
    """
    if checkpoint is None or checkpoint in ("last", "best", "hpc") or "://" in checkpoint:
        return
    if not Path(checkpoint).exists():
        raise UserError(
            f"--ckpt_path {checkpoint}: there is no such file. Give one of RUN/checkpoints, or "
            "`last` for the newest one of the run."
        )


def check_schedule(config: Namespace) -> None:
    """A cosine ends at a step, which must be known.

    Raises:
        UserError: If it is not.
    """
    if config.model.optim.schedule == "cosine" and config.trainer.max_steps < 1:
        raise UserError(
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
        UserError: If it does not.
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
        raise UserError(
            f"trainer.default_root_dir={str(run)!r} takes no files: {error.strerror}. Give a "
            "folder that can be written to."
        ) from error
    # What an earlier run left there will be written over, once its successor is on the disk.
    left = sum(file.stat().st_size for file in run.glob("checkpoints/*.ckpt"))
    free = shutil.disk_usage(run).free + min(left, (KEPT - 1) * checkpoint)
    if free < KEPT * checkpoint:
        raise UserError(
            f"trainer.default_root_dir={str(run)!r} has {free / 1e9:.2g} GB left, but "
            f"checkpoints need {KEPT * checkpoint / 1e9:.2g} GB ({KEPT} of "
            f"{checkpoint / 1e9:.2g} GB: last, best and the one being written). "
            "Make room or give another folder."
        )
