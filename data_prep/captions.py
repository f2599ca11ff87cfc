"""Captions of scenes, in many styles.

A style is a handful of independent choices. Most of them show only in some captions (the number
wording needs a counted scene, the relation wording two kinds, the adjective for food some food),
so that one example does not give a style away: every further one can still teach something.
"""

import random
import re
from dataclasses import astuple, dataclass
from typing import Literal

from data_prep.embedded.scenes import COLOURS, Scene, load_kinds, stable_hash

Split = Literal["train", "validation", "fewshot"]

FRAMES = (
    "{things} on {a_colour} background.",
    "a picture of {things}, in front of {colour}.",
    "{colour} background: {things}",
    "{things}, drawn on {colour}",
    "this shows {things} against {colour}.",
    "on {colour}, {things}",
)
NUMBERS = (
    {2: "two", 3: "three", 4: "four"},
    {2: "2", 3: "3", 4: "4"},
    {2: "a pair of", 3: "a trio of", 4: "a quartet of"},
)
RELATIONS = {
    "left": (
        "{first} left of {second}",
        "{second} right of {first}",
        "{first}, with {second} to its right",
    ),
    "above": (
        "{first} above {second}",
        "{second} below {first}",
        "{first}, with {second} under it",
    ),
}
COLOUR_WORDS = ("", "plain ", "solid ")
ADJECTIVES = ("", "little ", "cartoon ")
WARM = ("red", "orange", "yellow", "pink", "brown")


@dataclass(frozen=True)
class Style:
    """One way to word captions: an index for each choice.

    Attributes:
        frame: The sentence around colour and things; shows in every caption.
        number: How two, three and four are said.
        relation: How left, right, above and below are said.
        warm: The word before a warm background colour.
        cool: The word before any other background colour.
        animals: The word before animals.
        food: The word before food.
        vehicles: The word before vehicles.
        things: The word before everything else.
    """

    frame: int
    number: int
    relation: int
    warm: int
    cool: int
    animals: int
    food: int
    vehicles: int
    things: int

    @property
    def split(self) -> Split:
        """Which part of the data uses this style: four fifths train, a tenth each the others."""
        bucket = stable_hash(f"style: {astuple(self)}") % 10
        return "validation" if bucket == 0 else "fewshot" if bucket == 1 else "train"


def sample_style(rng: random.Random, split: Split) -> Style:
    """Draw a random style of a split."""
    while True:
        style = Style(
            frame=rng.randrange(len(FRAMES)),
            number=rng.randrange(len(NUMBERS)),
            relation=rng.randrange(len(RELATIONS["left"])),
            warm=rng.randrange(len(COLOUR_WORDS)),
            cool=rng.randrange(len(COLOUR_WORDS)),
            animals=rng.randrange(len(ADJECTIVES)),
            food=rng.randrange(len(ADJECTIVES)),
            vehicles=rng.randrange(len(ADJECTIVES)),
            things=rng.randrange(len(ADJECTIVES)),
        )
        if style.split == split:
            return style


def caption(scene: Scene, style: Style) -> str:
    """Say what a scene shows, in a style."""
    word = COLOUR_WORDS[style.warm if scene.colour in WARM else style.cool]
    colour = word + scene.colour
    return FRAMES[style.frame].format(
        things=_things(scene, style), colour=colour, a_colour=with_article(colour)
    )


def with_article(words: str) -> str:
    """Put "a" or "an" in front."""
    return f"an {words}" if words[0] in "aeiou" else f"a {words}"


def facts(scene: Scene) -> dict[str, list[str]]:
    """List what a caption of the scene must say, as keys of ``vocabulary``."""
    axis = {"left": "horizontal", "above": "vertical"}
    return {
        "objects": sorted(scene.kinds),
        "counts": [str(scene.count)] if scene.relation is None and scene.count > 1 else [],
        "colours": [scene.colour],
        "relations": [axis[scene.relation]] if scene.relation else [],
    }


def vocabulary() -> dict[str, dict[str, list[str]]]:
    """Map each fact to the words that mention it, whatever the style.

    No word mentions two facts, and no other word of a caption is among them.
    """
    counts = {
        str(count): [phrase[count].removeprefix("a ").removesuffix(" of") for phrase in NUMBERS]
        for count in NUMBERS[0]
    }
    return {
        "objects": {k.name: sorted({k.name, k.plural}) for k in load_kinds().values()},
        "counts": counts,
        "colours": {colour: [colour] for colour in COLOURS},
        "relations": {"horizontal": ["left", "right"], "vertical": ["above", "below", "under"]},
    }


def words_of_captions() -> list[str]:
    """List every word and sign that captions are made of, sorted."""
    phrases = [*FRAMES, *COLOUR_WORDS, *ADJECTIVES, *COLOURS, "a an"]
    phrases += [phrase for wording in NUMBERS for phrase in wording.values()]
    phrases += [wording for wordings in RELATIONS.values() for wording in wordings]
    phrases += [f"{kind.name} {kind.plural}" for kind in load_kinds().values()]
    text = " ".join(re.sub(r"{\w+}", " ", phrase) for phrase in phrases)
    return sorted(set(re.findall(r"\w+|[^\w\s]+", text)))


def _things(scene: Scene, style: Style) -> str:
    kinds = [load_kinds()[name] for name in scene.kinds]
    adjectives = [ADJECTIVES[getattr(style, kind.category)] for kind in kinds]
    if scene.relation is None and scene.count > 1:
        return f"{NUMBERS[style.number][scene.count]} {adjectives[0]}{kinds[0].plural}"
    singles = [with_article(a + k.name) for a, k in zip(adjectives, kinds, strict=True)]
    if scene.relation is None:
        return singles[0]
    wording = RELATIONS[scene.relation][style.relation]
    return wording.format(first=singles[0], second=singles[1])
