"""What the model says of a few held-out pictures, at each validation, as an image in the logger."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

import lightning as L
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from matplotlib.figure import Figure

from miniflamingo.data.documents import read_documents
from miniflamingo.data.images import load_image
from miniflamingo.document import Chunk, Document
from miniflamingo.generation.complete import Decoding, complete
from miniflamingo.generation.reader import Reader
from miniflamingo.training.module import FlamingoModule


class SampleCaptions(L.Callback):
    """Captions the last picture of a few validation documents, after what stands before it.

    The sheet goes to ``samples/`` in the run's folder, to TensorBoard, and to every logger with a
    ``log_image`` like that of Lightning's for Weights & Biases.
    """

    def __init__(self, documents: int = 6, max_new_tokens: int = 30) -> None:
        """Describe the sheet.

        Args:
            documents: How many, the first of the validation shards.
            max_new_tokens: Longest caption, decoded greedily.
        """
        self.count = documents
        self.decoding = Decoding(max_new_tokens, beams=1)
        self.documents: list[Document] = []

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Read the documents once."""
        assert isinstance(pl_module, FlamingoModule)
        urls = trainer.datamodule.validation.urls  # type: ignore[attr-defined]
        documents = read_documents(urls, self.count, pl_module.processor)
        self.documents = [each for each in documents if each.chunks[-1].frames]

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Caption on every rank, for weights may be sharded, and show on the first."""
        if trainer.sanity_checking or not self.documents:
            return
        assert isinstance(pl_module, FlamingoModule)
        reader = Reader(pl_module.model, pl_module.processor)
        captions = complete(reader, [open_last(each) for each in self.documents], self.decoding)
        if not trainer.is_global_zero:
            return
        file = Path(trainer.default_root_dir) / "samples" / f"step_{trainer.global_step:06}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        figure = draw_captions(self.documents, captions)
        figure.savefig(file)
        for logger in trainer.loggers:
            show(logger, figure, file, trainer.global_step)


def open_last(document: Document) -> Document:
    """Take the last text away, for the model to write."""
    return Document([*document.chunks[:-1], Chunk(document.chunks[-1].image)], document.key)


def draw_captions(documents: Sequence[Document], captions: Sequence[str]) -> Figure:
    """Lay pictures side by side, under each what the model says and what is true."""
    figure = Figure(figsize=(2.4 * len(documents), 3.6), dpi=90)
    panels = figure.subplots(1, len(documents), squeeze=False)[0]
    for axes, document, caption in zip(panels, documents, captions, strict=True):
        axes.imshow(load_image(document.chunks[-1].frames[0]))
        axes.set(xticks=[], yticks=[])
        said = textwrap.fill(caption or "(nothing)", 24)
        truth = textwrap.fill(document.chunks[-1].text or "", 24)
        axes.set_xlabel(f"{said}\n\n({truth})", fontsize=8, parse_math=False)
    figure.tight_layout()
    return figure


def show(logger: Logger, figure: Figure, file: Path, step: int) -> None:
    """Give the sheet to a logger that takes images."""
    if isinstance(logger, TensorBoardLogger):
        logger.experiment.add_figure("samples", figure, step, close=False)
    elif log_image := getattr(logger, "log_image", None):
        log_image("samples", [str(file)], step=step)
