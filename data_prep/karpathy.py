"""COCO and Flickr30k in Karpathy's JSON: the splits that few-shot captioning is scored on."""

import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_prep.jobs import EachRow, Job, Part, describe, run_job
from data_prep.pictures import Pictures
from data_prep.samples import pair_sample
from data_prep.shards import Sample
from data_prep.workers import Ray
from miniflamingo.errors import UserError


@dataclass(frozen=True)
class CaptionedPicture:
    """One picture with one of its captions.

    Attributes:
        file: Below the folder of pictures.
        caption: As it was written.
        source_id: Of the picture in its data set.
    """

    file: str
    caption: str
    source_id: int | str


@dataclass(frozen=True)
class ToPair:
    """Makes a pair of a captioned picture.

    Attributes:
        pictures: Where the files are.
    """

    pictures: Pictures

    def __call__(self, key: str, row: CaptionedPicture) -> Sample:
        """Read the picture.

        Raises:
            Dropped: If it is not there or no picture.
        """
        about = {"id": row.source_id, "file": row.file}
        return pair_sample(key, self.pictures.read(row.file), row.caption, about)


def read_karpathy(
    annotations: Path, splits: list[str], captions: int, seed: int
) -> list[CaptionedPicture]:
    """List the captioned pictures of some splits, in random order.

    Args:
        annotations: ``dataset_coco.json``, ``dataset_flickr30k.json``.
        splits: Of train, restval, val and test.
        captions: At most so many captions of a picture, the first ones.
        seed: Of the order. Captions of one picture do not stand beside each other.

    Raises:
        UserError: If the file has another layout, or no picture is in these splits.
    """
    try:
        images = json.loads(annotations.read_text(encoding="utf-8"))["images"]
        rows = [
            CaptionedPicture(_file(image), sentence["raw"], image.get("cocoid", image["imgid"]))
            for image in images
            if image["split"] in splits
            for sentence in image["sentences"][:captions]
        ]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{annotations} is not in Karpathy's layout ({error!r}); expected the JSON object "
            '{"images": [{"filename", "split", "imgid", "sentences": [{"raw"}]}]}.'
        ) from error
    if not rows:
        found = sorted({image["split"] for image in images})
        raise UserError(f"{annotations} has no captions in {splits}; its splits are {found}.")
    random.Random(seed).shuffle(rows)
    return rows


def _file(image: dict[str, Any]) -> str:
    """COCO's files are in a folder for each year, Flickr30k's in none."""
    return f"{image['filepath']}/{image['filename']}" if "filepath" in image else image["filename"]


def write_captioned_pictures(
    command: str,
    source: str,
    licence: str,
    annotations: Path,
    images: Path,
    out: Path,
    splits: tuple[str, ...],
    captions: int = 5,
    per_shard: int = 5000,
    seed: int = 0,
    workers: int = 1,
    ray: Ray | None = None,
) -> None:
    """Write training pairs: what the commands of such data sets do.

    Args:
        command: Its name.
        source: For the manifest.
        licence: For the manifest.
        annotations: As in ``read_karpathy``.
        images: Folder of the pictures.
        out: Folder of the shards.
        splits: As in ``read_karpathy``.
        captions: How many captions of a picture to use. Each is a pair with the picture in it, so
            5 make five times the bytes of 1.
        per_shard: Pairs of a shard.
        seed: Of the order of the pairs.
        workers: Local processes; CPUs for --ray local.
        ray: auto runs on the Ray cluster of this machine, local on one started here.

    Raises:
        UserError: If the annotations or the folder are not what they should be.
    """
    if not annotations.is_file():
        raise UserError(f"--annotations {annotations}: there is no such file.")
    if not images.is_dir():
        raise UserError(f"--images {images}: there is no such folder.")
    rows = read_karpathy(annotations, list(splits), captions, seed)
    shards = [rows[start : start + per_shard] for start in range(0, len(rows), per_shard)]
    settings = {
        "annotations": str(annotations),
        "bytes": annotations.stat().st_size,
        "images": str(images),
        "splits": list(splits),
        "captions": captions,
        "per_shard": per_shard,
        "seed": seed,
    }
    parts = [Part(f"{number:06d}", shard) for number, shard in enumerate(shards)]
    convert = EachRow(ToPair(Pictures(images)))
    job = Job(command, settings, parts, convert, source, licence, {"layout": "pairs"})
    print(describe(run_job(job, out, workers, ray), out))
