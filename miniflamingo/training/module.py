"""The LightningModule: builds a MiniFlamingo from typed settings and trains what is new in it."""

from __future__ import annotations

from typing import Any, Literal

import lightning as L
import torch
from lightning.pytorch.plugins.precision import Precision
from lightning.pytorch.utilities import GradClipAlgorithmType
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule

from miniflamingo.batch import IGNORE, Batch
from miniflamingo.data.processor import MiniFlamingoProcessor
from miniflamingo.data.source import check_frames
from miniflamingo.errors import UserError
from miniflamingo.model.checkpointing import checkpoint_activations as activation_checkpointing
from miniflamingo.model.compiling import compile_in_place
from miniflamingo.model.config import ResamplerConfig, VisionConfig, XattnConfig, make_config
from miniflamingo.model.export import is_own_weight, own_state_dict
from miniflamingo.model.fingerprint import encoder_fingerprint
from miniflamingo.model.flamingo import MiniFlamingo
from miniflamingo.model.media_mask import latest_media
from miniflamingo.model.sharding import shard
from miniflamingo.tokens import load_tokenizer, media_tokens
from miniflamingo.training.checkpoint import check_weights
from miniflamingo.training.optim import OptimConfig, make_optimizer, planned_steps
from miniflamingo.training.sharding import ShardedStrategy


def drop_frozen_weights(
    module: nn.Module, state: dict[str, Any], prefix: str, metadata: dict[str, Any]
) -> None:
    """Leave frozen weights out of a state dict: they are where the configuration says."""
    for name in list(state):
        if not is_own_weight(name.removeprefix(f"{prefix}model.")):
            del state[name]


