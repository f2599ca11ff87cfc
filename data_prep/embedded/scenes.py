"""The embedded world: which scenes there are, which are held out, and how they are drawn.

A scene is one object, two to four objects of one kind, or two different kinds side by side or
one above the other, on a coloured background. It says exactly where everything is, so drawing is
a pure function of the scene and the sprites.
"""

import csv
import hashlib
import io
import random
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import resvg_py
from PIL import Image

from miniflamingo.errors import UserError

PICTURE = 128  # pixels, width and height of every scene
OBJECTS_FILE = Path(__file__).with_name("objects.csv")
HELD_OUT = 5  # one composition in five is kept for evaluation

# Light enough for the black outlines of the drawings, and easy to tell apart.
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (232, 84, 80),
    "orange": (250, 160, 60),
    "yellow": (250, 224, 84),
    "pink": (250, 172, 206),
    "brown": (164, 122, 88),
    "green": (112, 190, 104),
    "blue": (104, 158, 234),
    "purple": (164, 118, 212),
    "grey": (168, 168, 168),
    "white": (250, 250, 250),
}
COLOUR_JITTER = 6  # each channel, of 255

Relation = Literal["left", "above"]


@dataclass(frozen=True)
class Kind:
    """A kind of object: its name, its plural, what it belongs to, and its drawing's code point."""

    name: str
    plural: str
    category: str
    codepoint: str


@dataclass(frozen=True)
class Box:
    """A square in pixels; an object is centred in it and fills it along its longer side."""

    x: int
    y: int
    size: int


@dataclass(frozen=True)
class Scene:
    """Everything a picture shows.

    Attributes:
        kinds: Names; two only if they stand in a relation.
        relation: How the first of two kinds stands to the second; None for one kind.
        colour: The background's name.
        tint: The background as drawn, RGB.
        boxes: One for each object; for two kinds in the order of ``kinds``.
    """

    kinds: tuple[str, ...]
    relation: Relation | None
    colour: str
    tint: tuple[int, int, int]
    boxes: tuple[Box, ...]

    @property
    def count(self) -> int:
        """How many objects there are."""
        return len(self.boxes)

    @property
    def composition(self) -> str:
        """What is held out or not: the kinds, and their number or the axis they are set along."""
        if self.relation is None:
            return f"{self.count} {self.kinds[0]}"
        axis = {"left": "beside", "above": "stacked"}[self.relation]
        return f" {axis} ".join(sorted(self.kinds))


@cache
def load_kinds() -> dict[str, Kind]:
    """Read the kinds of object by name, in the file's order."""
    with OBJECTS_FILE.open(newline="") as file:
        return {row["name"]: Kind(**row) for row in csv.DictReader(file)}


def stable_hash(text: str) -> int:
    """Hash text to the same number in every process and on every machine."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def is_held_out(scene: Scene) -> bool:
    """Say whether the scene's composition is kept for evaluation."""
    return stable_hash(f"composition: {scene.composition}") % HELD_OUT == 0


def sample_scene(rng: random.Random, held_out: bool) -> Scene:
    """Draw a random scene, from the held-out compositions or from the others.

    The three sorts of scene are equally likely.
    """
    sort = rng.choice(["one", "several", "two kinds"])
    while True:
        scene = _sample_any(rng, sort)
        if is_held_out(scene) == held_out:
            return scene


def _sample_any(rng: random.Random, sort: str) -> Scene:
    names = list(load_kinds())
    colour = rng.choice(list(COLOURS))
    red, green, blue = (
        max(0, min(255, c + rng.randint(-COLOUR_JITTER, COLOUR_JITTER))) for c in COLOURS[colour]
    )
    tint = (red, green, blue)
    if sort == "one":
        return Scene((rng.choice(names),), None, colour, tint, _one_box(rng))
    if sort == "several":
        boxes = _several_boxes(rng, rng.choice([2, 3, 4]))
        return Scene((rng.choice(names),), None, colour, tint, boxes)
    relation: Relation = rng.choice(["left", "above"])
    kinds = tuple(rng.sample(names, 2))
    return Scene(kinds, relation, colour, tint, _pair_boxes(rng, relation == "left"))


