import random
from collections import Counter

import pytest

from data_prep.embedded.scenes import (
    COLOURS,
    PICTURE,
    Box,
    Scene,
    Sprites,
    draw,
    is_held_out,
    load_kinds,
    sample_scene,
)


def scenes(held_out, num=3000, seed=0):
    rng = random.Random(seed)
    return [sample_scene(rng, held_out) for _ in range(num)]


def overlap(a, b):
    apart = a.x + a.size <= b.x or b.x + b.size <= a.x or a.y + a.size <= b.y or b.y + b.size <= a.y
    return not apart


def test_objects_lie_inside_the_picture_and_do_not_overlap():
    for scene in scenes(held_out=False):
        for box in scene.boxes:
            assert min(box.x, box.y) > 0
            assert max(box.x, box.y) + box.size < PICTURE
        pairs = [(a, b) for i, a in enumerate(scene.boxes) for b in scene.boxes[:i]]
        assert not any(overlap(a, b) for a, b in pairs)


def test_relations_are_those_of_the_boxes():
    for scene in scenes(held_out=True):
        if scene.relation is None:
            assert len(scene.kinds) == 1
            continue
        first, second = scene.boxes
        near, far = (first.x, second.x) if scene.relation == "left" else (first.y, second.y)
        assert near + first.size <= far


def test_the_three_sorts_of_scene_are_about_equally_likely():
    sorts = Counter(min(s.count, 2) if s.relation is None else 3 for s in scenes(held_out=False))
    assert all(0.3 < sorts[sort] / 3000 < 0.37 for sort in (1, 2, 3))


def test_held_out_compositions_never_appear_in_training():
    train = {scene.composition for scene in scenes(held_out=False)}
    held_out = {scene.composition for scene in scenes(held_out=True)}
    assert not train & held_out


def test_about_a_fifth_of_the_compositions_is_held_out():
    kinds, boxes = list(load_kinds()), (Box(0, 0, 1),) * 2
    pairs = [Scene((a, b), "left", "red", (0, 0, 0), boxes) for a in kinds for b in kinds if a < b]
    assert 0.18 < sum(map(is_held_out, pairs)) / len(pairs) < 0.22


def test_swapping_two_kinds_is_the_same_composition():
    boxes = (Box(0, 0, 1), Box(2, 0, 1))
    one = Scene(("cat", "dog"), "above", "red", (0, 0, 0), boxes)
    other = Scene(("dog", "cat"), "above", "red", (0, 0, 0), boxes)
    beside = Scene(("dog", "cat"), "left", "red", (0, 0, 0), boxes)
    assert one.composition == other.composition != beside.composition


def test_every_kind_and_colour_appears_in_training():
    train = scenes(held_out=False)
    assert {kind for scene in train for kind in scene.kinds} == set(load_kinds())
    assert {scene.colour for scene in train} == set(COLOURS)


def test_the_same_seed_gives_the_same_scenes():
    assert scenes(held_out=True, num=20, seed=3) == scenes(held_out=True, num=20, seed=3)
    assert scenes(held_out=True, num=20, seed=3) != scenes(held_out=True, num=20, seed=4)


def test_a_picture_shows_its_objects_on_its_background(sprites):
    boxes = (Box(10, 30, 50), Box(70, 30, 50))
    picture = draw(Scene(("cat", "dog"), "left", "red", (200, 10, 20), boxes), sprites)
    assert picture.size == (PICTURE, PICTURE)
    assert picture.getpixel((2, 2)) == (200, 10, 20)
    colours = [picture.getpixel((box.x + 25, box.y + 25)) for box in boxes]
    assert len({(200, 10, 20), *colours}) == 3


def test_a_sprite_is_cut_to_its_edges_and_fills_its_box(sprites):
    sprite = sprites.get("cat", 48)
    assert max(sprite.size) == 48
    assert sprite.getchannel("A").getbbox() == (0, 0, *sprite.size)


def test_missing_drawings_are_named(tmp_path):
    with pytest.raises(ValueError, match="has no SVG picture for cat, dog"):
        Sprites(tmp_path)
