"""Trainings with the few-shot score; as a script, one rank of several."""

import json
import sys
from pathlib import Path

import lightning as L
import ranks
import torch

from miniflamingo.evaluation.callbacks.fewshot_score import FewShotScore


class Kept(L.Callback):
    """Keeps the scores that were logged, and the module."""

    def on_validation_end(self, trainer, pl_module):
        self.module = pl_module
        found = trainer.callback_metrics.items()
        self.scores = {name: value.item() for name, value in found if name.startswith("fewshot/")}


def train(folder: Path, task: str, **settings) -> Kept:
    """Train two steps and validate once."""
    kept = Kept()
    ranks.run(folder, steps=2, callbacks=[FewShotScore(task, [0, 2], 3), kept], **settings)
    return kept


if __name__ == "__main__":
    plan = Path(sys.argv[1])
    for name, settings in json.loads(plan.read_text()).items():
        scores = train(plan.parent / name, **settings).scores
        (plan.parent / f"{name}-{torch.distributed.get_rank()}.json").write_text(json.dumps(scores))
