"""From the files of a sample to the document that a step reads."""

import json
import random

import numpy as np
import pytest
import tiny

from miniflamingo.data.dropped import Dropped
from miniflamingo.data.layouts.members import read_json
from miniflamingo.data.prepare import prepare
from miniflamingo.data.shards import read_samples
from miniflamingo.data.source import DEFAULTS, SourceConfig


@pytest.fixture
def make(processor, tmp_path):
    """Prepare the one sample of a shard with these files."""

    def make(files, source=DEFAULTS, max_tokens=None, seed=0, least_side=None):
        (sample,) = read_samples([str(tiny.write_shard(tmp_path / "a.tar", {"page": files}))])
        rng = random.Random(seed)
        return prepare(
            sample, source, processor.tokenizer, processor.tokens, max_tokens, rng, least_side
        )

    return make


def pixels(image):
    return np.array(image).tolist()


def test_pictures_are_decoded(make):
    document = make(tiny.interleaved(["one", "two"], 3))
    assert [chunk.text for chunk in document.chunks] == ["one", "two"]
    for place, chunk in enumerate(document.chunks):
        assert pixels(chunk.frames[0]) == pixels(tiny.picture(3 + place))


def test_only_pictures_in_the_window_are_decoded(make):
    files = tiny.interleaved(["one", "two", "three"], 0) | {"2.png": b"no picture"}
    source = SourceConfig([], 1, max_images=2)
    assert make(files, source).num_media == 2
    assert make(files, max_tokens=8).num_media == 2
    with pytest.raises(Dropped, match=r"sample 'page' of .*a.tar: chunk 2: cannot read") as error:
        make(files)
    assert error.value.reason == "image_broken"


def test_large_pictures_are_shrunk(make):
    files = {"png": tiny.encoded(tiny.picture(0, 100)), "txt": b"a"}
    assert make(files, least_side=16).chunks[0].frames[0].size == (34, 34)
    assert make(files).chunks[0].frames[0].size == (100, 100)


def test_an_open_chunk_has_nothing_to_learn(make):
    chunks = [{"image": "0.png", "text": "a"}, {"image": "0.png"}]
    files = {"json": json.dumps({"chunks": chunks}).encode(), "0.png": tiny.pair("", 0)["png"]}
    assert len(make(files).chunks) == 1


@pytest.mark.parametrize("texts", [[""], [" ", "\n"], ["\u202e"]])
def test_a_document_without_text_is_dropped(make, texts):
    with pytest.raises(Dropped, match="none of its chunks has any text") as error:
        make(tiny.interleaved(texts, 0))
    assert error.value.reason == "no_text"


def test_some_frames_of_a_clip_are_decoded(make):
    files = {f"0.{i}.png": tiny.encoded(tiny.picture(i)) for i in range(6)}
    files["0.2.png"] = b"never decoded"
    files["json"] = json.dumps({"chunks": [{"image": "0", "text": "moving"}]}).encode()
    (chunk,) = make(files, SourceConfig([], 1, max_frames=3)).chunks
    assert [pixels(frame) for frame in chunk.frames] == [pixels(tiny.picture(i)) for i in (1, 3, 5)]


def page(images, texts, *pictures):
    content = json.dumps({"images": images, "texts": texts}).encode()
    return {"json": content} | {f"{i}.png": picture for i, picture in enumerate(pictures)}


def test_a_page_goes_on_without_a_broken_picture_and_counts_it(make):
    good = tiny.encoded(tiny.picture(0))
    files = page(["0.png", None, "1.png", None], [None, "one", None, "two"], good, good[:60])
    document = make(files)
    assert [len(chunk.frames) for chunk in document.chunks] == [1, 0]
    assert [chunk.text for chunk in document.chunks] == ["one", "two"]
    assert document.lost == {"image_broken": 1}


def test_a_page_with_too_few_pictures_left_is_dropped(make):
    good = tiny.encoded(tiny.picture(0))
    files = page(["0.png", None, "1.png", None], [None, "one", None, "two"], good, good[:60])
    with pytest.raises(Dropped, match="only 1 of 2 images decode; min_images is 2") as error:
        make(files, SourceConfig([], 1, min_images=2))
    assert error.value.reason == "too_few_images"


def test_the_same_rng_gives_the_same_document_and_others_give_all(make):
    images = [None, *[f"{i % 2}.png" if i % 2 else None for i in range(7)]]
    texts = [f"text {i}" if image is None else None for i, image in enumerate(images)]
    pictures = [tiny.encoded(tiny.picture(i)) for i in range(2)]
    source = SourceConfig([], 1, window="random", max_images=1, min_images=1, p_next=0.5)

    def drawn(seed):
        document = make(page(images, texts, *pictures), source, seed=seed)
        return str([(chunk.text, bool(chunk.frames)) for chunk in document.chunks])

    first = [drawn(seed) for seed in range(30)]
    assert first == [drawn(seed) for seed in range(30)]
    assert len(set(first)) == 6


def test_placement_is_drawn_once_for_each_document(make):
    files = page([None, "0.png", None], ["before", None, "after"], tiny.encoded(tiny.picture(0)))
    for p_next, expected in ((0.0, {"after"}), (1.0, {"before"}), (0.5, {"after", "before"})):
        source = SourceConfig([], 1, p_next=p_next)
        reads = {
            chunk.text
            for seed in range(20)
            for chunk in make(files, source, seed=seed).chunks
            if chunk.frames
        }
        assert reads == expected


def test_a_tag_that_a_text_spells_out_asks_for_no_picture(make, processor):
    text = b"<image> <|endofchunk|> <|endoftext|> <image>"
    batch = processor.batch([make({"png": tiny.pair("", 0)["png"], "txt": text})])
    assert processor.tokenizer.eos_token_id not in batch.input_ids[0]
    assert batch.input_ids[0].tolist().count(processor.tokens.image) == len(batch.pixels) == 1
    assert batch.input_ids[0].tolist().count(processor.tokens.end_of_chunk) == 1


def test_no_room_is_the_users_mistake_and_no_bad_sample(make):
    with pytest.raises(ValueError, match=r"max_tokens=1 has no room .* data\.max_tokens") as error:
        make(tiny.pair("a", 0), max_tokens=1)
    assert not isinstance(error.value, Dropped)


def test_several_pictures_of_one_text_are_not_one_in_silence(processor):
    page = json.dumps({"chunks": [{"image": ["0.png", "1.png"], "text": "a cat, a dog."}]})
    pictures = {f"{n}.png": tiny.encoded(tiny.picture(n)) for n in range(2)}
    sample = {"__key__": "a", "__url__": "0.tar", "json": page.encode(), **pictures}
    tools = (processor.tokenizer, processor.tokens, 64, random.Random(0))
    with pytest.raises(Dropped, match="its text has 2 pictures") as dropped:
        prepare(sample, SourceConfig("", 1), *tools)
    assert dropped.value.reason == "several_pictures"
    document = prepare(sample, SourceConfig("", 1, max_frames=2), *tools)
    assert len(document.chunks[0].frames) == 2


MANY = ["[" + "[]," * 3_000_000 + "[]]", '{"a":[' + "1," * 5_000_000 + "1]}"]


@pytest.mark.parametrize("content", MANY, ids=["lists", "numbers"])
def test_json_of_very_many_values_is_not_parsed(content):
    sample = {"__key__": "a", "__url__": "0.tar", "json": content.encode()}
    with pytest.raises(Dropped, match="values; at most 4,000,000") as dropped:
        read_json(sample)
    assert dropped.value.reason == "json_too_large"
