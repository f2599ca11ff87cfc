"""The endless stream: its order is a function of seed and readers, from any batch on."""

from itertools import islice

import pytest
import tiny
from torch.utils.data import DataLoader

from miniflamingo.data.stream import BatchStream

SHARDS, PER_SHARD = 4, 5


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """Four shards of five pairs, with keys 00 to 34."""
    folder = tmp_path_factory.mktemp("shards")
    return [
        str(
            tiny.write_shard(
                folder / f"{shard}.tar",
                {f"{shard}{i}": tiny.pair(f"caption {shard}{i}", 10 * shard + i)
                 for i in range(PER_SHARD)},
            )
        )
        for shard in range(SHARDS)
    ]  # fmt: skip


@pytest.fixture(scope="module")
def shards_with_bad_pictures(tmp_path_factory):
    """Every third picture does not decode."""
    folder = tmp_path_factory.mktemp("bad")
    return [
        str(
            tiny.write_shard(
                folder / f"{shard}.tar",
                {
                    f"{shard}{i}": tiny.pair("a", i) | ({"png": b"no"} if i % 3 == 1 else {})
                    for i in range(PER_SHARD)
                },
            )
        )
        for shard in range(SHARDS)
    ]


@pytest.fixture
def stream(processor):
    def make(shards, batch_size=2, seed=0, workers=0, **settings):
        stream = BatchStream(shards, processor, batch_size, 32, seed, **settings)
        return DataLoader(stream, batch_size=None, num_workers=workers)

    return make


def keys(loader, batches):
    return [batch.keys for batch in islice(loader, batches)]


def test_the_order_is_the_seeds(stream, shards):
    first = keys(stream(shards), 20)
    assert keys(stream(shards), 20) == first
    assert keys(stream(shards, seed=1), 20) != first


def test_an_epoch_holds_every_sample_once_and_the_next_another_order(stream, shards):
    batches = keys(stream(shards), 2 * SHARDS * PER_SHARD // 2)
    flat = [key for batch in batches for key in batch]
    everything = sorted(f"{shard}{i}" for shard in range(SHARDS) for i in range(PER_SHARD))
    epochs = flat[: len(everything)], flat[len(everything) :]
    assert sorted(epochs[0]) == sorted(epochs[1]) == everything
    assert epochs[0] != epochs[1]
    assert epochs[0] != everything


def test_even_one_shard_is_read_in_another_order_each_time(stream, shards):
    flat = [key for batch in keys(stream(shards[:1], 1), 4 * PER_SHARD) for key in batch]
    epochs = [tuple(flat[i : i + PER_SHARD]) for i in range(0, len(flat), PER_SHARD)]
    assert len(set(epochs)) > 1
    assert {frozenset(epoch) for epoch in epochs} == {frozenset(epochs[0])}


@pytest.mark.parametrize("workers", [0, 2, 3])
@pytest.mark.parametrize("start", [1, 2, 5, 14])
def test_a_stream_started_at_batch_n_goes_on_as_the_undisturbed_one(stream, shards, start, workers):
    undisturbed = stream(shards, workers=workers, shuffle_buffer=3)
    resumed = stream(shards, workers=workers, shuffle_buffer=3, first_batch=start)
    expected = [(b.keys, b.input_ids.tolist()) for b in islice(undisturbed, start, start + 6)]
    assert [(b.keys, b.input_ids.tolist()) for b in islice(resumed, 6)] == expected


@pytest.mark.parametrize("batch_size", [1, 2])
@pytest.mark.parametrize("start", [3, 4, 5])
def test_so_it_does_when_pictures_cannot_be_read(
    stream, shards_with_bad_pictures, start, batch_size
):
    undisturbed = stream(shards_with_bad_pictures, batch_size)
    resumed = stream(shards_with_bad_pictures, batch_size, first_batch=start)
    assert keys(resumed, 12) == keys(undisturbed, start + 12)[start:]


@pytest.mark.parametrize("batch_size", [1, 4])
def test_unreadable_pictures_are_skipped_and_counted(stream, shards_with_bad_pictures, batch_size):
    samples = SHARDS * PER_SHARD
    batches = list(islice(stream(shards_with_bad_pictures, batch_size), 2 * samples // batch_size))
    seen = [key for batch in batches for key in batch.keys]
    assert not any(key[1] in "14" for key in seen)  # these do not decode
    assert all(len(batch.keys) == len(batch.pixels) for batch in batches)
    skipped = sum(batch.skipped for batch in batches)
    if batch_size == 4:
        assert skipped == 2 * SHARDS * 2
        assert len(seen) + skipped == 2 * samples
    assert skipped >= 2 * SHARDS * 2 - 2


def test_a_source_without_one_usable_sample_is_an_error(stream, tmp_path):
    files = {"png": b"no", "txt": b"a"}
    shard = tiny.write_shard(tmp_path / "0.tar", {str(i): files for i in range(5)})
    with pytest.raises(ValueError, match=r"not one .* usable"):
        next(iter(stream([str(shard)])))


def test_fewer_shards_than_readers(stream, shards):
    with pytest.raises(ValueError, match=r"4 shards cannot feed 6 readers .*num_workers"):
        next(iter(stream(shards, workers=2, world_size=3)))


def test_shards_without_samples(stream, tmp_path):
    empty = tiny.write_shard(tmp_path / "0.tar", {})
    with pytest.raises(ValueError, match="hold no samples"):
        next(iter(stream([str(empty)])))


@pytest.mark.parametrize("workers", [0, 2])
def test_ranks_read_disjoint_shards(stream, shards, workers):
    per_rank = SHARDS * PER_SHARD // 2
    ranks = [
        keys(stream(shards, 1, workers=workers, rank=rank, world_size=2), per_rank)
        for rank in range(2)
    ]
    seen = [{key for batch in batches for key in batch} for batches in ranks]
    assert [len(keys) for keys in seen] == [per_rank, per_rank]
    assert not seen[0] & seen[1]
