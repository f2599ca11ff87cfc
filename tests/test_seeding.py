"""A generator for any text, and the usual one for usual texts."""

import random

from miniflamingo.seeding import seeded


def test_usual_texts_give_pythons_own_generator():
    assert seeded("0-1-café").random() == random.Random("0-1-café").random()


def test_names_that_are_no_utf8_differ():
    draws = {seeded(f"0-{name}").random() for name in ("caf\udce9", "caf\udcea", "cafe")}
    assert len(draws) == 3
