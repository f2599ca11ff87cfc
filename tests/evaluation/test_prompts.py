"""From examples to the documents that the model completes."""

from pathlib import Path

import pytest

from miniflamingo import Chunk
from miniflamingo.evaluation.example import Example, make_example
from miniflamingo.evaluation.prompts import (
    Prompt,
    check_context,
    clean,
    continuation,
    drawn_answer,
    make_prompt,
    permuted,
    with_pictures,
)
from miniflamingo.evaluation.tasks import Task
from miniflamingo.generation.reader import Reader

TASK = Task("t", {}, template="Question: {question} Answer: {answer}", separator=";")
PLAIN = Task("p", {})


def example(key: str, *answers: str, question: str = "") -> Example:
    return make_example(key, f"{key}.png", answers or (f"a {key}",), "f", question)


SUPPORT = [example("cat", question="who?"), example("dog", question="{what}?")]
QUERY = example("query", question="where?")


def test_solved_examples_come_first_and_the_query_last_and_open():
    prompt = make_prompt(TASK, QUERY, SUPPORT, 2, 0)
    assert list(prompt.document.chunks) == [
        Chunk("cat.png", "Question: who? Answer: a cat;"),
        Chunk("dog.png", "Question: {what}? Answer: a dog;"),
        Chunk("query.png", "Question: where? Answer:", unfinished=True),
    ]
    assert prompt.support == ("cat", "dog")
    assert continuation(TASK, "where?", "here") == " here"


def test_without_a_template_the_query_is_its_picture():
    prompt = make_prompt(PLAIN, QUERY, SUPPORT, 2, 0)
    assert prompt.document.chunks[-1] == Chunk("query.png")
    assert prompt.document.chunks[0] == Chunk("cat.png", "a cat")
    assert continuation(PLAIN, "", "here") == "here"


def test_an_empty_vote_is_never_shown():
    blank = make_example("s", "s.png", ["", "", "yes", ""], "f", votes=True)
    for seed in range(5):
        assert drawn_answer(QUERY, blank, seed) == "yes"


def test_the_papers_zero_shots_show_two_examples_without_pictures():
    prompt = make_prompt(TASK, QUERY, SUPPORT, 0, 0)
    assert [chunk.image for chunk in prompt.document.chunks] == [None, None, "query.png"]
    assert prompt.document.chunks[0].text == "Question: who? Answer: a cat;"
    assert prompt.support == ("cat", "dog")
    assert make_prompt(TASK, QUERY, [], 0, 0).document.num_media == 1


def test_answers_are_drawn_among_the_annotators_by_seed():
    many = example("many", "one", "two", "three")
    texts = [
        make_prompt(PLAIN, QUERY, [many], 1, seed).document.chunks[0].text for seed in range(20)
    ]
    assert set(texts) == {"one", "two", "three"}
    again = make_prompt(PLAIN, QUERY, [*SUPPORT, many], 3, 7).document.chunks[2].text
    assert again == texts[7]  # more shots change no answer


def prompts(*keys: str) -> list[Prompt]:
    made = []
    for key in keys:
        support = [example(f"{key}{i}") for i in range(2)]
        made.append(make_prompt(PLAIN, example(key), support, 2, 0))
    return made


def images(documents) -> list[list]:
    return [[chunk.image for chunk in document.chunks] for document in documents]


def test_a_swapped_query_keeps_text_and_support():
    real, swapped = (with_pictures(prompts("a", "b", "c"), c) for c in ("real", "query_swapped"))
    assert images(real)[0] == ["a0.png", "a1.png", "a.png"]
    assert images(swapped) == [
        ["a0.png", "a1.png", "b.png"],
        ["b0.png", "b1.png", "c.png"],
        ["c0.png", "c1.png", "a.png"],
    ]
    for one, other in zip(real, swapped, strict=True):
        assert [chunk.text for chunk in one.chunks] == [chunk.text for chunk in other.chunks]


def test_a_shuffled_support_keeps_text_and_query():
    shuffled = with_pictures(prompts("a", "b"), "support_shuffled")
    assert images(shuffled) == [["b0.png", "b1.png", "a.png"], ["a0.png", "a1.png", "b.png"]]


def test_queries_about_one_picture_are_not_swapped_with_each_other():
    one, two, three = prompts("a", "b", "c")
    same = two._replace(query=two.query._replace(image="a.png"))
    swapped = with_pictures([one, same, three], "query_swapped")
    assert images(swapped)[0][-1] == "c.png"
    with pytest.raises(ValueError, match="all 2 queries ask about the picture of 'a'"):
        with_pictures([one, same], "query_swapped")


def test_permutations_change_the_order_alone():
    support = [example(str(i)) for i in range(5)]
    document = make_prompt(PLAIN, QUERY, support, 5, 0).document
    orders = {tuple(permuted(document, i).chunks) for i in range(6)}
    assert len(orders) > 3
    assert permuted(document, 0) == document
    assert all(order[-1] == document.chunks[-1] for order in orders)
    assert all(set(order) == set(document.chunks) for order in orders)


@pytest.mark.parametrize(
    ("completion", "answer"),
    [
        (" two  cats\nOutput: a dog", "two cats"),
        ("a cat Question: who?", "a cat"),
        ("", ""),
        ("a\tcat ", "a cat"),
    ],
)
def test_an_answer_ends_where_the_next_example_would_begin(completion, answer):
    assert clean(completion, ["\n", "Question:"]) == answer


def test_prompts_that_exceed_the_context_name_the_shots_that_fit(model, processor):
    reader = Reader(model, processor)
    support = [example(str(i), "a red cat on a green background. " * 2) for i in range(8)]
    made = [make_prompt(PLAIN, QUERY, support, 8, 0), make_prompt(PLAIN, QUERY, support[:7], 8, 0)]
    lengths = [len(reader.encode(prompt.document).input_ids) for prompt in made]
    per_shot = lengths[0] - lengths[1]
    room = 128 - 1 - 10  # context, query, answer
    assert lengths[0] > 128 - 10
    message = f"up to {lengths[0]} tokens; with 10 .* of 128. At most {room // per_shot} shots fit"
    with pytest.raises(ValueError, match=message):
        check_context(reader, made, 10)
    check_context(reader, [make_prompt(PLAIN, QUERY, support[: room // per_shot], 8, 0)], 10)


def test_pictures_count_as_one_token_and_are_not_opened(model, processor):
    shown = make_prompt(PLAIN, QUERY, [example("gone")], 1, 0)
    check_context(Reader(model, processor), [shown], 3)
    assert not Path("gone.png").exists()
