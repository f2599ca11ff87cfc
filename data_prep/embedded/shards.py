"""Write the embedded world as WebDataset shards: pairs, documents, validation and few-shot."""

import io
import json
import random
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from tqdm import tqdm

from data_prep.captions import Split, Style, caption, facts, sample_style, vocabulary
from data_prep.disk import require_disk_space
from data_prep.embedded.scenes import PICTURE, Scene, Sprites, draw, sample_scene
from data_prep.shards import write_json, write_shard
from data_prep.wheels import OPENMOJI
from miniflamingo.errors import UserError

WORLD_VERSION = 1  # raise it when the same arguments give other shards
CHUNKS = 9
TRAIN_SHARDS = 16  # for pairs and for documents
JPEG_QUALITY = 92
BYTES_PER_PICTURE = 7000  # generous, tar padding included

CREDITS = f"""# Credits

All emojis designed by OpenMoji (https://openmoji.org/) - the open-source emoji and icon project.
License: CC BY-SA 4.0 (https://creativecommons.org/licenses/by-sa/4.0/).

The pictures in these shards are made from them: rasterised, scaled and set on coloured
backgrounds. The pictures are therefore licensed under CC BY-SA 4.0 too. Taken from the Python
wheel `{OPENMOJI.name}` {OPENMOJI.version}.
"""


@dataclass(frozen=True)
class WorldArguments:
    """How much of the world to write.

    Attributes:
        seed: Everything follows from it.
        pairs: Training pictures with one caption each.
        documents: Training documents of nine captioned pictures in one style.
        validation: Held-out documents to watch training with.
        fewshot: Held-out documents whose last chunk is the query.
    """

    seed: int = 0
    pairs: int = 20000
    documents: int = 4000
    validation: int = 64
    fewshot: int = 250

    def __post_init__(self) -> None:
        """Refuse sizes below zero."""
        negative = [name for name, value in asdict(self).items() if name != "seed" and value < 0]
        if negative:
            raise UserError(f"{', '.join(negative)} must not be negative.")

    @property
    def pictures(self) -> int:
        """How many pictures that makes."""
        return self.pairs + CHUNKS * (self.documents + self.validation + self.fewshot)


