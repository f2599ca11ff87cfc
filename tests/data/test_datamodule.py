"""Sources and validation for the trainer."""

from itertools import islice
from types import SimpleNamespace

import pytest
import tiny

from miniflamingo.data.datamodule import InterleavedData, SourceConfig


@pytest.fixture
def make(processor, tmp_path):
    for shard in range(2):
        for source in ("pairs", "documents"):
            samples = {f"{source}{shard}{i}": tiny.pair("a cat", i) for i in range(3)}
            tiny.write_shard(tmp_path / source / f"{shard}.tar", samples)
    validation = {str(i): tiny.pair("two cups", i) for i in range(5)}
    validation["3"]["png"] = b"no picture"
    tiny.write_shard(tmp_path / "validation" / "0.tar", validation)

    def make(**changes):
        def source(name, batch_size):
            return SourceConfig(f"{tmp_path}/{name}/*.tar", batch_size)

        settings = {
            "sources": {"pairs": source("pairs", 2), "documents": source("documents", 1)},
            "validation": source("validation", 2),
            "num_workers": 0,
        }
        return InterleavedData(processor, **settings | changes)

    return make


def test_one_endless_loader_for_each_source(make):
    loaders = make().train_dataloader()
    assert set(loaders) == {"pairs", "documents"}
    for name, size in (("pairs", 2), ("documents", 1)):
        batches = list(islice(loaders[name], 10))
        assert {len(batch.keys) for batch in batches} == {size}
        assert all(key.startswith(name) for batch in batches for key in batch.keys)


def test_validation_reads_every_usable_document_once_in_order(make):
    keys = [batch.keys for batch in make().val_dataloader()]
    assert keys == [["0", "1"], ["2", "4"]]


def test_every_rank_lists_all_validation_documents_for_the_trainer_to_split(make):
    data = make()
    data.trainer = SimpleNamespace(global_rank=1, world_size=2)
    assert len(data.val_dataloader().dataset) == 4


def test_ranks_get_their_own_share_of_training(make):
    seen = []
    for rank in range(2):
        data = make()
        data.trainer = SimpleNamespace(global_rank=rank, world_size=2)
        loader = data.train_dataloader()["documents"]
        seen.append({key for batch in islice(loader, 3) for key in batch.keys})
    assert [len(keys) for keys in seen] == [3, 3]
    assert not seen[0] & seen[1]


def test_it_goes_on_where_the_checkpoint_was_written(make):
    data = make()
    data.trainer = SimpleNamespace(
        fit_loop=SimpleNamespace(total_batch_idx=4), global_rank=0, world_size=1
    )
    state = data.state_dict()
    assert state == {"batches": 5}
    again = make()
    again.load_state_dict(state)
    for source in ("pairs", "documents"):
        whole = [batch.keys for batch in islice(data.train_dataloader()[source], 9)]
        rest = [batch.keys for batch in islice(again.train_dataloader()[source], 4)]
        assert rest == whole[5:]


def test_long_documents_are_cut(make):
    batch = next(iter(make(max_tokens=4).train_dataloader()["pairs"]))
    assert batch.input_ids.shape[1] == 4
