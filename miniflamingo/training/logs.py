"""What a run logged, read from its CSV files."""

from __future__ import annotations

import csv
from pathlib import Path

Curve = list[tuple[int, float]]
"""Steps and values."""


def read_curves(run: Path, prefix: str) -> dict[str, Curve]:
    """Read logged values by name.

    Args:
        run: The run's folder, with ``csv/*/metrics.csv`` in it.
        prefix: Of the names to read, ``grounding/`` or ``val/loss``.

    Returns:
        Name -> its curve, those of a resumed run joined; empty if nothing of the kind was logged.
    """
    curves: dict[str, dict[int, float]] = {}
    for file in sorted(run.glob("csv/*/metrics.csv"), key=lambda file: file.stat().st_mtime):
        with file.open() as opened:
            for row in csv.DictReader(opened):
                for name, value in row.items():
                    if name.startswith(prefix) and value:
                        curves.setdefault(name, {})[int(row["step"])] = float(value)
    return {name: sorted(values.items()) for name, values in curves.items()}
