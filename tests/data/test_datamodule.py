"""Sources and validation for the trainer."""

import copy
from itertools import islice
from types import SimpleNamespace

import lightning as L
import pytest
import tiny
import torch

from miniflamingo.data.datamodule import InterleavedData
from miniflamingo.data.source import SourceConfig


@pytest.fixture
def make(processor, tmp_path):
    for shard in range(2):
        for source in ("pairs", "documents"):
            samples = {f"{source}{shard}{i}": tiny.pair("a cat", i) for i in range(3)}
            tiny.write_shard(tmp_path / source / f"{shard}.tar", samples)
    validation = {str(i): tiny.pair("two cups", i) for i in range(5)}
    validation["3"]["png"] = b"no picture"
    tiny.write_shard(tmp_path / "validation" / "0.tar", validation)

    def make(rank=0, world_size=1, **changes):
        def source(name, batch_size, **settings):
            return SourceConfig(f"{tmp_path}/{name}/*.tar", batch_size, **settings)

        settings = {
            "sources": {
                "pairs": source("pairs", 2, weight=3.0),
                "documents": source("documents", 1),
            },
            "validation": source("validation", 2),
            "num_workers": 0,
        }
        data = InterleavedData(processor, **settings | changes)
        data.trainer = SimpleNamespace(
            global_rank=rank, world_size=world_size, training=True, accumulate_grad_batches=1
        )
        return data

    return make


def take(data, steps):
    """Train on so many steps; returns the keys of each."""
    taken = []
    for step in islice(data.train_dataloader(), steps):
        data.on_before_batch_transfer(step, 0)
        taken.append({name: batch.keys for name, batch in step.items()})
    return taken


def test_each_step_has_a_batch_of_every_source(make):
    for step in take(make(), 10):
        assert {name: len(keys) for name, keys in step.items()} == {"pairs": 2, "documents": 1}
        assert all(key.startswith(name) for name, keys in step.items() for key in keys)


def test_or_of_one_source_drawn_by_weight_alike_on_every_rank(make):
    steps = take(make(mixture="sample"), 80)
    names = [name for step in steps for name in step]
    assert len(names) == 80
    assert 45 < names.count("pairs") < 75  # three in four
    other = take(make(mixture="sample", rank=1, world_size=2), 80)
    assert [list(step) for step in other] == [list(step) for step in steps]


def test_the_steps_of_one_update_have_one_draw(make):
    data = make(mixture="sample")
    data.trainer.accumulate_grad_batches = 4
    names = [name for step in take(data, 80) for name in step]
    assert all(len(set(names[i : i + 4])) == 1 for i in range(0, 80, 4))
    assert len(set(names)) == 2


@pytest.mark.parametrize("mixture", ["all", "sample"])
def test_it_goes_on_where_training_stood_whatever_was_read_ahead(make, mixture):
    whole = take(make(mixture=mixture), 12)
    data = make(mixture=mixture)
    ahead = iter(data.train_dataloader())
    for _ in range(5):
        data.on_before_batch_transfer(next(ahead), 0)
    next(ahead)  # as Lightning reads ahead
    data.trainer.training = False
    data.on_before_batch_transfer(next(iter(data.val_dataloader())), 0)  # as it validates
    state = data.state_dict()
    again = make(mixture=mixture)
    again.load_state_dict(copy.deepcopy(state))
    assert take(again, 7) == whole[5:]
    assert {name: packed["batches"] for name, packed in again.state_dict().items()} == {
        name: sum(name in step for step in whole) for name in ("pairs", "documents")
    }
    # And when one iterates anew, as at the start of each of Lightning's epochs.
    data.trainer.training = True
    assert take(data, 7) == whole[5:]


def test_counts_are_kept_over_a_resume(make):
    data = make()
    take(data, 6)
    again = make()
    again.load_state_dict(data.state_dict())
    take(again, 3)
    counts = again.gathered_states()["pairs"].earlier
    assert counts["read"] == counts["used"] == 18


def test_a_source_that_is_new_starts_at_its_start(make):
    data = make()
    take(data, 2)
    state = data.state_dict()
    del state["pairs"]
    again = make()
    again.load_state_dict(state)
    whole = take(make(), 4)
    assert [step["pairs"] for step in take(again, 2)] == [step["pairs"] for step in whole[:2]]


def test_a_state_survives_being_saved_without_pickles(make, tmp_path):
    data = make()
    take(data, 4)
    torch.save(data.state_dict(), tmp_path / "state.pt")
    assert torch.load(tmp_path / "state.pt", weights_only=True) == data.state_dict()


