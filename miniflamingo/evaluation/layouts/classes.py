"""Layouts of tasks of classes."""

from __future__ import annotations

from pathlib import Path

from miniflamingo.errors import UserError
from miniflamingo.evaluation.example import Example, make_example
from miniflamingo.evaluation.layouts.files import get, pictures_in, read_json, read_text


def hateful_memes(
    annotations: str, images: str, class_names: tuple[str, str] = ("no", "yes")
) -> list[Example]:
    """Hateful Memes: ``dev_seen.jsonl``. The words on the picture stand in for the question.

    Args:
        annotations: One JSON object a line.
        images: Folder that holds ``img/``.
        class_names: What labels 0 and 1 are called.
    """
    examples = []
    # Not splitlines: a text within JSON may hold separators that end no line of the file.
    lines = filter(str.strip, read_text(annotations).split("\n"))
    for place, line in enumerate(lines):
        entry = read_json(annotations, line)
        label = get(entry, "label", annotations, place)
        if label not in (0, 1):
            raise UserError(f"{annotations}, entry {place} has label {label!r}; expected 0 or 1.")
        file = Path(images) / get(entry, "img", annotations, place)
        key, text = (get(entry, name, annotations, place) for name in ("id", "text"))
        examples.append(make_example(str(key), file, [class_names[label]], annotations, text))
    return examples


def image_folder(images: str, class_names: str | None = None) -> list[Example]:
    """ImageNet and its like: one folder of pictures for each class.

    Args:
        images: Holds the folders.
        class_names: Text file with a line ``FOLDER NAME, OTHER NAME`` for each, as ImageNet's
            ``LOC_synset_mapping.txt``; the first name is used. None takes the folders' names.
    """
    names: dict[str, str] = {}
    if class_names is not None:
        for line in filter(str.strip, read_text(class_names).splitlines()):
            folder, _, called = line.partition(" ")
            names[folder] = called.split(",")[0].strip()
    examples = []
    for picture in pictures_in(images):
        folder = picture.parent.name
        if class_names is not None and folder not in names:
            raise UserError(f"{class_names} has no line for the folder {picture.parent}.")
        name = names.get(folder, folder)
        key = picture.relative_to(images).as_posix()
        examples.append(make_example(key, picture, [name], picture))
    return examples
