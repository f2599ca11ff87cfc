"""The loss over sources, and what is counted on the way."""

import time
from types import SimpleNamespace

import pytest
import tiny
import torch
from conftest import RESAMPLER, XATTN, open_gates

from miniflamingo import Chunk, Document
from miniflamingo.cost.flops import DocumentShape, step_flops
from miniflamingo.data.source import SourceConfig
from miniflamingo.model.config import ResamplerConfig, VisionConfig, XattnConfig
from miniflamingo.training.callbacks.throughput import Throughput
from miniflamingo.training.module import FlamingoModule
from miniflamingo.training.optim import OptimConfig


@pytest.fixture
def module(language_folder, clip_folder, monkeypatch):
    torch.manual_seed(0)
    module = FlamingoModule(
        str(language_folder),
        VisionConfig(f"local-dir:{clip_folder}"),
        ResamplerConfig(**RESAMPLER),
        XattnConfig(**XATTN),
        OptimConfig(),
        {"pairs": 0.2, "documents": 3.0},
    )
    open_gates(module.model)
    module.logged = {}

    def log(name, value, **_):
        module.logged[name] = float(torch.as_tensor(value).detach())

    monkeypatch.setattr(module, "log", log)
    alone = SimpleNamespace(reduce=lambda tensor, **_: tensor)
    module._trainer = SimpleNamespace(world_size=1, accumulate_grad_batches=1, strategy=alone)
    monkeypatch.setattr(FlamingoModule, "trainer", module._trainer)
    return module


def batch(module, *documents):
    chunks = [
        [Chunk(tiny.picture(seed), text) for seed, text in document] for document in documents
    ]
    return module.processor.batch([Document(each) for each in chunks])


def test_clips_of_more_frames_than_the_resampler_has_positions_for(module):
    sources = {name: SourceConfig([], 1) for name in ("pairs", "documents")}
    module.trainer.datamodule = SimpleNamespace(sources=sources)
    module.setup("fit")
    sources["pairs"] = SourceConfig([], 1, max_frames=8)
    with pytest.raises(ValueError, match=r"sources\.pairs\.max_frames is 8, but model\.resampler"):
        module.setup("fit")


def test_the_loss_is_the_sum_of_the_sources_by_weight(module):
    batches = {
        "pairs": batch(module, [(0, "a cat.")], [(1, "two dogs.")]),
        "documents": batch(module, [(2, "a cup."), (3, "a red cup.")]),
    }
    with torch.no_grad():
        losses = {
            name: module.model(
                part.input_ids,
                position_ids=part.position_ids,
                pixels=part.pixels,
                labels=part.labels,
            ).loss
            for name, part in batches.items()
        }
        total = module.training_step(batches, 0)
    assert total.item() == pytest.approx(
        0.2 * losses["pairs"].item() + 3 * losses["documents"].item()
    )
    assert module.logged == {
        "train/loss/pairs": losses["pairs"].item(),
        "train/loss/documents": losses["documents"].item(),
    }


def test_ranks_and_accumulated_batches_share_a_mean(module):
    """As if another rank had read the same batch, and each a second one with as many labels."""
    part = batch(module, [(0, "a cat.")], [(1, "two dogs.")])
    labels = int((part.labels[:, 1:] != -100).sum())
    twice = {"pairs": part._replace(labels_in_step=2 * labels)}
    with torch.no_grad():
        alone = module.training_step({"pairs": part}, 0)
        module._trainer.world_size = module._trainer.accumulate_grad_batches = 2
        module._trainer.strategy.reduce = lambda tensor, **_: 2 * tensor
        together = module.training_step(twice, 0)
    # Lightning divides by 2 batches and DDP by 2 ranks: four such parts make the mean again.
    torch.testing.assert_close(together, alone)


def test_accumulated_batches_of_a_loader_without_a_plan_are_averaged(module):
    part = batch(module, [(0, "a cat.")], [(1, "two dogs.")])
    with torch.no_grad():
        alone = module.training_step({"pairs": part}, 0)
        module._trainer.accumulate_grad_batches = 4
        accumulated = module.training_step({"pairs": part}, 0)
    # Lightning divides each of the four by 4 and adds them up.
    torch.testing.assert_close(accumulated, alone)


