"""METEOR and SPICE, which exist in Java alone: for who has it, through pycocoevalcap."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from miniflamingo.evaluation.captioning import tokenise
from miniflamingo.evaluation.prediction import Prediction
from miniflamingo.evaluation.results import Summary, cells_of, over_seeds

log = logging.getLogger(__name__)

SPICE_MODELS = "stanford-corenlp-3.6.0-models.jar"

Texts = tuple[Sequence[str], Sequence[Sequence[str]]]
"""Answers, and for each its references."""


def check_java() -> None:
    """METEOR and SPICE need Java and pycocoevalcap.

    Raises:
        ValueError: Saying what to install.
    """
    if shutil.which("java") is None:
        raise ValueError("METEOR and SPICE need Java: there is no command java. Install a JRE.")
    if find_spec("pycocoevalcap") is None:
        raise ValueError("METEOR and SPICE need a package: pip install 'miniflamingo[java]'.")


def has_spice_models() -> bool:
    """Whether CoreNLP's models, which pycocoevalcap does not ship, lie where it looks for them."""
    spec = find_spec("pycocoevalcap.spice")
    assert spec is not None
    assert spec.origin is not None
    return (Path(spec.origin).parent / "lib" / SPICE_MODELS).is_file()


def java_scores(sets: Sequence[Texts]) -> list[dict[str, float]]:
    """Score sets of captions by METEOR, and by SPICE if its models are there.

    Args:
        sets: Each is scored by itself; Java starts once for METEOR, once a set for SPICE.

    Returns:
        ``meteor`` and perhaps ``spice`` for each set, 0 to 1.

    Raises:
        ValueError: If there is no Java or no pycocoevalcap.

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
    scores = []
    for answers, references in sets:
        candidates, truths = tokenise(answers, references)
        said = {place: [" ".join(words)] for place, words in enumerate(candidates)}
        true = {place: [" ".join(r) for r in refs] for place, refs in enumerate(truths)}
        found = {"meteor": float(meteor.compute_score(true, said)[0])}
        if spice is not None:
            found["spice"] = float(spice.compute_score(true, said)[0])
        scores.append(found)
    return scores


def with_java_scores(
    summaries: Sequence[Summary], predictions: Sequence[Prediction]
) -> list[Summary]:
    """Add METEOR and SPICE to the scores of the real pictures.

    Args:
        summaries: Of the predictions.
        predictions: All of them.

    Raises:
        ValueError: If there is no Java or no pycocoevalcap.
    """
    cells = {key: c for key, c in cells_of(predictions).items() if key[0] == "real"}
    found = java_scores(
        [([p.answer for p in c], [p.references for p in c]) for c in cells.values()]
    )
    added = []
    for each in summaries:
        own = [
            scores
            for (condition, shots, _), scores in zip(cells, found, strict=True)
            if (condition, shots) == (each.condition, each.shots)
        ]
        extra = (
            {name: over_seeds([scores[name] for scores in own]) for name in own[0]} if own else {}
        )
        added.append(each._replace(scores=each.scores | extra))
    return added
