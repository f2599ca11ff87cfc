"""Layouts of tasks of questions, where each annotator's answer is a vote."""

from __future__ import annotations

from pathlib import Path

from miniflamingo.errors import UserError
from miniflamingo.evaluation.example import Example, make_example
from miniflamingo.evaluation.layouts.files import get, read_json


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
            raise UserError(f"{annotations} has no answers to question {key} of {questions}.")
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
