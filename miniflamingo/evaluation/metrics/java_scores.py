"""METEOR and SPICE, which exist in Java alone: for who has it, through pycocoevalcap."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from miniflamingo.errors import UserError
from miniflamingo.evaluation.metrics.ptb import ptb_words
from miniflamingo.evaluation.summary import Cell, Key

log = logging.getLogger(__name__)

SPICE_MODELS = "stanford-corenlp-3.6.0-models.jar"


def check_java() -> None:
    """METEOR and SPICE need Java and pycocoevalcap.

    Raises:
        UserError: Saying what to install.
    """
    if shutil.which("java") is None:
        raise UserError("METEOR and SPICE need Java: there is no command java. Install a JRE.")
    if find_spec("pycocoevalcap") is None:
        raise UserError("METEOR and SPICE need a package: pip install 'miniflamingo[java]'.")


def has_spice_models() -> bool:
    """Whether CoreNLP's models, which pycocoevalcap does not ship, lie where it looks for them."""
    spec = find_spec("pycocoevalcap.spice")
    assert spec is not None
    assert spec.origin is not None
    return (Path(spec.origin).parent / "lib" / SPICE_MODELS).is_file()


def java_scores(cells: Mapping[Key, Cell]) -> dict[Key, dict[str, float]]:
    """Score captions by METEOR, and by SPICE if its models are there.

    Args:
        cells: Each is scored by itself; Java starts once for METEOR, once a cell for SPICE.

    Returns:
        ``meteor`` and perhaps ``spice`` of each, 0 to 1.

    Raises:
        UserError: If there is no Java or no pycocoevalcap.

    Source: Denkowski & Lavie, "Meteor Universal", 2014; Anderson et al., arXiv:1607.08822.
    """
    check_java()
    from pycocoevalcap.meteor.meteor import Meteor  # an extra, and 100 MB

    meteor = Meteor()
    spice = None
    if has_spice_models():
        from pycocoevalcap.spice.spice import Spice

        spice = Spice()
    else:
        log.warning(
            "SPICE is left out: %s is missing. Fetch it with: "
            "python -m pycocoevalcap.spice.get_stanford_models",
            SPICE_MODELS,
        )
    scores = {}
    for key, cell in cells.items():
        said = {place: [split(each.answer)] for place, each in enumerate(cell)}
        true = {place: [split(text) for text in p.references] for place, p in enumerate(cell)}
        found = {"meteor": float(meteor.compute_score(true, said)[0])}
        if spice is not None:
            found["spice"] = float(spice.compute_score(true, said)[0])
        scores[key] = found
    return scores


def split(text: str) -> str:
    """Words with spaces between them."""
    return " ".join(ptb_words(text))
