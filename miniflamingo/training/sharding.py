"""``trainer.strategy: sharded``: FSDP2, with the checkpoints of every other strategy."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from functools import partial
from typing import Any

import torch
from lightning.pytorch.plugins import MixedPrecision
from lightning.pytorch.strategies import (
    ModelParallelStrategy,
    ParallelStrategy,
    StrategyRegistry,
)
from torch import Tensor
from torch.optim import Optimizer

from miniflamingo.batch import Batch
from miniflamingo.errors import UserError
from miniflamingo.model.gather import load_whole_state, share_like, whole, whole_state
from miniflamingo.training.same_media import with_same_media


class ShardedStrategy(ModelParallelStrategy):
    """All ranks share out all weights, gradients and optimiser states.

    Lightning's own strategy, with three differences. It shards over all ranks, however many there
    are. All of them run the same parts of the model for a batch, be it a text alone on some. And
    its checkpoints hold whole tensors, written and read by the trainer's ``CheckpointIO``:
    Lightning numbers the optimiser's by all parameters, frozen ones too, as no other strategy does.
    """

    def __init__(
        self,
        process_group_backend: str | None = None,
        timeout: timedelta = timedelta(minutes=30),
    ) -> None:
        """Describe the strategy.

        Args:
            process_group_backend: ``nccl`` or ``gloo``; None takes what the devices use.
            timeout: How long a rank waits for the others.
        """
        super().__init__(
            tensor_parallel_size=1,
            save_distributed_checkpoint=False,
            process_group_backend=process_group_backend,
            timeout=timeout,
        )

    @property
    def lightning_restore_optimizer(self) -> bool:
        """Optimiser states are loaded by ``load_optimizer_state_dict``."""
        return True

    def setup_environment(self) -> None:
        """Shard over all ranks.

        Raises:
            UserError: If the precision scales gradients.
        """
        plugin = self.precision_plugin
        if isinstance(plugin, MixedPrecision) and plugin.scaler is not None:
            raise UserError(
                "trainer.strategy=sharded does not scale gradients, as "
                "trainer.precision=16-mixed needs; use bf16-mixed."
            )
        self._data_parallel_size = self.num_nodes * self.num_processes
        super().setup_environment()

    def batch_to_device(
        self, batch: Any, device: torch.device | None = None, dataloader_idx: int = 0
    ) -> Any:
        """Move a batch, and see that all ranks have media of the same kind or none.

        Raises:
            UserError: If some ranks have pictures and others have patch features.
        """
        moved = super().batch_to_device(batch, device, dataloader_idx)
        total = partial(self.reduce, reduce_op="sum")
        if isinstance(moved, Batch):
            return with_same_media({"validation": moved}, total)["validation"]
        return with_same_media(moved, total)

    def lightning_module_state_dict(self) -> dict[str, Tensor]:
        """The module's own weights, whole."""
        assert self.lightning_module is not None
        return whole_state(self.lightning_module)

    def load_model_state_dict(self, checkpoint: Mapping[str, Any], strict: bool = True) -> None:
        """Load whole weights; the module has checked their names."""
        assert self.lightning_module is not None
        load_whole_state(self.lightning_module, checkpoint["state_dict"])

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        """The optimiser's own state dict, its tensors whole and on the CPU."""
        state = optimizer.state_dict()
        gathered = {
            place: {
                name: whole(value).cpu() if isinstance(value, Tensor) else value
                for name, value in values.items()
            }
            for place, values in state["state"].items()
        }
        return {**state, "state": gathered}

    def load_optimizer_state_dict(self, checkpoint: Mapping[str, Any]) -> None:
        """Load whole optimiser states."""
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            parameters = [p for group in optimizer.param_groups for p in group["params"]]
            shares = {
                place: {name: share_like(v, parameters[place]) for name, v in values.items()}
                for place, values in state["state"].items()
            }
            optimizer.load_state_dict({**state, "state": shares})

    def save_checkpoint(
        self, checkpoint: dict[str, Any], filepath: Any, storage_options: Any = None
    ) -> None:
        """As strategies that do not shard."""
        ParallelStrategy.save_checkpoint(self, checkpoint, filepath, storage_options)

    def load_checkpoint(
        self, checkpoint_path: Any, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """As strategies that do not shard."""
        return ParallelStrategy.load_checkpoint(self, checkpoint_path, weights_only)


StrategyRegistry.register(
    "sharded", ShardedStrategy, description="FSDP2 over all ranks, frozen weights included"
)
