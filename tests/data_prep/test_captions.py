import random
import re
from collections import Counter
from dataclasses import asdict, fields

import pytest

from data_prep.captions import (
    Style,
    caption,
    facts,
    sample_style,
    vocabulary,
    with_article,
    words_of_captions,
)
from data_prep.embedded.scenes import Box, Scene, load_kinds, sample_scene

STYLE = Style(
    frame=0, number=0, relation=0, warm=0, cool=0, animals=0, food=0, vehicles=0, things=0
)


def scene(kinds=("cat",), relation=None, colour="red", count=1):
    return Scene(tuple(kinds), relation, colour, (0, 0, 0), (Box(0, 0, 1),) * count)


def samples(num=2000):
    rng = random.Random(7)
    for index in range(num):
        drawn = sample_scene(rng, held_out=index % 2 == 0)
        yield drawn, caption(drawn, sample_style(rng, "train"))


def mentioned(text, forms):
    """The values whose forms occur as whole words, as a scorer finds them."""
    return sorted(
        value
        for value, words in forms.items()
        if any(re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text) for word in words)
    )


def test_every_caption_mentions_exactly_the_facts_of_its_scene():
    forms = vocabulary()
    for drawn, text in samples():
        assert {field: mentioned(text, forms[field]) for field in forms} == facts(drawn), text


def test_relations_are_said_the_right_way_round():
    names = {form: kind.name for kind in load_kinds().values() for form in (kind.name,)}
    for drawn, text in samples():
        if drawn.relation is None:
            continue
        said = [names[word] for word in re.findall(r"\w+", text) if word in names]
        turned = re.search(r"right of|below", text) is not None
        assert tuple(reversed(said) if turned else said) == drawn.kinds, text


def test_no_word_mentions_two_facts():
    words = [w for forms in vocabulary().values() for ws in forms.values() for w in ws]
    assert [word for word, times in Counter(words).items() if times > 1] == []


def test_captions_are_made_of_the_listed_words():
    known = set(words_of_captions())
    lengths = []
    for _, text in samples():
        words = re.findall(r"\w+|[^\w\s]+", text)
        lengths.append(len(words))
        assert set(words) <= known, text
        assert "  " not in text
    assert 8 < sum(lengths) / len(lengths) < 14
    assert max(lengths) <= 21


@pytest.mark.parametrize(
    ("drawn", "choices", "text"),
    [
        (scene(("owl",), colour="orange"), {}, "an owl on an orange background."),
        (scene(("fish",), count=3), {"number": 2}, "a trio of fish on a red background."),
        (scene(("tooth",), count=2), {"number": 1}, "2 teeth on a red background."),
        (scene(("owl",), count=4), {"animals": 1}, "four little owls on a red background."),
        (scene(("taco",)), {"animals": 1, "warm": 1}, "a taco on a plain red background."),
        (
            scene(("cat", "egg"), "left", "blue", 2),
            {"frame": 5, "cool": 2, "food": 2},
            "on solid blue, a cat left of a cartoon egg",
        ),
        (
            scene(("cat", "egg"), "above", "blue", 2),
            {"frame": 2, "relation": 1},
            "blue background: an egg below a cat",
        ),
        (
            scene(("cat", "egg"), "left", "blue", 2),
            {"frame": 1, "relation": 2},
            "a picture of a cat, with an egg to its right, in front of blue.",
        ),
    ],
)
def test_captions(drawn, choices, text):
    assert caption(drawn, Style(**(asdict(STYLE) | choices))) == text


def test_plurals_and_articles_of_all_kinds():
    irregular = {k.name: k.plural for k in load_kinds().values() if k.plural != k.name + "s"}
    assert irregular["fox"] == "foxes"
    assert irregular["sheep"] == "sheep"
    assert irregular["butterfly"] == "butterflies"
    assert with_article("octopus") == "an octopus"
    assert with_article("cat") == "a cat"


def test_held_out_styles_are_in_no_other_split():
    rng = random.Random(0)
    drawn = {split: sample_style(rng, split) for split in ("train", "validation", "fewshot")}
    assert all(style.split == split for split, style in drawn.items())
    styles = [Style(*(rng.randrange(3) for _ in fields(Style))) for _ in range(4000)]
    shares = Counter(style.split for style in styles)
    assert 0.78 < shares["train"] / 4000 < 0.82
    assert 0.08 < shares["fewshot"] / 4000 < 0.12


def test_the_split_of_a_style_does_not_change_between_versions():
    assert STYLE.split == "train"
    assert Style(5, 2, 2, 2, 2, 2, 2, 2, 2).split == "train"


def test_styles_show_only_in_some_captions():
    """Every choice but the frame leaves some captions as they are, and changes others."""
    rng = random.Random(1)
    drawn = [sample_scene(rng, held_out=False) for _ in range(300)]
    plain = [caption(s, STYLE) for s in drawn]
    for choice in [f.name for f in fields(Style) if f.name != "frame"]:
        other = Style(**(asdict(STYLE) | {choice: 1}))
        changed = [caption(s, other) != text for s, text in zip(drawn, plain, strict=True)]
        assert 0 < sum(changed) < len(drawn), choice
