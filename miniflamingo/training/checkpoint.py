"""Checkpoints on disk: written whole or not at all, read without running anything they hold."""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from lightning.fabric.plugins.io import TorchCheckpointIO
from torch import Tensor

from miniflamingo.errors import UserError
from miniflamingo.files import whole_file

PARTS = ("state_dict", "loops", "pytorch-lightning_version")
"""What every checkpoint of ``fit`` holds, and hardly another file."""


NOT_ZIP = (
    zipfile.BadZipFile,
    NotImplementedError,
    EOFError,
    RuntimeError,
    ValueError,
    OverflowError,
    struct.error,
    zlib.error,
)
"""What Python raises at a zip file of which single bits have changed: other versions, other
methods of packing, encryption, places beyond the file."""


class CheckpointError(UserError):
    """A checkpoint that cannot be written, read or used."""


class CheckpointFiles(TorchCheckpointIO):
    """Writes a checkpoint beside its place and moves it there when it is safe on the disk.

    So a file under its final name is always whole, whatever happened while it was written: its
    predecessor stays until that moment. Lightning's own class keeps the file in memory first, never
    asks the system to flush it, and may move it between file systems.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None
    ) -> None:
        """Write, flush, rename; urls as Lightning writes them.

        Raises:
            CheckpointError: If the file system takes no more, with what to do.
        """
        if "://" in str(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        place = Path(path)
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            with whole_file(place) as unfinished, unfinished.open("wb") as file:
                torch.save(checkpoint, file)
        except (OSError, RuntimeError) as error:
            # torch hides what the system said behind an error of its zip writer.
            reason = error.__context__ if isinstance(error.__context__, OSError) else error
            before = "The one before it is whole. " if place.is_file() else ""
            raise CheckpointError(
                f"cannot write the checkpoint {place}: {reason}. {before}Make room there, or set "
                "trainer.default_root_dir to another place, and go on with --ckpt_path last."
            ) from error

    def load_checkpoint(
        self,
        path: str | Path,
        map_location: Callable[[Any, str], Any] | None = lambda storage, _: storage,
        weights_only: bool | None = None,
    ) -> dict[str, Any]:
        """Read tensors and plain values, whatever ``weights_only`` says.

        Raises:
            CheckpointError: If the file is missing, damaged, or no checkpoint of ``fit``.
        """
        if "://" in str(path):
            return super().load_checkpoint(path, map_location, weights_only=True)
        return read_checkpoint(Path(path), map_location)


def read_checkpoint(
    path: Path, map_location: Callable[[Any, str], Any] | str | None = "cpu"
) -> dict[str, Any]:
    """Read a checkpoint of ``fit`` as tensors and plain values.

    ``torch.load`` does not look at the checksums that ``torch.save`` wrote, so they are compared
    first.

    Args:
        path: Of the file.
        map_location: As ``torch.load`` takes it.

    Raises:
        CheckpointError: If the file is missing, damaged, or no checkpoint of ``fit``.
    """
    if not path.is_file():
        raise CheckpointError(
            f"there is no checkpoint at {path}. Give a file of RUN/checkpoints, or "
            "--ckpt_path last for the newest one of the run."
        )
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except NOT_ZIP as error:
        raise CheckpointError(
            f"{path} is damaged, or no checkpoint: {error}. Take an older one of the run."
        ) from error
    if damaged is not None:
        raise CheckpointError(
            f"{path} is damaged: the checksum of {damaged!r} in it is wrong. "
            "Take an older one of the run."
        )
    try:
        checkpoint = torch.load(path, map_location=map_location, weights_only=True)
    except (UnpicklingError, RuntimeError) as error:
        raise CheckpointError(
            f"{path} is not a checkpoint of `miniflamingo fit`: it holds more than tensors and "
            "plain values, and nothing in it is run."
        ) from error
    missing = [part for part in PARTS if not isinstance(checkpoint, dict) or part not in checkpoint]
    if missing:
        raise CheckpointError(
            f"{path} is not a checkpoint of `miniflamingo fit`: {', '.join(missing)} is missing."
        )
    return checkpoint


def check_weights(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Refuse weights that are not exactly those of the model.

    Args:
        found: In the checkpoint.
        expected: Of the model.

    Raises:
        CheckpointError: Listing missing, unexpected and misshapen weights.
    """
    shapes = [
        f"{name} {tuple(found[name].shape)} instead of {tuple(expected[name].shape)}"
        for name in sorted(found.keys() & expected.keys())
        if found[name].shape != expected[name].shape
    ]
    if found.keys() != expected.keys() or shapes:
        raise CheckpointError(
            "the checkpoint does not fit this model. "
            f"Missing: {sorted(expected.keys() - found.keys())}. "
            f"Unexpected: {sorted(found.keys() - expected.keys())}. "
            f"Of another shape: {shapes}. Was it written by another configuration?"
        )
