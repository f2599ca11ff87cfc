"""Refuse to start what the disk cannot hold."""

import shutil
from pathlib import Path


def require_disk_space(folder: Path, needed: int, what: str) -> None:
    """Check that ``folder``'s disk has room before long work begins.

    Args:
        folder: Where the files will go; it need not exist yet.
        needed: Bytes.
        what: What will be written, for the message.

    Raises:
        OSError: If less than ``needed`` bytes are free.
    """
    existing = folder.resolve()
    while not existing.exists():
        existing = existing.parent
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise OSError(
            f"not enough disk space for {what}: it needs {needed / 1e6:,.0f} MB in {folder}, "
            f"but only {free / 1e6:,.0f} MB are free. Free some space or choose another folder."
        )
