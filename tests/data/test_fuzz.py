"""Damage of any kind, at any byte: a sample is a document, or it is dropped by name."""

import base64
import json
import random
from contextlib import suppress
from dataclasses import replace

import pytest
import tiny
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from miniflamingo.data.dropped import REASONS, Dropped
from miniflamingo.data.prepare import prepare
from miniflamingo.data.shards import BrokenShard, read_shard
from miniflamingo.data.source import SourceConfig
from miniflamingo.data.stream import usable_document

PICTURE, CLIP = tiny.picture(0, 24), tiny.clip(20)


def mmc4():
    pictures = [base64.b64encode(tiny.encoded(tiny.picture(i))).decode() for i in range(2)]
    page = {
        "text_list": ["One.", "Two.", "Three."],
        "image_info": [{"image_base64": picture} for picture in pictures],
        "similarity_matrix": [[0.1, 0.3, 0.2], [0.4, 0.3, 0.1]],
    }
    return {"json": json.dumps(page).encode()}


def obelics():
    page = {"texts": ["One.", None, "Two."], "images": [None, "u", None], "metadata": "[]"}
    return {"json": json.dumps(page).encode(), "1.png": tiny.encoded(PICTURE)}


def interleaved():
    chunks = [{"text": "One."}, {"image": "0.gif.png", "text": "two"}, {"image": "1.mp4"}]
    chunks += [{"image": ["2.png", "3.png"], "text": "three"}]
    chunks[2]["text"] = "clip"
    return {
        "json": json.dumps({"chunks": chunks}).encode(),
        "0.gif.png": tiny.encoded(PICTURE.convert("P"), "GIF"),
        "1.mp4": CLIP,
        "2.png": tiny.encoded(PICTURE),
        "3.png": tiny.encoded(PICTURE, "BMP"),
    }


SAMPLES = [
    *[{"jpg": tiny.encoded(PICTURE, each), "txt": "zwei Kätzchen".encode()}
      for each in ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "AVIF", "JPEG2000", "BMP", "PPM")],
    {"mp4": CLIP, "txt": b"moving"},
    interleaved(),
    mmc4(),
    obelics(),
]  # fmt: skip

SOURCE = SourceConfig(
    [], 1, window="random", max_images=3, p_next=0.5, min_image_side=2, max_image_aspect=50
)

places = st.floats(0, 1, exclude_max=True)
changes = st.one_of(
    st.tuples(st.just("put"), places, st.binary(min_size=1, max_size=4)),
    st.tuples(st.just("insert"), places, st.binary(min_size=1, max_size=9)),
    st.tuples(st.just("delete"), places, st.integers(1, 9)),
    st.tuples(st.just("repeat"), places, st.integers(1, 64)),
    st.tuples(st.just("cut"), places, st.none()),
)


def damage(content, changes):
    """Change bytes of a file, each change at a share of its length."""
    for kind, place, what in changes:
        at = int(place * len(content))
        front, back = content[:at], content[at:]
        match kind:
            case "put":
                content = front + what + back[len(what) :]
            case "insert":
                content = front + what + back
            case "delete":
                content = front + back[what:]
            case "repeat":
                content = front + back[:what] + back
            case "cut":
                content = front
    return content


def check_a_damaged_sample(processor, data):
    sample = dict(data.draw(st.sampled_from(SAMPLES)))
    name = data.draw(st.sampled_from(sorted(sample)))
    sample[name] = damage(sample[name], data.draw(st.lists(changes, min_size=1, max_size=5)))
    sample |= {"__key__": "0", "__url__": "a.tar"}
    layout = data.draw(st.sampled_from(["auto", "pairs", "interleaved", "mmc4", "obelics"]))
    max_tokens = data.draw(st.sampled_from([None, 2, 9, 40]))
    try:
        document = prepare(
            sample,
            replace(SOURCE, layout=layout),
            processor.tokenizer,
            processor.tokens,
            max_tokens,
            random.Random(0),
            16,
        )
    except Dropped as error:
        assert error.reason in REASONS  # noqa: PT017
        assert str(error).startswith("sample '0' of a.tar: ")  # noqa: PT017
        return
    batch = processor.batch([document], max_tokens)
    assert (batch.input_ids == processor.tokens.image).sum() == len(batch.pixels)
    assert batch.pixels.isfinite().all()


FUZZ = {"suppress_health_check": list(HealthCheck), "database": None}


@pytest.mark.filterwarnings("ignore")  # Pillow's about what it reads
@settings(max_examples=400, **FUZZ)
@given(st.data())
def test_a_damaged_sample_is_a_document_or_dropped(processor, data):
    check_a_damaged_sample(processor, data)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@settings(max_examples=20_000, derandomize=False, print_blob=True, **FUZZ)
@given(st.data())
def test_a_damaged_sample_is_a_document_or_dropped_for_long(processor, data):
    check_a_damaged_sample(processor, data)


@pytest.fixture(scope="session")
def shard(tmp_path_factory):
    """One shard of all the samples."""
    samples = {str(number): files for number, files in enumerate(SAMPLES)}
    return tiny.write_shard(tmp_path_factory.mktemp("fuzz") / "0.tar", samples).read_bytes()


def check_a_damaged_shard(processor, folder, shard, data):
    path = folder / "damaged.tar"
    path.write_bytes(damage(shard, data.draw(st.lists(changes, min_size=1, max_size=8))))
    documents = []
    with suppress(BrokenShard):  # what was read before the damage has been given
        for sample in read_shard(str(path)):
            document = usable_document(sample, SOURCE, processor, 40, seed=0, epoch=0)
            if isinstance(document, Dropped):
                assert document.reason in REASONS
            else:
                documents.append(document)
    if documents:
        batch = processor.batch(documents, 40)
        assert (batch.input_ids == processor.tokens.image).sum() == len(batch.pixels)


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=200, **FUZZ)
@given(st.data())
def test_a_damaged_shard_gives_documents_and_named_reasons(
    processor, tmp_path_factory, shard, data
):
    check_a_damaged_shard(processor, tmp_path_factory.getbasetemp(), shard, data)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@settings(max_examples=5_000, derandomize=False, print_blob=True, **FUZZ)
@given(st.data())
def test_a_damaged_shard_gives_documents_and_named_reasons_for_long(
    processor, tmp_path_factory, shard, data
):
    check_a_damaged_shard(processor, tmp_path_factory.getbasetemp(), shard, data)
