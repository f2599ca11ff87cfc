"""Layouts of captioning tasks: files in, examples out. Pictures are named, not opened."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from miniflamingo.errors import UserError
from miniflamingo.evaluation.example import Example, make_example
from miniflamingo.evaluation.layouts.files import get, read_json


def karpathy(annotations: str, images: str, split: str | list[str]) -> list[Example]:
    """Karpathy's splits of COCO and Flickr30k: ``dataset_coco.json``, ``dataset_flickr30k.json``.

    Args:
        annotations: The JSON file.
        images: Folder that holds ``train2014/`` and ``val2014/``, or Flickr's pictures themselves.
        split: One or several of train, restval, val, test.
    """
    wanted = [split] if isinstance(split, str) else split
    examples, found = [], set()
    for place, entry in enumerate(get(read_json(annotations), "images", annotations)):
        found.add(get(entry, "split", annotations, place))
        if entry["split"] in wanted:
            name = get(entry, "filename", annotations, place)
            sentences = get(entry, "sentences", annotations, place)
            examples.append(
                make_example(
                    str(entry["cocoid"] if "cocoid" in entry else get(entry, "imgid", annotations)),
                    Path(images) / entry.get("filepath", "") / name,
                    [get(each, "raw", annotations, place) for each in sentences],
                    annotations,
                )
            )
    if not examples:
        raise UserError(f"{annotations} has nothing in split {split!r}; it has {sorted(found)}.")
    return examples


def coco_captions(annotations: str, images: str) -> list[Example]:
    """COCO's own caption files, and NoCaps (``nocaps_val_4500_captions.json``).

    Args:
        annotations: JSON with ``images`` and ``annotations``.
        images: Folder of the pictures.
    """
    content = read_json(annotations)
    captions: dict[Any, list[str]] = {}
    for place, entry in enumerate(get(content, "annotations", annotations)):
        text = get(entry, "caption", annotations, place)
        captions.setdefault(get(entry, "image_id", annotations, place), []).append(text)
    examples = []
    for place, entry in enumerate(get(content, "images", annotations)):
        key = get(entry, "id", annotations, place)
        file = Path(images) / get(entry, "file_name", annotations, place)
        examples.append(make_example(str(key), file, captions.get(key, []), annotations))
    return examples


def textcaps(annotations: str, images: str) -> list[Example]:
    """TextCaps: ``TextCaps_0.1_val.json``, one entry a caption.

    Args:
        annotations: JSON with ``data``.
        images: Folder of ``IMAGE_ID.jpg``.
    """
    captions: dict[str, list[str]] = {}
    for place, entry in enumerate(get(read_json(annotations), "data", annotations)):
        text = get(entry, "caption_str", annotations, place)
        captions.setdefault(get(entry, "image_id", annotations, place), []).append(text)
    return [
        make_example(key, Path(images) / f"{key}.jpg", texts, annotations)
        for key, texts in captions.items()
    ]
