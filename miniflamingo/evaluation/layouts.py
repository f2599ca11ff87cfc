"""The file layouts that tasks are published in, one function each: files in, examples out.

A task's YAML names a layout and gives the function its arguments. Pictures are named, not opened.
"""

from __future__ import annotations

import csv
import inspect
import io
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from miniflamingo.data.layouts.choose import to_document
from miniflamingo.data.layouts.members import IMAGE_ENDINGS
from miniflamingo.data.shards import find_shards, read_samples
from miniflamingo.document import Chunk
from miniflamingo.evaluation.example import Example, make_example

PICTURE_ENDINGS = {f".{ending}" for ending in IMAGE_ENDINGS}


def read_text(file: str | Path) -> str:
    """Read an annotation file.

    Raises:
        ValueError: If it is not there or no UTF-8.
    """
    if not Path(file).is_file():
        raise ValueError(
            f"there is no file {file}. docs/evaluation.md says where each data set is to be had; "
            "correct the path in the task's YAML if it is elsewhere."
        )
    try:
        return Path(file).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{file} is no UTF-8 text: {error}") from error


def read_json(file: str | Path, text: str | None = None) -> Any:
    """Parse an annotation file, or one line of it.

    Raises:
        ValueError: If it is not there or does not parse.
    """
    try:
        return json.loads(read_text(file) if text is None else text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{file} is no JSON: {error}") from error


def get(entry: Any, name: str, file: str | Path, place: int | None = None) -> Any:
    """A field of an annotation.

    Raises:
        ValueError: If it is not there, naming file, entry and field.
    """
    if isinstance(entry, Mapping) and name in entry:
        return entry[name]
    where = file if place is None else f"{file}, entry {place}"
    found = sorted(entry) if isinstance(entry, Mapping) else type(entry).__name__
    raise ValueError(
        f"{where} lacks the field {name!r} (it holds {found}). Is this the layout that the task's "
        "YAML names?"
    )


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
        raise ValueError(f"{annotations} has nothing in split {split!r}; it has {sorted(found)}.")
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


def textvqa(annotations: str, images: str) -> list[Example]:
    """TextVQA: ``TextVQA_0.5.1_val.json``, one entry a question with ten answers.

    Args:
        annotations: JSON with ``data``.
        images: Folder of ``IMAGE_ID.jpg``.
    """
    return [
        make_example(
            str(get(entry, "question_id", annotations, place)),
            Path(images) / f"{get(entry, 'image_id', annotations, place)}.jpg",
            get(entry, "answers", annotations, place),
            annotations,
            get(entry, "question", annotations, place),
            votes=True,
        )
        for place, entry in enumerate(get(read_json(annotations), "data", annotations))
    ]


def vqa(questions: str, annotations: str, images: str, image_name: str) -> list[Example]:
    """VQAv2 and OK-VQA: a file of questions and one of answers.

    Args:
        questions: ``v2_OpenEnded_mscoco_val2014_questions.json`` or its like.
        annotations: ``v2_mscoco_val2014_annotations.json`` or its like.
        images: Folder of the pictures.
        image_name: How a picture's file is called, ``COCO_val2014_{image_id:012d}.jpg``.
    """
    answers = {
        get(entry, "question_id", annotations, place): [
            get(each, "answer", annotations, place)
            for each in get(entry, "answers", annotations, place)
        ]
        for place, entry in enumerate(get(read_json(annotations), "annotations", annotations))
    }
    examples = []
    for place, entry in enumerate(get(read_json(questions), "questions", questions)):
        key = get(entry, "question_id", questions, place)
        if key not in answers:
            raise ValueError(f"{annotations} has no answers to question {key} of {questions}.")
        name = image_name.format(image_id=get(entry, "image_id", questions, place))
        text = get(entry, "question", questions, place)
        file = Path(images) / name
        examples.append(make_example(str(key), file, answers[key], questions, text, votes=True))
    return examples


def vizwiz(annotations: str, images: str) -> list[Example]:
    """VizWiz-VQA: ``val.json``, a list of questions with ten answers.

    Args:
        annotations: The JSON file.
        images: Folder of the pictures.
    """
    return [
        make_example(
            get(entry, "image", annotations, place),
            Path(images) / entry["image"],
            [
                get(each, "answer", annotations, place)
                for each in get(entry, "answers", annotations, place)
            ],
            annotations,
            get(entry, "question", annotations, place),
            votes=True,
        )
        for place, entry in enumerate(read_json(annotations))
    ]


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
    for place, line in enumerate(read_text(annotations).splitlines()):
        entry = read_json(annotations, line)
        label = get(entry, "label", annotations, place)
        if label not in (0, 1):
            raise ValueError(f"{annotations}, entry {place} has label {label!r}; expected 0 or 1.")
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
            raise ValueError(f"{class_names} has no line for the folder {picture.parent}.")
        name = names.get(folder, folder)
        key = picture.relative_to(images).as_posix()
        examples.append(make_example(key, picture, [name], picture))
    return examples


def folder(images: str) -> list[Example]:
    """One's own pictures, each with a text file of the same name that holds a caption a line.

    Args:
        images: Folder, at any depth.
    """
    return [
        make_example(
            picture.relative_to(images).as_posix(),
            picture,
            read_text(picture.with_suffix(".txt")).splitlines(),
            picture.with_suffix(".txt"),
        )
        for picture in pictures_in(images)
    ]


def table(annotations: str, images: str | None = None) -> list[Example]:
    """One's own CSV with the columns ``image``, ``answer`` and perhaps ``question``.

    Rows of the same picture and question are several answers to one example.

    Args:
        annotations: The CSV file.
        images: Folder that the column ``image`` starts from; None for that of the CSV file.
    """
    rows = csv.DictReader(io.StringIO(read_text(annotations)))
    answers: dict[tuple[str, str], list[str]] = {}
    for place, row in enumerate(rows):
        image, text = (get(row, name, annotations, place) for name in ("image", "answer"))
        answers.setdefault((image, row.get("question") or ""), []).append(text or "")
    start = Path(annotations).parent if images is None else Path(images)
    return [
        make_example(f"{image} {question}".strip(), start / image, texts, annotations, question)
        for (image, question), texts in answers.items()
    ]


def shards(urls: str | list[str]) -> list[Example]:
    """Interleaved documents: the last chunk is the query, those before it its own support set.

    Args:
        urls: As of a training source.
    """
    examples = []
    for sample in read_samples(find_shards(urls)):
        document = to_document(sample)
        *solved, asked = document.chunks
        own = tuple(
            _of_chunk(f"{document.key}/{place}", each, sample["__url__"])
            for place, each in enumerate(solved)
        )
        query = _of_chunk(document.key, asked, sample["__url__"])
        examples.append(query._replace(support=own, facts=document.meta.get("facts", {})))
    return examples


def _of_chunk(key: str, chunk: Chunk, file: str) -> Example:
    if len(chunk.frames) != 1:
        raise ValueError(
            f"{file}: chunk {key!r} holds {len(chunk.frames)} pictures; query and support "
            "examples need one each."
        )
    return make_example(key, chunk.frames[0], [chunk.text or ""], file)


def pictures_in(folder: str) -> list[Path]:
    """All pictures of a folder at any depth, sorted.

    Raises:
        ValueError: If there are none.
    """
    found = sorted(p for p in Path(folder).rglob("*") if p.suffix.lower() in PICTURE_ENDINGS)
    if not found:
        raise ValueError(f"there are no pictures ({', '.join(IMAGE_ENDINGS)}) under {folder!r}.")
    return found


LAYOUTS: dict[str, Callable[..., list[Example]]] = {
    read.__name__: read
    for read in (
        karpathy,
        coco_captions,
        textcaps,
        textvqa,
        vqa,
        vizwiz,
        hateful_memes,
        image_folder,
        folder,
        table,
        shards,
    )
}


def check_source(source: Mapping[str, Any]) -> None:
    """A source names a layout and gives exactly its arguments.

    Raises:
        ValueError: Naming the layouts, or the arguments that are unknown or missing.
    """
    name = source.get("layout")
    if name not in LAYOUTS:
        raise ValueError(f"layout: {name!r} is unknown; choose one of {', '.join(LAYOUTS)}.")
    parameters = inspect.signature(LAYOUTS[name]).parameters
    given = source.keys() - {"layout"}
    unknown = sorted(given - parameters.keys())
    empty = inspect.Parameter.empty
    missing = [n for n, each in parameters.items() if each.default is empty and n not in given]
    if unknown or missing:
        raise ValueError(
            f"layout {name}: unknown fields {unknown}, missing fields {missing}; it takes "
            f"{list(parameters)}."
        )


def read_source(source: Mapping[str, Any]) -> list[Example]:
    """Read the examples of a source, each id once.

    Args:
        source: As ``check_source`` accepts it.

    Raises:
        ValueError: If files are missing or no such layout, an example is unusable, or an id is
            there twice.
    """
    examples = LAYOUTS[source["layout"]](**{k: v for k, v in source.items() if k != "layout"})
    seen: set[str] = set()
    for each in _all(examples):
        if each.key in seen:
            raise ValueError(
                f"{each.file}: the id {each.key!r} is there twice, so a query would be scored "
                "twice. Take one of the two out."
            )
        seen.add(each.key)
    return examples


def _all(examples: list[Example]) -> Iterator[Example]:
    for each in examples:
        yield each
        yield from each.support
