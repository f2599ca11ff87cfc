"""MiniFlamingo's side of the comparison: ``python -m benchmarks.ours CASE``."""

from __future__ import annotations

import copy
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

import open_clip
import torch
from torch import Tensor
from transformers import OPTConfig, OPTForCausalLM

from benchmarks import measure
from benchmarks.cases import Case
from benchmarks.floor import DTYPES
from benchmarks.measure import LONG, SHORT
from benchmarks.workloads import Document, Shapes, count_media, draw_pixels
from miniflamingo.cost.flops import DocumentShape, Flops, generation_flops, step_flops
from miniflamingo.data.collate import count_positions, pack_rows, pad_left, pad_right
from miniflamingo.model.config import (
    MiniFlamingoConfig,
    ResamplerConfig,
    VisionConfig,
    XattnConfig,
)
from miniflamingo.model.embeddings import table_of
from miniflamingo.model.export import WEIGHTS_FILE
from miniflamingo.model.flamingo import MiniFlamingo
from miniflamingo.model.vision import FrozenVision
from miniflamingo.training.optim import OptimConfig, make_optimizer


class TrainBatch(NamedTuple):
    """What a training step of ours reads.

    Attributes:
        input_ids: (B, L) long.
        position_ids: (B, L) long.
        labels: (B, L) long.
        pixels: (N, 1, 3, H, W).
    """

    input_ids: Tensor
    position_ids: Tensor
    labels: Tensor
    pixels: Tensor


class PromptBatch(NamedTuple):
    """What a generation of ours reads.

    Attributes:
        input_ids: (B, L) long, padded on the left.
        attention_mask: (B, L) long.
        pixels: (N, 1, 3, H, W).
    """

    input_ids: Tensor
    attention_mask: Tensor
    pixels: Tensor


def build_vision(shapes: Shapes, dtype: str) -> FrozenVision:
    """A random image tower."""
    tower: Any = open_clip.CLIP(**shapes.clip).visual
    tower.preprocess_cfg = {"size": shapes.image_size}  # what open_clip's factory would set
    return FrozenVision(VisionConfig("random", dtype=dtype), tower)  # type: ignore[arg-type]


def build_model(shapes: Shapes, every: int, train_input_rows: bool, precision: str) -> MiniFlamingo:
    """A random MiniFlamingo with OpenFlamingo's shapes.

    Args:
        shapes: Of the parts.
        every: A gated block before every n-th layer, the last layer included as in OpenFlamingo.
        train_input_rows: As in the configuration.
        precision: Of the frozen parts, as in our recipes: bf16 weights where autocast is bf16.
    """
    dtype = DTYPES[precision]
    language: Any = OPTForCausalLM(OPTConfig(**shapes.language))
    language.to(dtype)
    vocabulary = shapes.vocabulary
    config = MiniFlamingoConfig(
        language="random",
        vision=VisionConfig("random"),
        resampler=ResamplerConfig(
            shapes.latents, shapes.depth, shapes.heads, shapes.head_width, activation="gelu"
        ),
        xattn=XattnConfig(
            every=every,
            first=every - 1,
            heads=shapes.heads,
            head_width=shapes.head_width,
            activation="gelu",
            start="random",  # open gates, so that every gradient is a number like any other
        ),
        image_token_id=vocabulary.image,
        end_of_chunk_token_id=vocabulary.end_of_chunk,
        train_input_rows=train_input_rows,
        text_config=copy.deepcopy(language.config),
    )
    model = MiniFlamingo(config, language, build_vision(shapes, str(dtype).removeprefix("torch.")))
    table = table_of(language.get_input_embeddings())
    model.token_rows.start_from(table, table, vocabulary.begin)
    return model


class Ours:
    """A MiniFlamingo and its optimiser. The parts of ``measure.Side``."""

    def __init__(self, case: Case, shapes: Shapes) -> None:
        self.shapes = shapes
        self.precision = case.precision
        self.model = build_model(shapes, case.every, case.train_input_rows, case.precision)
        self.model.train(case.kind == "train")
        self.optimizer, self.schedule = make_optimizer(self.model, OptimConfig(), 100)
        self.trained = [each for each in self.model.parameters() if each.requires_grad]

    def autocast(self) -> AbstractContextManager:
        """What Lightning's ``bf16-mixed`` wraps around a step; nothing in fp32."""
        dtype = DTYPES[self.precision]
        return torch.autocast("cpu", dtype, enabled=dtype != torch.float32)

    def pixels(self, documents: list[Document]) -> Tensor:
        """(N, 1, 3, H, W) pictures of all documents."""
        media = sum(count_media(document, self.shapes.vocabulary) for document in documents)
        return draw_pixels(media, self.shapes.image_size)

    def train_batch(self, documents: list[Document], case: Case) -> TrainBatch:
        """Packed or padded to the longest, as our processor does; only media that exist."""
        lengths = [len(document.ids) for document in documents]
        rows = [[place] for place in range(len(lengths))]
        if case.pack is not None:
            rows = pack_rows(lengths, max(case.pack, *lengths))
        ids = [[token for place in row for token in documents[place].ids] for row in rows]
        labels = [[label for place in row for label in documents[place].labels] for row in rows]
        return TrainBatch(
            pad_right(ids, self.shapes.vocabulary.pad),
            count_positions([[lengths[place] for place in row] for row in rows]),
            pad_right(labels, -100),
            self.pixels(documents),
        )

    def train_step(self, batch: TrainBatch) -> float:
        """One step as the LightningModule and its trainer take it."""
        with self.autocast():
            loss = self.model(
                batch.input_ids,
                position_ids=batch.position_ids,
                pixels=batch.pixels,
                labels=batch.labels,
            ).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.trained, 1.0)
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad()
        return loss.item()

    def prompt_batch(self, documents: list[Document]) -> PromptBatch:
        """Prompts padded on the left."""
        rows = [document.ids for document in documents]
        return PromptBatch(*pad_left(rows, self.shapes.vocabulary.pad), self.pixels(documents))

    def generate(self, batch: PromptBatch, beams: int, new_tokens: int) -> Tensor:
        """Complete prompts under the precision of the case."""
        with self.autocast():
            return self.model.generate(
                **batch._asdict(),
                num_beams=beams,
                do_sample=False,
                min_new_tokens=new_tokens,
                max_new_tokens=new_tokens,
            )

    def save(self, folder: Path) -> int:
        """Export the model."""
        self.model.save_pretrained(folder)
        return (folder / WEIGHTS_FILE).stat().st_size

    def flops(self, case: Case, documents: list[Document]) -> dict[str, int]:
        """FLOPs that each part of a repetition needs, without any padding."""
        shapes = [
            DocumentShape(
                len(document.ids),
                count_media(document, self.shapes.vocabulary),
                document.predicted,
            )
            for document in documents
        ]
        if case.kind == "checkpoint":
            return {}
        if case.kind == "train":
            return {"step": total(step_flops(self.model, shapes))}
        return {
            "long": total(generation_flops(self.model, shapes, LONG, case.beams)),
            "short": total(generation_flops(self.model, shapes, SHORT, case.beams)),
        }


def total(parts: dict[str, Flops]) -> int:
    """Sum over parts and directions."""
    return sum(flops.total for flops in parts.values())


if __name__ == "__main__":
    measure.run(Ours, ("torch", "transformers", "miniflamingo"))
