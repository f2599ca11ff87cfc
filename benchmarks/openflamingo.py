"""OpenFlamingo's side of the comparison: ``python -m benchmarks.openflamingo CASE``.

Runs in an environment of its own, ``make bench-openflamingo`` builds it. What it took to run
open-flamingo 2.0.1 of August 2023 on current releases, without a change to its installed files:

- Installed with ``--no-deps``: it pins torch 2.0.1 and sentencepiece 0.1.98. Its models need torch,
  transformers, open_clip_torch, einops and einops-exts.
- ``create_model_and_transforms`` takes hub names and offers no random weights, so the model is put
  together from the same classes in the same order here. It also passes
  ``additional_special_tokens``, which transformers 5 has renamed; ids are given directly instead.
- From transformers 5.18 ``generate`` leaves an attention mask without padding out, and
  ``FlamingoLMMixin.forward`` has no default for it: ``MaskOptional`` gives it one.
- Its autocast is that of CUDA; the same precision is used for the CPU.

Training and saving are written after its ``train_utils``, which needs wandb and a distributed run.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_flamingo.src.flamingo import Flamingo  # type: ignore[import-not-found]
from open_flamingo.src.flamingo_lm import FlamingoLMMixin  # type: ignore[import-not-found]
from open_flamingo.src.utils import extend_instance  # type: ignore[import-not-found]
from torch import Tensor
from transformers import OPTConfig, OPTForCausalLM

from benchmarks import measure
from benchmarks.cases import Case
from benchmarks.floor import DTYPES
from benchmarks.workloads import Document, Shapes, Slotted, slotted_batch


class MaskOptional(FlamingoLMMixin):
    """The mixin with a default for ``attention_mask``."""

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, **kwargs: Any
    ) -> Any:
        """As the mixin's."""
        return super().forward(input_ids, attention_mask, **kwargs)


def build_model(shapes: Shapes, every: int) -> Any:
    """A random OpenFlamingo, as ``create_model_and_transforms`` would build and freeze it.

    Args:
        shapes: Of the parts; resampler and gated blocks have these shapes by default.
        every: A gated block before every n-th layer.
    """
    clip: Any = open_clip.CLIP(**shapes.clip)
    clip.visual.output_tokens = True
    language: Any = OPTForCausalLM(OPTConfig(**shapes.language))
    extend_instance(language, MaskOptional)
    language.set_decoder_layers_attr_name("model.decoder.layers")
    language.resize_token_embeddings(shapes.vocabulary.image + 1)
    model = Flamingo(
        clip,
        language,
        eoc_token_id=shapes.vocabulary.end_of_chunk,
        media_token_id=shapes.vocabulary.image,
        vis_dim=shapes.clip["vision_cfg"]["width"],
        cross_attn_every_n_layers=every,
    )
    model.requires_grad_(False)
    model.perceiver.requires_grad_(True)
    model.lang_encoder.gated_cross_attn_layers.requires_grad_(True)
    model.lang_encoder.get_input_embeddings().requires_grad_(True)
    with torch.no_grad():
        for block in model.lang_encoder.gated_cross_attn_layers:
            if block is not None:  # open gates, as on our side
                block.attn_gate.fill_(1.0)
                block.ff_gate.fill_(1.0)
    return model


def make_optimizer(model: Any) -> torch.optim.Optimizer:
    """AdamW with weight decay on the gated blocks alone, as in its ``train.py``."""
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    gated = [p for name, p in trained if "gated_cross_attn" in name]
    others = [p for name, p in trained if "gated_cross_attn" not in name]
    groups = [
        {"params": gated, "weight_decay": 0.1},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=1e-4)


def saved_state(model: Any) -> dict[str, Tensor]:
    """What its ``filter_state_dict_to_trainable`` keeps: trained weights and all embeddings."""
    frozen = {
        name
        for name, parameter in model.named_parameters()
        if not parameter.requires_grad and "embed" not in name
    }
    twice = ("lang_encoder.old_decoder_blocks", "lang_encoder.gated_cross_attn_layers")
    return {
        name: value
        for name, value in model.state_dict().items()
        if name not in frozen and "vision_encoder" not in name and not name.startswith(twice)
    }


class OpenFlamingo:
    """An OpenFlamingo and its optimiser. The parts of ``measure.Side``."""

    def __init__(self, case: Case, shapes: Shapes) -> None:
        self.shapes = shapes
        self.precision = case.precision
        self.model = build_model(shapes, case.every)
        self.model.train(case.kind == "train")  # as it trains: dropout in the language model, too
        self.optimizer = make_optimizer(self.model)

    def autocast(self) -> AbstractContextManager:
        """Its ``amp_bf16``; nothing in fp32."""
        dtype = DTYPES[self.precision]
        return torch.autocast("cpu", dtype, enabled=dtype != torch.float32)

    def train_batch(self, documents: list[Document], case: Case) -> Slotted:
        """Interleaved documents padded to 256 tokens and 5 pictures, pairs to the longest."""
        shapes = self.shapes
        return slotted_batch(documents, shapes.vocabulary, shapes.image_size, case.padding)

    def train_step(self, batch: Slotted) -> float:
        """One step as its ``train_one_epoch`` takes it, with one source."""
        model, vocabulary = self.model, self.shapes.vocabulary
        with self.autocast():
            loss = model(
                vision_x=batch.pixels,
                lang_x=batch.input_ids,
                attention_mask=batch.attention_mask,
                labels=batch.labels,
            )[0]
        loss.backward()
        # The whole table gets a gradient, of which all rows but two are then set to zero.
        table = model.lang_encoder.get_input_embeddings().weight
        kept = torch.zeros_like(table.grad)
        for token in (vocabulary.image, vocabulary.end_of_chunk):
            kept[token] = torch.ones_like(kept[token])
        table.grad = table.grad * kept
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss.item()

    def prompt_batch(self, documents: list[Document]) -> Slotted:
        """Prompts padded on the left."""
        shapes = self.shapes
        return slotted_batch(documents, shapes.vocabulary, shapes.image_size, left=True)

    def generate(self, batch: Slotted, beams: int, new_tokens: int) -> Tensor:
        """Complete prompts as its ``eval_model`` does; returns the new tokens alone."""
        with torch.inference_mode(), self.autocast():
            made = self.model.generate(
                batch.pixels,
                batch.input_ids,
                batch.attention_mask,
                num_beams=beams,
                do_sample=False,
                min_new_tokens=new_tokens,
                max_new_tokens=new_tokens,
            )
        return made[:, batch.input_ids.shape[1] :]

    def save(self, folder: Path) -> int:
        """Save the model's part of its checkpoint; optimiser and schedule would come on top."""
        file = folder / "checkpoint.pt"
        torch.save({"model_state_dict": saved_state(self.model)}, file)
        return file.stat().st_size

    def flops(self, case: Case, documents: list[Document]) -> dict[str, int]:
        """The floor is that of our side: the same result needs the same arithmetic."""
        return {}


if __name__ == "__main__":
    measure.run(OpenFlamingo, ("torch", "transformers", "open_flamingo"))