def write_world(folder: Path, arguments: WorldArguments, sprites_folder: Path) -> Path:
    """Write all shards, unless the manifest says that they are there.

    Args:
        folder: Gets ``pairs/``, ``documents/``, ``validation/``, ``fewshot/``, ``manifest.json``
            (written last) and ``CREDITS.md``.
        arguments: What to write.
        sprites_folder: Where OpenMoji's SVG files lie.

    Returns:
        The manifest's path.

    Raises:
        UserError: If the folder holds a world made with other arguments.
        OSError: If the disk is too full.
    """
    manifest = folder / "manifest.json"
    if _is_done(manifest, arguments):
        return manifest
    require_disk_space(folder, arguments.pictures * BYTES_PER_PICTURE, "the embedded data")
    sprites = Sprites(sprites_folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("pairs", "documents", "validation", "fewshot"):
        for leftover in (folder / name).glob("*.tar*"):
            leftover.unlink()
    shards: dict[str, dict[str, Any]] = {}
    with tqdm(total=arguments.pictures, unit="picture", desc="embedded data") as progress:
        for path, samples in _plan(folder, arguments, sprites):
            record = write_shard(path, _counted(samples, progress))
            shards[str(path.relative_to(folder))] = {
                "samples": record.samples,
                "bytes": record.bytes,
                "sha256": record.sha256,
            }
    (folder / "fewshot").mkdir(exist_ok=True)
    write_json(folder / "fewshot" / "vocabulary.json", vocabulary())
    (folder / "CREDITS.md").write_text(CREDITS)
    write_json(
        manifest,
        {
            "version": WORLD_VERSION,
            "arguments": asdict(arguments),
            "picture_size": PICTURE,
            "source": f"OpenMoji, from the wheel {OPENMOJI.name} {OPENMOJI.version}",
            "license": "CC-BY-SA-4.0 (pictures); see CREDITS.md",
            "shards": shards,
        },
    )
    return manifest


def pair_sample(seed: int, index: int, sprites: Sprites) -> dict[str, Any]:
    """Make one training picture with its caption, in a style of its own."""
    rng = random.Random(f"{seed} pairs {index}")
    style = sample_style(rng, "train")
    scene = sample_scene(rng, held_out=False)
    return {
        "__key__": f"pairs-{index:06d}",
        "jpg": jpeg(scene, sprites),
        "txt": caption(scene, style),
    }


def document_sample(seed: int, split: Split, index: int, sprites: Sprites) -> dict[str, Any]:
    """Make one document: nine captioned pictures in one style.

    A few-shot document also lists the facts of its last picture, the query.
    """
    rng = random.Random(f"{seed} documents {split} {index}")
    style = sample_style(rng, split)
    scenes = sample_scenes(rng, split)
    content = document_json(scenes, style)
    if split == "fewshot":
        content["facts"] = facts(scenes[-1])
    name = "documents" if split == "train" else split
    pictures = {f"{place}.jpg": jpeg(scene, sprites) for place, scene in enumerate(scenes)}
    encoded = json.dumps(content).encode()
    return {"__key__": f"{name}-{index:06d}", "json": encoded, **pictures}


def sample_scenes(rng: random.Random, split: Split) -> list[Scene]:
    """Draw a document's scenes, no composition twice."""
    scenes: dict[str, Scene] = {}
    while len(scenes) < CHUNKS:
        scene = sample_scene(rng, held_out=split != "train")
        scenes.setdefault(scene.composition, scene)
    return list(scenes.values())


def document_json(scenes: list[Scene], style: Style) -> dict[str, Any]:
    """Describe a document: which picture and which text each chunk has."""
    chunks = [
        {"image": f"{place}.jpg", "text": caption(scene, style)}
        for place, scene in enumerate(scenes)
    ]
    return {"chunks": chunks, "style": asdict(style)}


def jpeg(scene: Scene, sprites: Sprites) -> bytes:
    """Draw a scene and encode it."""
    buffer = io.BytesIO()
    draw(scene, sprites).save(buffer, "JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue()


Shard = tuple[Path, Iterator[dict[str, Any]]]


def _plan(folder: Path, arguments: WorldArguments, sprites: Sprites) -> Iterator[Shard]:
    """List every shard: its path, and its samples, made when asked for."""
    seed = arguments.seed
    for name, total, num_shards in [
        ("pairs", arguments.pairs, TRAIN_SHARDS),
        ("documents", arguments.documents, TRAIN_SHARDS),
        ("validation", arguments.validation, 1),
        ("fewshot", arguments.fewshot, 1),
    ]:
        for shard, indices in enumerate(_split_evenly(total, num_shards)):
            path = folder / name / f"{shard:06d}.tar"
            yield path, _samples(name, seed, indices, sprites)


def _samples(name: str, seed: int, indices: range, sprites: Sprites) -> Iterator[dict[str, Any]]:
    splits: dict[str, Split] = {
        "documents": "train",
        "validation": "validation",
        "fewshot": "fewshot",
    }
    for index in indices:
        if name == "pairs":
            yield pair_sample(seed, index, sprites)
        else:
            yield document_sample(seed, splits[name], index, sprites)


def _split_evenly(total: int, parts: int) -> list[range]:
    """Cut ``range(total)`` into at most ``parts`` pieces of nearly equal length, none empty."""
    edges = [total * part // parts for part in range(parts + 1)]
    pieces = [range(start, end) for start, end in pairwise(edges)]
    return [piece for piece in pieces if piece]


def _counted(samples: Iterable[dict[str, Any]], progress: tqdm) -> Iterator[dict[str, Any]]:
    for sample in samples:
        yield sample
        progress.update(sum(name.endswith("jpg") for name in sample))


def _is_done(manifest: Path, arguments: WorldArguments) -> bool:
    """Say whether these shards are there already."""
    if not manifest.is_file():
        return False
    found = json.loads(manifest.read_text())
    expected = {"version": WORLD_VERSION, "arguments": asdict(arguments)}
    if {key: found.get(key) for key in expected} != expected:
        raise UserError(
            f"{manifest.parent} holds data made with version {found.get('version')} and "
            f"{found.get('arguments')}, not {expected}. Delete it or choose another --out."
        )
    return all(
        path.is_file() and path.stat().st_size == shard["bytes"]
        for path, shard in ((manifest.parent / name, s) for name, s in found["shards"].items())
    )