class Follows(L.LightningModule):
    """Records the keys that Lightning hands out."""

    def __init__(self, stop_at=None):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.steps, self.validated, self.stop_at = [], [], stop_at

    def training_step(self, batch, batch_idx):
        self.steps.append({name: part.keys for name, part in batch.items()})
        if len(self.steps) == self.stop_at:
            raise KeyboardInterrupt
        return self.weight * 1.0

    def validation_step(self, batch, batch_idx):
        self.validated.append(batch.keys)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


@pytest.mark.parametrize("limit", [None, 4], ids=["endless", "epochs"])
def test_lightning_trains_validates_and_resumes_without_a_gap(make, tmp_path, limit):
    def fit(folder, steps, **settings):
        module = Follows()
        trainer = L.Trainer(
            accelerator="cpu",
            max_steps=steps,
            limit_train_batches=limit,
            val_check_interval=3 if limit is None else 4,
            limit_val_batches=1,
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=folder,
            callbacks=[L.pytorch.callbacks.ModelCheckpoint(folder, every_n_train_steps=5)],
        )
        trainer.fit(module, make(), weights_only=True, **settings)
        return module, trainer.checkpoint_callback.best_model_path

    whole, _ = fit(tmp_path / "whole", 12)
    assert whole.steps == take(make(), 12)
    assert set(map(tuple, whole.validated)) == {("0", "1")}
    _, checkpoint = fit(tmp_path / "part", 6)  # the checkpoint is of step 5
    rest, _ = fit(tmp_path / "rest", 12, ckpt_path=checkpoint)
    assert rest.steps == whole.steps[5:]


@pytest.mark.parametrize("workers", [0, 1])
def test_validation_reads_every_usable_document_once_in_order(make, workers):
    loader = make(num_workers=workers).val_dataloader()
    for _ in range(2):
        assert [batch.keys for batch in loader] == [["0", "1"], ["2"], ["4"]]


def shares(make, ranks, size, **samples):
    """What each rank validates on: the keys of its batches."""
    url = make().validation.urls
    if samples:
        tiny.write_shard(tiny.Path(url.replace("*", "0")), samples)
    config = SourceConfig(url, size)
    return [
        [batch.keys for batch in make(rank, ranks, validation=config).val_dataloader()]
        for rank in range(ranks)
    ]


def test_ranks_share_validation_in_batches_of_equal_sizes(make):
    assert shares(make, 2, 2) == [[["0", "2"], ["4"]], [["1", "1"], ["1"]]]  # 3 is unusable
    good = {str(i): tiny.pair("a", i) for i in range(7)}
    assert shares(make, 2, 2, **good) == [[["0", "2"], ["4", "6"]], [["1", "3"], ["5", "3"]]]


def test_a_rank_without_a_usable_document_yet_waits_for_its_first(make):
    bad = {"png": b"no", "txt": b"a"}
    samples = {str(i): bad if i < 3 else tiny.pair("a", i) for i in range(6)}
    assert shares(make, 2, 1, **samples) == [[["4"], ["4"], ["4"]], [["3"], ["3"], ["5"]]]
    assert shares(make, 1, 2, **samples) == [[["3"], ["4", "5"]]]
    with pytest.raises(ValueError, match="not one usable document for rank 0 of 2"):
        shares(make, 2, 1, **{"0": bad})


def test_long_documents_are_cut(make):
    batch = next(iter(make(max_tokens=4).train_dataloader()))["pairs"]
    assert batch.input_ids.shape[1] == 4


def test_fewer_shards_than_workers_are_told_at_once(make):
    with pytest.raises(ValueError, match=r"data.sources.pairs: 2 shards .* feed 3 readers"):
        make(num_workers=3)


def test_there_must_be_sources(make):
    with pytest.raises(ValueError, match=r"data.sources is empty"):
        make(sources={})


def test_a_run_stops_when_too_much_of_a_source_is_bad(make, tmp_path):
    for shard in range(2):
        samples = {f"{shard}{i}": tiny.pair("a", i) for i in range(60)}
        for i in range(0, 60, 3):
            samples[f"{shard}{i}"]["png"] = b"no"
        tiny.write_shard(tmp_path / "bad" / f"{shard}.tar", samples)

    def data(most):
        source = SourceConfig(f"{tmp_path}/bad/*.tar", 4, shuffle=1, most_bad=most)
        return make(sources={"pairs": source})

    with pytest.raises(ValueError, match=r"'pairs': \d+ of \d+ samples are bad \(image_broken \d+"):
        take(data(0.3), 40)
    assert len(take(data(0.35), 40)) == 40
