"""Runs of a trainer on documents dealt out to ranks; as a script, one rank of several."""

import json
import sys
from datetime import timedelta
from pathlib import Path

import lightning as L
import tiny
import torch
from conftest import RESAMPLER, XATTN
from lightning.pytorch.callbacks import ModelCheckpoint

from miniflamingo import Chunk, Document
from miniflamingo.batch import PixelMedia
from miniflamingo.data.accumulate import StepLoader
from miniflamingo.data.source import SourceConfig
from miniflamingo.document import Patches
from miniflamingo.model.config import ResamplerConfig, VisionConfig, XattnConfig
from miniflamingo.training.module import FlamingoModule
from miniflamingo.training.optim import OptimConfig
from miniflamingo.training.sharding import ShardedStrategy

PATIENCE = timedelta(seconds=60)
"""How long a rank waits for another that has gone another way."""

STEP = 4
"""Documents of a source in one step, however they are split."""

TEXTS = [
    "a red cat.",
    "two",
    "three dogs and a blue cup and a cat on a green background.",
    "a cup.",
]


def document(number: int, source: str, encoder: str | None = None) -> Document:
    """Of a source; its length and its number of pictures depend on its number.

    With an encoder's fingerprint it holds patch features in place of pictures.
    """
    if number % STEP == 3:  # a batch of its own here and there, which has no pictures at all
        return Document([Chunk(None, "a dog on a white background.")])
    pictures = 1 if source == "pairs" else 1 + number % 2
    texts = [TEXTS[(number + i) % len(TEXTS)] for i in range(pictures)]
    media = [tiny.picture(7 * number + i) for i in range(pictures)]
    if encoder is not None:
        rng = torch.Generator().manual_seed(number)
        media = [Patches(torch.randn(1, 4, 24, generator=rng), encoder) for _ in media]
    return Document([Chunk(*each) for each in zip(media, texts, strict=True)])


class Dealt(L.LightningDataModule):
    """Step n trains on the documents from 4n on, dealt out to accumulated batches and ranks."""

    def __init__(self, processor, ranks: int, accumulated: int, features: bool) -> None:
        super().__init__()
        self.processor, self.ranks, self.accumulated = processor, ranks, accumulated
        self.encoders = {"pairs": None, "documents": processor.encoder if features else None}
        self.sources = {name: SourceConfig([], STEP) for name in ("pairs", "documents")}

    def documents(self, source, numbers):
        return [document(number, source, self.encoders[source]) for number in numbers]

    def batches(self, source):
        size = STEP // (self.ranks * self.accumulated)
        done = self.trainer.fit_loop.total_batch_idx + 1
        while True:
            first = size * (done * self.ranks + self.trainer.global_rank)
            numbers = range(first, first + size)
            yield self.processor.batch(self.documents(source, numbers))
            done += 1

    def train_dataloader(self):
        return {name: StepLoader(self.batches(name), self.accumulated) for name in self.sources}

    def val_dataloader(self):
        documents = self.documents("documents", range(8))
        size = STEP // self.ranks
        return torch.utils.data.DataLoader(
            documents, batch_size=size, collate_fn=self.processor.batch
        )


class Losses(L.Callback):
    """Keeps what was logged in each step."""

    def __init__(self) -> None:
        self.steps: list[dict[str, float]] = []
        self.validated: dict[str, float] = {}

    def on_train_batch_end(self, trainer, *_):
        found = {k: v.item() for k, v in trainer.callback_metrics.items() if k.startswith("train/")}
        self.steps.append(found)

    def on_validation_end(self, trainer, pl_module):
        found = {k: v.item() for k, v in trainer.callback_metrics.items()}
        self.validated = {k: v for k, v in found.items() if k in ("val/loss", "val/loss_swapped")}


def make_module(language: str, clip: str, kind: str = "perceiver", **settings) -> FlamingoModule:
    """With gates open, so that everything learns from the first step."""
    L.seed_everything(0, verbose=False)
    return FlamingoModule(
        language,
        VisionConfig(f"local-dir:{clip}"),
        ResamplerConfig(**RESAMPLER | {"kind": kind}),
        XattnConfig(**XATTN | {"start": "zero_outputs"}),
        OptimConfig(lr=3e-3, warmup_steps=2, weight_decay=0.1),
        {"pairs": 0.5, "documents": 1.0},
        **settings,
    )


def run(
    folder: Path,
    language: str,
    clip: str,
    strategy: str = "auto",
    ranks: int = 1,
    accumulated: int = 1,
    steps: int = 20,
    precision: str | None = "32-true",
    resume: str | None = None,
    generate: bool = False,
    features: bool = False,
    callbacks: tuple | list = (),
    plugins: list | None = None,
    **settings,
) -> dict:
    """Train, validate, export and save a checkpoint; returns what was seen.

    With features one of the two sources holds patch features, the other pictures.
    """
    module = make_module(language, clip, **settings)
    losses = Losses()
    halfway = ModelCheckpoint(folder, "{step}", every_n_train_steps=10, save_top_k=-1)
    trainer = L.Trainer(
        accelerator="cpu",
        devices=ranks,
        strategy=ShardedStrategy(timeout=PATIENCE) if strategy == "sharded" else strategy,
        precision=precision,
        max_steps=steps,
        accumulate_grad_batches=accumulated,
        gradient_clip_val=0.5,
        log_every_n_steps=1,
        limit_val_batches=2,
        val_check_interval=steps * accumulated,
        num_sanity_val_steps=0,
        default_root_dir=folder,
        logger=False,
        callbacks=[losses, halfway, *callbacks],
        plugins=plugins,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, Dealt(module.processor, ranks, accumulated, features), ckpt_path=resume)
    if steps < 10:
        trainer.save_checkpoint(folder / "last.ckpt")
    module.model.save_pretrained(folder / "model", trainer.is_global_zero)
    seen = {"steps": losses.steps, "validated": losses.validated}
    seen["numel"] = sum(getattr(p, "_local_tensor", p).numel() for p in module.model.parameters())
    if generate:
        prompt = module.processor([Document([Chunk(tiny.picture(0), "")])])
        completion = module.model.generate(**prompt, max_new_tokens=4, num_beams=2)
        seen["completion"] = completion.tolist()
        # As the samples' reader.
        prompt["media"] = module.model.resample(PixelMedia(prompt.pop("pixels")))
        completion = module.model.generate(**prompt, max_new_tokens=4, num_beams=2)
        assert completion.tolist() == seen["completion"]
    return seen


if __name__ == "__main__":
    plan = json.loads(Path(sys.argv[1]).read_text())
    for name, settings in plan.items():
        folder = Path(sys.argv[1]).parent / name
        seen = run(folder, **settings)
        rank = torch.distributed.get_rank()
        (folder / f"seen-{rank}.json").write_text(json.dumps(seen))
