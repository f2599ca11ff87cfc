"""The few-shot score in training, on a small fixed set of queries."""

from __future__ import annotations

import lightning as L
from lightning.pytorch.strategies import ModelParallelStrategy

from miniflamingo.errors import UserError
from miniflamingo.evaluation.metrics.table import metric_for
from miniflamingo.evaluation.ranks import ALONE, Ranks
from miniflamingo.evaluation.runner import Cell, Evaluation, run_cell
from miniflamingo.evaluation.summary import headline_score
from miniflamingo.evaluation.support import at_random
from miniflamingo.evaluation.tasks import check_shots, load_data, load_task
from miniflamingo.generation.reader import Reader
from miniflamingo.training.module import FlamingoModule


class FewShotScore(L.Callback):
    """Logs ``fewshot/TASK/METRIC/SHOTS`` at the end of each validation.

    Always the same queries, shots and order, so that the curve shows the model and nothing else.
    """

    def __init__(
        self, task: str, shots: list[int], queries: int = 32, batch_size: int = 16
    ) -> None:
        """Read the task, so that a mistake in it is told before training.

        Args:
            task: Name in ``configs/tasks``, or a YAML file.
            shots: Numbers of shots.
            queries: How many to ask, a fixed sample.
            batch_size: Prompts at a time.

        Raises:
            UserError: If the task or its data cannot be used.
        """
        self.task = load_task(task)
        self.data = load_data(self.task, queries)
        self.shots = shots
        self.batch_size = batch_size
        check_shots(self.data, [*shots, self.task.text_examples])

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        """Refuse to classify with a sharded model.

        Raises:
            UserError: If the weights are shared out and the task classifies.
        """
        if isinstance(trainer.strategy, ModelParallelStrategy) and self.task.classify:
            raise UserError(
                f"FewShotScore cannot score the task {self.task.name!r} while weights are sharded: "
                "a task that classifies reads prompts and classes apart. Take the callback out and "
                "score the exported model with `miniflamingo fewshot`."
            )

    def on_validation_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Complete and score, each query on one rank; on all where weights are sharded."""
        if trainer.sanity_checking:
            return
        assert isinstance(pl_module, FlamingoModule)
        together = isinstance(trainer.strategy, ModelParallelStrategy)
        run = Evaluation(
            Reader(pl_module.model, pl_module.processor),  # a new one: the resampler has changed
            self.task,
            self.data,
            at_random(self.data),
            batch_size=self.batch_size,
            ranks=ALONE if together else Ranks(trainer.global_rank, trainer.world_size),
            bar=trainer.is_global_zero,
        )
        headline = metric_for(self.task.metric).headline
        for shots in self.shots:
            cell = run_cell(run, Cell("real", shots, 0), self.data.queries)
            score = headline_score(cell, self.task.metric)  # every rank holds all predictions
            pl_module.log(f"fewshot/{self.task.name}/{headline}/{shots}", score)
