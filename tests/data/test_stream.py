"""The endless stream: batches are a function of seed and readers, from any batch on."""

import copy
import io
import json
import tarfile
from collections import Counter
from itertools import islice

import pytest
import tiny
from torch.utils.data import DataLoader

from miniflamingo.data import stream as stream_module
from miniflamingo.data.reader import Order
from miniflamingo.data.shuffle import Part, replay
from miniflamingo.data.source import SourceConfig
from miniflamingo.data.state import SourceState, merge, pack_state, unpack_state
from miniflamingo.data.stream import BatchStream

SIZES = [5, 3, 7, 1, 4]
SAMPLES = sum(SIZES)
EVERYTHING = sorted(f"{shard}-{i}" for shard, size in enumerate(SIZES) for i in range(size))


def write(folder, bad=lambda shard, i: False):
    """Five uneven shards of pairs."""
    return [
        str(
            tiny.write_shard(
                folder / f"{shard}.tar",
                {
                    f"{shard}-{i}": tiny.pair(f"caption {shard} {i}", 10 * shard + i)
                    | ({"png": b"no"} if bad(shard, i) else {})
                    for i in range(size)
                },
            )
        )
        for shard, size in enumerate(SIZES)
    ]


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return write(tmp_path_factory.mktemp("shards"))


@pytest.fixture(scope="module")
def shards_with_bad_pictures(tmp_path_factory):
    """Every third picture does not decode."""
    return write(tmp_path_factory.mktemp("bad"), lambda shard, i: i % 3 == 1)


@pytest.fixture
def make(processor):
    def make(shards, batch_size=2, seed=0, workers=0, state=None, rank=0, world_size=1, **source):
        config = SourceConfig("", batch_size, **{"shuffle": 3} | source)
        stream = BatchStream(shards, processor, config, 32, seed, state, rank, world_size)
        return DataLoader(stream, batch_size=None, num_workers=workers)

    return make


def run(loader, batches, state=None):
    """Take batches as training does; returns their keys and the state after them."""
    state = copy.deepcopy(state or SourceState())
    taken = []
    for batch in islice(loader, batches):
        state.take(batch)
        taken.append(batch.keys)
    return taken, state


def flat(batches):
    return [key for keys in batches for key in keys]


def test_the_order_is_the_seeds(make, shards):
    first, _ = run(make(shards), 20)
    assert run(make(shards), 20)[0] == first
    assert run(make(shards, seed=1), 20)[0] != first


@pytest.mark.parametrize("shuffle", [1, 3, 100])
def test_an_epoch_holds_every_sample_once_and_the_next_another_order(make, shards, shuffle):
    keys = flat(run(make(shards, 1, shuffle=shuffle), 2 * SAMPLES)[0])
    epochs = keys[:SAMPLES], keys[SAMPLES:]
    assert sorted(epochs[0]) == sorted(epochs[1]) == EVERYTHING
    assert epochs[0] != epochs[1]
    assert epochs[0] != EVERYTHING


def test_even_one_shard_is_read_in_another_order_each_time(make, shards):
    keys = flat(run(make(shards[:1], 1), 4 * SIZES[0])[0])
    epochs = [tuple(keys[i : i + SIZES[0]]) for i in range(0, len(keys), SIZES[0])]
    assert len(set(epochs)) > 1
    assert {frozenset(epoch) for epoch in epochs} == {frozenset(epochs[0])}


@pytest.mark.parametrize("workers", [0, 2])
def test_ranks_and_workers_read_every_sample_of_an_epoch_once(make, shards, workers):
    batches = 3 * SAMPLES
    found = Counter()
    for rank in range(2):
        loader = make(shards, 1, workers=workers, rank=rank, world_size=2)
        for batch in islice(loader, batches):
            if batch.progress.epoch == 0:
                found.update(batch.keys)
    assert found == Counter(EVERYTHING)


