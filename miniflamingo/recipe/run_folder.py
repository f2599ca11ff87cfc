"""A run's folder: that of one run, written by one process."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from miniflamingo.errors import UserError

log = logging.getLogger(__name__)

RESULTS = ("checkpoints/*.ckpt", "model")
"""What only a run that has trained leaves behind. No rank can write any of it before all have
started, so that one which starts late does not take it for an earlier run's."""

RECORDS = (
    "checkpoints",
    "model",
    "csv",
    "samples",
    "latents",
    "fewshot",
    "events.out.tfevents.*",
    "summary.md",
    "curves.png",
    "config.yaml",
    ".validated",
)
"""All that a run, or the evaluation of its model, writes there."""

RANK_NAMES = ("RANK", "LOCAL_RANK", "SLURM_PROCID")


def is_first_rank(environment: Mapping[str, str]) -> bool:
    """Tell whether this process is the run's first, before ranks know of each other.

    Args:
        environment: In which torchrun, Lightning's launcher or srun say which rank this is.
    """
    ranks = (environment[name] for name in RANK_NAMES if name in environment)
    return next(ranks, "0") == "0"


def check_unused(run: Path) -> None:
    """A new run needs a folder without an earlier one.

    Args:
        run: ``trainer.default_root_dir``.

    Raises:
        UserError: If there is an earlier run's checkpoint or model.
    """
    found = sorted(path for pattern in RESULTS for path in run.glob(pattern))
    if found:
        raise UserError(
            f"trainer.default_root_dir={str(run)!r} holds an earlier run "
            f"({found[0].relative_to(run)}). Go on with it: --ckpt_path last. Set it aside "
            "and train anew: --overwrite. Or give another --trainer.default_root_dir."
        )


def set_aside(run: Path) -> Path | None:
    """Move what an earlier run left into a folder of its own, and nothing else.

    It is not deleted: a new run that fails at its first step must not have cost a trained model.

    Args:
        run: The folder, which is there.

    Returns:
        ``RUN/earlier/N``; None if there was nothing.
    """
    found = [path for pattern in RECORDS for path in run.glob(pattern)]
    if not found:
        return None
    before = [int(path.name) for path in run.glob("earlier/*") if path.name.isdigit()]
    place = run / "earlier" / str(1 + max(before, default=0))
    place.mkdir(parents=True)
    for path in found:
        path.rename(place / path.name)
    log.info("%s: the earlier run is in %s now; delete it when you need it no more.", run, place)
    return place
