"""The VQA authors' program on published files: ``python -m benchmarks.vqa_official FOLDER``.

Runs in the environment that ``make bench-openflamingo`` builds: open-flamingo 2.0.1 ships the
program in ``open_flamingo/eval/vqa_metric.py``. Called by ``benchmarks.vqa``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from open_flamingo.eval.vqa_metric import VQA, VQAEval  # type: ignore[import-not-found]

DIGITS = 12
"""Of a per cent; the program's own output has two."""


def main() -> None:
    """Read questions, annotations and results; write ``official.json``, question id -> per cent."""
    folder = Path(sys.argv[1])
    questions, annotations, results = (
        str(folder / f"{name}.json") for name in ("questions", "annotations", "results")
    )
    people = VQA(annotations, questions)
    evaluation = VQAEval(people, people.loadRes(results, questions), DIGITS)
    evaluation.evaluate()
    (folder / "official.json").write_text(json.dumps(evaluation.evalQA))


if __name__ == "__main__":
    main()
