"""Prompts, support sets and the errors of task files."""

from pathlib import Path

import pytest
import tiny

from miniflamingo import Chunk, Document
from miniflamingo.evaluation.runner import prompts_for
from miniflamingo.evaluation.tasks import (
    Task,
    check_facts,
    check_shots,
    load_queries,
    load_task,
    load_vocabulary,
    prompt,
)


def document(key: str, examples: int = 4) -> Document:
    chunks = [Chunk(f"{key}{i}.png", f"{key} caption {i}") for i in range(examples + 1)]
    return Document(chunks, key)


def test_the_query_comes_last_and_open():
    asked = prompt(document("a"), shots=2, seed=0)
    assert [chunk.text is None for chunk in asked.chunks] == [False, False, True]
    assert asked.chunks[-1].image == "a4.png"


def test_the_true_caption_is_never_in_the_prompt():
    texts = {chunk.text for chunk in prompt(document("a"), shots=4, seed=0).chunks}
    assert texts == {f"a caption {i}" for i in range(4)} | {None}


def test_zero_shots_show_the_query_picture_alone():
    assert list(prompt(document("a"), 0, 0).chunks) == [Chunk("a4.png")]


def test_more_shots_add_examples_and_change_none():
    few, many = (prompt(document("a"), shots, seed=3).chunks for shots in (2, 4))
    assert list(many[-3:]) == list(few)


def test_the_seed_draws_other_examples():
    drawn = {prompt(document("a"), 1, seed).chunks[0].text for seed in range(20)}
    assert len(drawn) == 4


def test_swapped_prompts_keep_the_support_and_take_another_query_picture():
    documents = [document("a"), document("b"), document("c")]
    real, swapped = (prompts_for(documents, 2, 0, swapped) for swapped in (False, True))
    for one, other in zip(real, swapped, strict=True):
        assert one.chunks[:-1] == other.chunks[:-1]
    assert [each.chunks[-1].image for each in swapped] == ["b4.png", "c4.png", "a4.png"]


def test_more_shots_than_the_support_set_are_refused():
    with pytest.raises(ValueError, match="asks for 5 but the support set of 'a' holds 4"):
        check_shots([document("a"), document("b", 6)], [0, 5])


def test_queries_are_read_from_shards(tmp_path: Path):
    samples = {f"{i}": tiny.interleaved(["one", "two"], i) for i in range(3)}
    shard = tiny.write_shard(tmp_path / "0.tar", samples)
    queries = load_queries(Task("t", str(shard)), limit=2)
    assert [query.key for query in queries] == ["0", "1"]
    assert queries[0].chunks[-1].text == "two"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: t\nshards: x\nshots: 3\n", r"unknown fields \['shots'\]"),
        ("name: t\n", r"missing fields \['shards'\]"),
        ("name: t\nshards: x\ndecoding: {beam: 3}\n", "field 'decoding'.*'beam'"),
    ],
)
def test_a_wrong_task_file_is_told(tmp_path: Path, text, message):
    file = tmp_path / "task.yaml"
    file.write_text(text)
    with pytest.raises(ValueError, match=message):
        load_task(str(file))


def test_a_query_without_its_facts_is_told():
    vocabulary = {"objects": {"cat": ["cat"]}}
    with pytest.raises(ValueError, match=r"'a' lacks the facts \['objects'\]"):
        check_facts([document("a")], vocabulary)


def test_a_missing_vocabulary_is_told(tmp_path: Path):
    with pytest.raises(ValueError, match=r"no vocabulary file .*nope\.json"):
        load_vocabulary(Task("t", "x", str(tmp_path / "nope.json")))


def test_an_unknown_task_names_the_known_ones():
    with pytest.raises(ValueError, match="embedded"):
        load_task("nothing")
