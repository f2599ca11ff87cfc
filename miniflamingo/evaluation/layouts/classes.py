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


CRANES = {"n02012849": "crane bird", "n03126707": "construction crane"}
"""ImageNet's two classes whose only name is crane, as CLIP's authors call them."""


def read_class_names(file: str) -> dict[str, str]:
    """Read a name for each folder, no name for two of them.

    Args:
        file: Lines ``FOLDER NAME, OTHER NAME``.

    Raises:
        UserError: If all names of a folder are those of other folders.
    """
    names: dict[str, str] = {}
    for line in filter(str.strip, read_text(file).splitlines()):
        folder, _, called = line.partition(" ")
        given = [name.strip() for name in called.split(",")]
        if given == ["crane"]:
            given = [CRANES.get(folder, "crane")]
        own = [name for name in given if name not in names.values()]
        if not own:
            taken = next(other for other, name in names.items() if name == given[0])
            raise UserError(
                f"{file}: the folders {taken} and {folder} are both called {given[0]!r}, so no "
                "answer can tell them apart. Give one of them another name."
            )
        names[folder] = own[0]
    return names


def image_folder(images: str, class_names: str | None = None) -> list[Example]:
    """ImageNet and its like: one folder of pictures for each class.

    Args:
        images: Holds the folders.
        class_names: Text file with a line ``FOLDER NAME, OTHER NAME`` for each, as ImageNet's
            ``LOC_synset_mapping.txt``; the first name is used that no class before it has. None
            takes the folders' names.

    Raises:
        UserError: If a folder has no line, or none of its names is its own.
    """
    names = {} if class_names is None else read_class_names(class_names)
    examples = []
    for picture in pictures_in(images):
        folder = picture.parent.name
        if class_names is not None and folder not in names:
            raise UserError(f"{class_names} has no line for the folder {picture.parent}.")
        name = names.get(folder, folder)
        key = picture.relative_to(images).as_posix()
        examples.append(make_example(key, picture, [name], picture))
    return examples