def test_with_replacement_epochs_are_not_kept(make, shards):
    loader = make(shards[:2], 1, resampled=True, world_size=3, rank=2)  # more readers than shards
    keys = flat(run(loader, 40)[0])
    assert {key[0] for key in keys} == {"0", "1"}
    assert run(make(shards[:2], 1, resampled=True, world_size=3), 40)[0] != [[k] for k in keys]


@pytest.mark.parametrize(
    ("workers", "shuffle", "start"),
    [*[(0, shuffle, start) for shuffle in (1, 3, 100) for start in (1, 9, 10, 21)], (2, 3, 9)],
)
def test_a_resumed_stream_goes_on_as_the_undisturbed_one(
    make, shards_with_bad_pictures, start, workers, shuffle
):
    settings = {"workers": workers, "shuffle": shuffle}
    whole, _ = run(make(shards_with_bad_pictures, **settings), start + 12)
    _, state = run(make(shards_with_bad_pictures, **settings), start)
    rest, later = run(make(shards_with_bad_pictures, state=state, **settings), 12, state)
    assert rest == whole[start:]
    # A second time, from a state that was itself built after a resume.
    again, _ = run(make(shards_with_bad_pictures, state=later, **settings), 3, later)
    assert again == run(make(shards_with_bad_pictures, **settings), start + 15)[0][-3:]


def test_a_resume_opens_no_shard_that_it_is_done_with(make, shards, monkeypatch):
    _, state = run(make(shards, 1, shuffle=2), SAMPLES - 3)
    opened = []
    read = stream_module.Reader.__init__.__globals__["read_shard"]

    def note(url, timeout):
        opened.append(url)
        return read(url, timeout)

    monkeypatch.setattr("miniflamingo.data.reader.read_shard", note)
    run(make(shards, 1, shuffle=2, state=state), 3)
    assert 1 <= len(opened) <= 3


@pytest.mark.parametrize(
    ("before", "after", "batches"),  # ranks and workers
    [
        *[((1, 0), (2, 0), batches) for batches in (1, 4, 7)],
        *[((5, 0), (3, 0), batches) for batches in (1, 3, 5)],
        ((2, 2), (1, 0), 4),
        ((2, 0), (1, 2), 4),
    ],
)
def test_other_readers_take_what_is_left_of_an_epoch(make, shards, caplog, before, after, batches):
    """Not one sample is lost or read twice, through two changes."""
    order = Order(shards, 0, 3)
    caplog.set_level("INFO")
    found = {0: Counter(), 1: Counter()}
    packed = None
    for place, (ranks, workers) in enumerate((before, after, before)):
        states = []
        for rank in range(ranks):
            state = SourceState()
            if packed is not None:
                state = unpack_state(packed, order, ranks * max(1, workers), "pairs")
            loader = make(
                shards, 1, workers=workers, state=copy.deepcopy(state), rank=rank, world_size=ranks
            )
            for batch in islice(loader, batches if place < 2 else 3 * SAMPLES):
                state.take(batch)
                if batch.progress.epoch in found:
                    found[batch.progress.epoch].update(batch.keys)
            states.append(state)
        packed = pack_state(merge(states, max(1, workers)), order)
    assert found[0] == Counter(EVERYTHING)
    assert found[1] == Counter(EVERYTHING)
    told = "nothing of it is lost or repeated" in caplog.text
    assert told == (before != (2, 0))  # the readers of two ranks are those of two workers


def test_other_shards_or_another_seed_start_a_new_epoch(make, shards, caplog):
    _, state = run(make(shards, 1), 4)
    packed = pack_state(merge([state], 1), Order(shards, 0, 3))
    again = unpack_state(packed, Order(shards[1:], 0, 3), 1, "pairs")
    assert again.position(0).epoch == 1
    assert again.earlier["used"] == 4
    assert "source pairs: its shards, data.seed, shuffle or resampled are not" in caplog.text