def test_the_kernel_of_attention_is_the_familys_own(tmp_path, clip_folder):
    """gemma2 caps its scores, which no other kernel than eager can do."""
    module = FlamingoModule(
        str(tiny.write_language(tmp_path / "language", "gemma2")),
        VisionConfig(f"local-dir:{clip_folder}"),
        ResamplerConfig(**RESAMPLER),
        XattnConfig(**XATTN),
        OptimConfig(),
        {"pairs": 1.0},
    )
    part = batch(module, [(0, "a cat.")])
    assert module.loss(part).isfinite()


def test_transformers_trainer_is_told_that_the_loss_is_a_mean(module):
    assert module.model.accepts_loss_kwargs is False


def test_a_source_without_labels_gives_no_loss(module):
    part = batch(module, [(0, "a cat.")])
    nothing = part._replace(labels=torch.full_like(part.labels, -100))
    with torch.no_grad():
        assert module.training_step({"pairs": nothing}, 0) == 0


def test_swapped_pictures_are_those_of_another_document(module):
    mine = [(0, "a cat."), (1, "two dogs.")], [(2, "a cup."), (3, "a red cup.")]
    theirs = [(2, "a cat."), (3, "two dogs.")], [(0, "a cup."), (1, "a red cup.")]
    module.validation_step(batch(module, *mine), 0)
    real = dict(module.logged)
    module.validation_step(batch(module, *theirs), 0)
    assert real["val/loss_swapped"] == pytest.approx(module.logged["val/loss"])
    assert real["val/loss"] == pytest.approx(module.logged["val/loss_swapped"])
    assert real["val/loss"] != pytest.approx(real["val/loss_swapped"], rel=1e-5)


def test_a_lone_document_has_no_pictures_to_swap(module):
    module.validation_step(batch(module, [(0, "a cat."), (1, "two dogs.")]), 0)
    assert "val/loss" in module.logged
    assert "val/loss_swapped" not in module.logged


def test_fewer_pictures_than_documents_are_swapped_too(module):
    documents = [
        Document([Chunk(tiny.picture(0), "a cat.")]),
        Document([Chunk(None, "and")]),
        Document([Chunk(tiny.picture(1), "two dogs.")]),
    ]
    module.validation_step(module.processor.batch(documents), 0)
    assert module.logged["val/loss"] != pytest.approx(module.logged["val/loss_swapped"], rel=1e-5)


def test_tokens_per_second_without_padding_and_validation(module, monkeypatch):
    now = iter([0.0, 4.0, 10.0, 12.0])
    monkeypatch.setattr(time, "perf_counter", lambda: next(now))
    throughput = Throughput()  # at 0
    parts = {"pairs": batch(module, [(0, "a cat.")], [(1, "two dogs and three cups.")])}
    tokens = parts["pairs"].tokens
    assert tokens < parts["pairs"].input_ids.numel()
    trainer = SimpleNamespace(log_every_n_steps=2)
    for step in (0, 1):
        throughput.on_train_batch_end(trainer, module, None, parts, step)
    assert module.logged["train/tokens_per_s"] == pytest.approx(2 * tokens / 4)
    throughput.on_train_batch_end(trainer, module, None, parts, 2)
    throughput.on_validation_end(trainer, module)  # at 10: begins anew
    throughput.on_train_batch_end(trainer, module, None, parts, 3)
    assert module.logged["train/tokens_per_s"] == pytest.approx(tokens / 2)
    assert module.logged["train/images_per_s"] == pytest.approx(2 / 2)
    assert "train/mfu" not in module.logged  # of a device whose peak nobody knows


def test_utilisation_is_that_of_the_flops_that_describe_counts(module, monkeypatch):
    now = iter([0.0, 2.0])
    monkeypatch.setattr(time, "perf_counter", lambda: next(now))
    throughput = Throughput(peak_flops=1e9)
    throughput.setup(SimpleNamespace(precision="32-true"), module, "fit")
    pair = batch(module, [(0, "a cat.")])
    trainer = SimpleNamespace(log_every_n_steps=1)
    throughput.on_train_batch_end(trainer, module, None, {"pairs": pair}, 0)
    shape = DocumentShape(pair.tokens, 1, int(pair.num_labels))
    needed = sum(part.total for part in step_flops(module.model, [shape]).values())
    # Attention over this text is a tenth of a model that is this narrow, and is counted as that
    # over a longer one.
    assert module.logged["train/mfu"] == pytest.approx(needed / 2 / 1e9, rel=0.15)