def _one_box(rng: random.Random) -> tuple[Box, ...]:
    size = rng.randint(PICTURE * 5 // 8, PICTURE * 25 // 32)
    return (_place(rng, (0, 0, PICTURE, PICTURE), size),)


def _pair_boxes(rng: random.Random, beside: bool) -> tuple[Box, ...]:
    """Place two objects in two halves, nearly level so that their relation is plain."""
    half, quarter = PICTURE // 2, PICTURE // 4
    wobble = PICTURE // 16
    boxes = []
    for place in range(2):
        size = rng.randint(PICTURE * 7 // 16, PICTURE * 31 // 64)
        start = place * half
        low, high = quarter - wobble, quarter + half + wobble
        cell = (start, low, start + half, high) if beside else (low, start, high, start + half)
        boxes.append(_place(rng, cell, size))
    return tuple(boxes)


def _several_boxes(rng: random.Random, count: int) -> tuple[Box, ...]:
    """Place two to four objects, each in a cell of its own."""
    if count == 2:
        return _pair_boxes(rng, beside=rng.random() < 0.5)
    half, quarter = PICTURE // 2, PICTURE // 4
    corners = [(0, 0), (half, 0), (0, half), (half, half)]
    if count == 3:
        corners = [(quarter, 0), (0, half), (half, half)]
        if rng.random() < 0.5:
            corners = [(x, half - y) for x, y in corners]
    sizes = (PICTURE * 3 // 8, PICTURE * 7 // 16)
    return tuple(_place(rng, (x, y, x + half, y + half), rng.randint(*sizes)) for x, y in corners)


def _place(rng: random.Random, cell: tuple[int, int, int, int], size: int) -> Box:
    """Put a box somewhere inside a cell (left, top, right, bottom), with a pixel to spare."""
    left, top, right, bottom = cell
    x = rng.randint(left + 1, max(left + 1, right - size - 1))
    y = rng.randint(top + 1, max(top + 1, bottom - size - 1))
    return Box(x, y, size)


class Sprites:
    """The drawings, rasterised once each and kept.

    Args:
        folder: Where OpenMoji's SVG files lie, at any depth.
    """

    def __init__(self, folder: Path) -> None:
        """Find the drawings; each is read when it is first needed."""
        self._files = {path.stem: path for path in folder.rglob("*.svg")}
        missing = [k.name for k in load_kinds().values() if k.codepoint not in self._files]
        if missing:
            raise UserError(
                f"{folder} has no SVG picture for {', '.join(missing)}. "
                "Delete that folder and run the command again."
            )
        self._drawings: dict[str, Image.Image] = {}
        self._sized: dict[tuple[str, int], Image.Image] = {}

    def get(self, name: str, size: int) -> Image.Image:
        """Return an object's drawing (RGBA), cut to its edges, its longer side ``size`` pixels."""
        if (name, size) not in self._sized:
            drawing = self._drawing(name)
            scale = size / max(drawing.size)
            shape = (max(1, round(drawing.width * scale)), max(1, round(drawing.height * scale)))
            self._sized[name, size] = drawing.resize(shape, Image.Resampling.LANCZOS)
        return self._sized[name, size]

    def _drawing(self, name: str) -> Image.Image:
        if name not in self._drawings:
            svg = self._files[load_kinds()[name].codepoint].read_text()
            png = bytes(
                resvg_py.svg_to_bytes(svg_string=svg, width=2 * PICTURE, height=2 * PICTURE)
            )
            drawing = Image.open(io.BytesIO(png)).convert("RGBA")
            self._drawings[name] = drawing.crop(drawing.getchannel("A").getbbox())
        return self._drawings[name]


def draw(scene: Scene, sprites: Sprites) -> Image.Image:
    """Draw a scene.

    Returns:
        An RGB picture of ``PICTURE`` by ``PICTURE`` pixels.
    """
    picture = Image.new("RGB", (PICTURE, PICTURE), scene.tint)
    kinds = scene.kinds if scene.relation else scene.kinds * scene.count
    for kind, box in zip(kinds, scene.boxes, strict=True):
        sprite = sprites.get(kind, box.size)
        corner = (box.x + (box.size - sprite.width) // 2, box.y + (box.size - sprite.height) // 2)
        picture.paste(sprite, corner, sprite)
    return picture