def test_batches_are_full_and_what_is_dropped_is_counted_and_named(
    make, shards_with_bad_pictures, caplog
):
    loader = make(shards_with_bad_pictures, 4)
    bad = sum(i % 3 == 1 for size in SIZES for i in range(size))
    counts, batches = Counter(), []
    for batch in islice(loader, 2 * (SAMPLES - bad) // 4):
        assert len(batch.keys) == len(batch.pixels) == 4
        counts.update(batch.counts)
        batches.append(batch.keys)
    assert not any(key[-1] in "14" for key in flat(batches))
    assert counts["used"] == 4 * len(batches)
    assert counts["read"] == counts["used"] + counts["image_broken"]
    assert 2 * bad - 2 <= counts["image_broken"] <= 2 * bad
    assert caplog.text.count("dropped (image_broken)") == stream_module.TOLD


def test_a_source_without_one_usable_sample_is_an_error(make, tmp_path):
    files = {"png": b"no", "txt": b"a"}
    shard = tiny.write_shard(tmp_path / "0.tar", {str(i): files for i in range(5)})
    with pytest.raises(ValueError, match=r"not one of 1000 samples in a row is usable. The last"):
        next(iter(make([str(shard)])))


def test_fewer_shards_than_readers(make, shards):
    with pytest.raises(ValueError, match=r"5 shards .* cannot feed 6 readers .*num_workers"):
        next(iter(make(shards, workers=2, world_size=3)))


def test_shards_without_samples(make, tmp_path):
    empty = tiny.write_shard(tmp_path / "0.tar", {})
    with pytest.raises(ValueError, match="hold no samples"):
        next(iter(make([str(empty)])))


def test_what_a_shard_no_longer_gives_is_counted(make, tmp_path):
    shard = tiny.write_shard(tmp_path / "0.tar", {str(i): tiny.pair("a", i) for i in range(9)})
    _, state = run(make([str(shard)], 1, shuffle=4), 2)
    order = Order([str(shard)], 0, 4)
    held = replay([Part(0)], [], 2, 4, order.draws(0, 0, 1)).buffer
    tiny.write_shard(shard, {str(i): tiny.pair("a", i) for i in range(3)})
    counts = Counter()
    for batch in islice(make([str(shard)], 1, shuffle=4, state=state), 4):
        counts.update(batch.counts)
    assert counts["lost"] == sum(ref.sample > 2 for ref in held)


@pytest.mark.parametrize("broken", ["no tar", "empty tar"])
@pytest.mark.parametrize("workers", [0, 1, 2, 3])
def test_a_share_without_samples_is_passed_over_and_counted(make, tmp_path, broken, workers):
    shards = write(tmp_path)[:3]
    if broken == "no tar":
        (tmp_path / "1.tar").write_bytes(b"<html>404 Not Found</html>" * 100)
    else:
        tiny.write_shard(tmp_path / "1.tar", {})
    keys, state = run(make(shards, workers=workers, batch_size=1), 60)
    assert set(flat(keys)) == {key for key in EVERYTHING if key[0] in "02"}
    assert state.counts["broken_shard"] >= 1
    # And what was passed over does not disturb a resume.
    first, middle = run(make(shards, workers=workers, batch_size=1), 17)
    rest, _ = run(make(shards, workers=workers, batch_size=1, state=middle), 43, middle)
    assert first + rest == keys


@pytest.mark.parametrize("workers", [0, 2])
def test_a_source_without_any_sample_stops(make, tmp_path, workers):
    shards = [str(tiny.write_shard(tmp_path / f"{shard}.tar", {})) for shard in range(3)]
    with pytest.raises(ValueError, match="hold no samples that can be read"):
        run(make(shards, workers=workers), 1)


def test_a_member_whose_name_is_no_utf8_is_a_sample_like_any_other(make, tmp_path):
    shard = tmp_path / "0.tar"
    with tarfile.open(shard, "w", format=tarfile.GNU_FORMAT, encoding="latin-1") as tar:
        for key in ("caf\xe9", "plain"):
            for ending, content in tiny.pair("a cup.", 1).items():
                member = tarfile.TarInfo(f"{key}.{ending}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    keys, _ = run(make([str(shard)], batch_size=2), 1)
    assert set(flat(keys)) == {"caf\\xe9", "plain"}
    assert json.dumps(flat(keys)).encode("utf-8")
