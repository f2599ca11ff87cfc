"""Small files in the layouts that the data sets are published in."""

import json
import zlib
from pathlib import Path

import tiny


def write_pictures(folder: Path, *names: str) -> Path:
    for seed, name in enumerate(names):
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        tiny.picture(zlib.crc32(f"{folder} {name} {seed}".encode())).save(file)
    return folder


def write_json(file: Path, content) -> str:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))
    return str(file)


def write_karpathy(folder: Path, splits: dict[str, int]) -> dict[str, str]:
    """``dataset_coco.json`` as Karpathy published it; the number of pictures of each split."""
    images = []
    for split, count in splits.items():
        for place in range(count):
            number = len(images)
            name = f"COCO_val2014_{number:012d}.jpg"
            write_pictures(folder / "val2014", name)
            raws = [f"A {split} cat {number}.", f"Two dogs {place} "]
            images.append(
                {
                    "filepath": "val2014",
                    "sentids": [2 * number, 2 * number + 1],
                    "filename": name,
                    "imgid": number,
                    "split": split,
                    "sentences": [
                        {"tokens": raw.lower().split(), "raw": raw, "imgid": number, "sentid": i}
                        for i, raw in enumerate(raws)
                    ],
                    "cocoid": 1000 + number,
                }
            )
    annotations = write_json(folder / "dataset_coco.json", {"images": images, "dataset": "coco"})
    return {"annotations": annotations, "images": str(folder)}


def write_vqa(folder: Path, name: str, first: int, count: int) -> dict[str, str]:
    """Questions and annotations as the VQA authors published them."""
    questions, annotations = [], []
    for place in range(count):
        image, key = first + place, 10 * (first + place)
        write_pictures(folder / name, f"COCO_{name}_{image:012d}.jpg")
        questions.append({"image_id": image, "question": f"How many {place}?", "question_id": key})
        said = ["2", "two", "2", "3", "2", "2", "2", "2", "2", "2"]
        annotations.append(
            {
                "question_type": "how many",
                "multiple_choice_answer": "2",
                "answers": [
                    {"answer": each, "answer_confidence": "yes", "answer_id": i + 1}
                    for i, each in enumerate(said)
                ],
                "image_id": image,
                "answer_type": "number",
                "question_id": key,
            }
        )
    info = {"info": {}, "license": {}, "data_subtype": name, "data_type": "mscoco"}
    asked = info | {"task_type": "Open-Ended", "questions": questions}
    return {
        "questions": write_json(folder / f"v2_OpenEnded_mscoco_{name}_questions.json", asked),
        "annotations": write_json(
            folder / f"v2_mscoco_{name}_annotations.json", info | {"annotations": annotations}
        ),
        "images": str(folder / name),
        "image_name": f"COCO_{name}_{{image_id:012d}}.jpg",
    }


def write_image_folder(folder: Path, per_class: int) -> dict[str, str]:
    """ImageNet's folders and its file of names."""
    classes = {"n01440764": "tench, Tinca tinca", "n02084071": "dog, domestic dog"}
    names = [f"{c}/{c}_{i}.JPEG" for c in classes for i in range(per_class)]
    write_pictures(folder, *names)
    mapping = folder / "LOC_synset_mapping.txt"
    mapping.write_text("".join(f"{c} {name}\n" for c, name in classes.items()))
    return {"images": str(folder), "class_names": str(mapping)}