class FlamingoModule(L.LightningModule):
    """Next-token loss over several sources. Source: Flamingo, section 2.4 and equation 2."""

    def __init__(
        self,
        language: str,
        vision: VisionConfig,
        resampler: ResamplerConfig,
        xattn: XattnConfig,
        optim: OptimConfig,
        source_weights: dict[str, float],
        train_input_rows: bool = True,
        language_dtype: str = "auto",
        language_bits: Literal[4, 8] | None = None,
        language_attention: str | None = None,
        checkpoint_activations: bool = False,
        compile_layers: bool = False,
    ) -> None:
        """Load the frozen parts and build the new ones.

        Args:
            language: Folder or hub name of the frozen language model.
            vision: The frozen image encoder.
            resampler: Shape of the perceiver resampler.
            xattn: Shape and places of the gated blocks.
            optim: Optimiser and schedule.
            source_weights: Loss weight of each training source.
            train_input_rows: Whether the input embeddings of the new tokens train.
            language_dtype: Precision of the frozen language model; ``auto`` as it was saved.
            language_bits: Quantise the matrices of the frozen language model's layers to 8 bits
                (LLM.int8) or 4 (NF4), by bitsandbytes. Not with ``trainer.strategy: sharded``.
            language_attention: transformers' name of the frozen language model's attention kernel;
                None takes the one that its family loads with, ``sdpa`` for nearly all.
                ``eager`` is the fastest on a CPU for texts of a few hundred tokens.
            checkpoint_activations: Whether layers are computed again in the backward pass instead
                of keeping what they need for it: less memory, a slower step.
            compile_layers: Whether layers are compiled by ``torch.compile``: a faster step after
                a first one that takes a minute or more. On a CPU it needs a C++ compiler.

        Raises:
            UserError: If a frozen part cannot be found or used.
        """
        super().__init__()
        self.strict_loading = False  # a state dict holds own weights; see on_load_checkpoint
        self.register_state_dict_post_hook(drop_frozen_weights)
        tokenizer = load_tokenizer(language)
        config = make_config(
            language,
            vision,
            resampler,
            xattn,
            media_tokens(tokenizer),
            train_input_rows,
            language_bits,
        )
        self.model = MiniFlamingo.build(config, language_dtype)
        if language_attention is not None:
            self.model.language.set_attn_implementation(language_attention)
        if checkpoint_activations:
            activation_checkpointing(self.model.language, self.model.resampler)
        if compile_layers:
            compile_in_place(self.model)
        encoder = self.model.vision
        self.processor = MiniFlamingoProcessor(
            tokenizer,
            encoder.preprocessing,
            encoder_fingerprint(encoder),
            encoder_fingerprint(encoder, known=""),
        )
        # So that an exported model refuses another processor.
        assert config.fingerprints is not None
        config.fingerprints |= self.processor.fingerprints()
        self.optim = optim
        self.source_weights = source_weights

    def configure_model(self) -> None:
        """Share the weights out, where the strategy does so; called again, it does nothing.

        Raises:
            UserError: If it is a sharding strategy that is not ours, or weights are quantised.
        """
        if self.device_mesh is None or isinstance(self.model, FSDPModule):
            return
        if not isinstance(self.trainer.strategy, ShardedStrategy):
            raise UserError(
                f"trainer.strategy={type(self.trainer.strategy).__name__} writes checkpoints that "
                "no other strategy can read; use trainer.strategy=sharded."
            )
        if self.model.config.language_bits is not None:
            raise UserError(
                f"model.language_bits={self.model.config.language_bits} cannot be sharded: "
                "quantised weights cannot be shared out. Use trainer.strategy=ddp, or leave "
                "model.language_bits out."
            )
        shard(self.model, self.device_mesh["data_parallel"])

    def setup(self, stage: str) -> None:
        """Check what model and data must agree on: names of sources, frames of clips.

        Raises:
            UserError: If they do not.
        """
        data = getattr(self.trainer, "datamodule", None)
        check_frames(getattr(data, "sources", {}), self.model.resampler.max_frames)
        names = set(getattr(data, "sources", self.source_weights))
        if names != set(self.source_weights):
            raise UserError(
                f"model.source_weights names {sorted(self.source_weights)} but data.sources has "
                f"{sorted(names)}; give each source one weight."
            )

    def loss(self, batch: Batch) -> Tensor:
        """Mean loss over the labelled tokens of a batch."""
        out = self.model(
            batch.input_ids,
            position_ids=batch.position_ids,
            labels=batch.labels,
            media=batch.media,
        )
        return out.loss

    def training_step(self, batch: dict[str, Batch], batch_idx: int) -> Tensor:
        """Sum the loss of every source by its weight.

        A source's loss is the mean over its labelled tokens of the whole step, those on other ranks
        and of other accumulated batches included: so a step is the same however it is split.
        """
        labels = torch.stack([part.num_labels for part in batch.values()])  # long
        sums = torch.stack([self.loss(part) for part in batch.values()]) * labels
        in_step = labels.new_tensor([part.labels_in_step for part in batch.values()])
        # Without a plan of the step each batch is one of its own, as with anybody's own loader:
        # Lightning's mean over accumulated batches then is the right one.
        batches = torch.where(in_step > 0, self.trainer.accumulate_grad_batches, 1)
        in_step = torch.where(in_step > 0, in_step, labels)
        mine = torch.stack([sums.detach(), labels, in_step])
        losses, labels, in_step = self.trainer.strategy.reduce(mine, reduce_op="sum")
        for source, loss in zip(batch, losses / labels.clamp_min(1), strict=True):
            documents = len(batch[source].keys)
            self.log(f"train/loss/{source}", loss, prog_bar=True, batch_size=documents)
        # Gradients are averaged over ranks and accumulated batches, but have to be summed.
        parts = self.trainer.world_size * batches
        weights = sums.new_tensor([self.source_weights[source] for source in batch])
        return (weights * parts / in_step.clamp_min(1) * sums).sum()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Log the loss, the same by place in the document, and that with swapped pictures."""
        labels = batch.labels[:, 1:]
        slot = latest_media(batch.input_ids == self.model.tokens.image)[:, 1:][labels != IGNORE]
        losses = self.token_losses(batch)
        tokens = len(losses) * self.trainer.world_size  # averaged over ranks as an integer
        self.log("val/loss", losses.mean(), prog_bar=True, batch_size=tokens, sync_dist=True)
        for place in range(int(slot.max()) + 1):
            here = losses[slot == place]
            if len(here):  # not synced: ranks would wait for places that only one of them has
                self.log(f"val/loss_by_place/{place}", here.mean(), batch_size=len(here))
        if len(batch.keys) == 1:
            return  # a lone document has no other's pictures to read
        other = batch.with_others_media(self.model.tokens.image)
        # Computed even where there is nothing to swap: ranks that share weights out wait for each
        # other, and each must log the same names. A weight of 0 keeps it out of the mean.
        swapped = self.token_losses(other or batch).mean()
        self.log(
            "val/loss_swapped",
            swapped,
            prog_bar=True,
            batch_size=0 if other is None else tokens,
            sync_dist=True,
        )

    def token_losses(self, batch: Batch) -> Tensor:
        """One loss for each labelled token, row after row."""
        return self.model.token_losses(
            batch.input_ids, batch.position_ids, batch.media, batch.labels
        )

    def configure_optimizers(self) -> Any:
        """AdamW and its schedule, stepped with the optimiser."""
        steps = planned_steps(self.trainer)
        # A fused one unscales float16 gradients itself, after they should have been clipped.
        fused = self.trainer.precision != "16-mixed"
        optimizer, scheduler = make_optimizer(self.model, self.optim, steps, fused)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip as the trainer is told to.

        Lightning's mixed precision refuses to clip for a fused optimiser, for the sake of float16's
        scaled gradients. bfloat16 has none, so the way of all other precisions is right.
        """
        algorithm = GradClipAlgorithmType(gradient_clip_algorithm or "norm")
        plugin = self.trainer.precision_plugin
        Precision.clip_gradients(plugin, optimizer, gradient_clip_val or 0.0, algorithm)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint that does not hold exactly the new weights of this model.

        Raises:
            CheckpointError: Listing the missing, unexpected and misshapen weights.
        """
        own = own_state_dict(self.model)
        check_weights(
            checkpoint["state_dict"], {f"model.{name}": value for name, value in own.items()}
        )
