"""Our VQA accuracy beside the program that everybody publishes from.

``python -m benchmarks.vqa --openflamingo .venv-openflamingo/bin/python``. Questions, ten people's
answers and a model's answers are written in the published files' layout, read by both, and the
accuracy of each question is compared. The words are those of ``tests/golden/ptb.json`` (WordNet),
written as people write them, and every key of the tables of contractions and of numbers.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from miniflamingo.evaluation.layouts.source import read_source
from miniflamingo.evaluation.metrics.answers import Answered
from miniflamingo.evaluation.metrics.vqa import ARTICLES, MENDED, NUMBERS, PUNCTUATION, VqaAccuracy

ROOT = Path(__file__).parents[1]
PEOPLE = 10
EQUAL = 1e-9
SHOWN = 10
WRITTEN = (
    *("1,000", "1,000,000 dollars", "$5.00", "3.5", "10:30", "1/2", "12/25/2014", "no. 7", "7 up"),
    *("U.S.A.", "mr. t", "end.", ".", "...", "?", "-", "t-shirt", "x-ray", "AT&T", "c++", "<b>"),
    *("red/white", "red, white", "red ,white", "red;white", "“quoted”", "it\u2019s", "naïve", "½"),
    *("a", "An", "THE", "the end", "a one", "None", "NO", "let's"),
    "a.b." * 20,
)
"""What the rules treat each in its own way."""


class Question(NamedTuple):
    """What people and a model said."""

    people: list[str]
    answer: str


Change = Callable[[str, random.Random], str]

CHANGES: tuple[Change, ...] = (
    lambda text, rng: text,
    lambda text, rng: text.upper(),
    lambda text, rng: text.capitalize(),
    lambda text, rng: f"{rng.choice(ARTICLES)} {text}",
    lambda text, rng: text + rng.choice(PUNCTUATION + ".'"),
    lambda text, rng: f"{text} {rng.choice(PUNCTUATION + '.')} {rng.choice(list(NUMBERS))}",
    lambda text, rng: text.replace(" ", rng.choice(PUNCTUATION + ".")),
    lambda text, rng: text.replace("'", ""),
    lambda text, rng: text.replace(" ", rng.choice(["  ", "\n", "\t"])),
    lambda text, rng: f" {text}\n",
    lambda text, rng: f"{text} {rng.choice(list(MENDED))}",
    lambda text, rng: f"{rng.choice(WRITTEN)} {text}",
)


def phrases(texts: list[str], rng: random.Random, number: int) -> list[str]:
    """One to four words in a row."""
    found = []
    for _ in range(number):
        words = rng.choice(texts).split()
        start = rng.randrange(len(words))
        found.append(" ".join(words[start : start + rng.randint(1, 4)]))
    return found


def make_questions(texts: list[str], number: int, seed: int = 0) -> list[Question]:
    """Each key of the tables beside its value, then phrases as different people write them.

    Args:
        texts: To take phrases from.
        number: How many questions.
        seed: Of everything that is drawn.
    """
    rng = random.Random(seed)
    questions = []
    for key, value in (MENDED | NUMBERS).items():
        people = [key] * 2 + [value] * 2 + ["other"] * (PEOPLE - 4)
        questions += [Question(people, key), Question(people, value.upper()), Question(people, "")]
    while len(questions) < number:
        said = [*phrases(texts, rng, 2), rng.choice(WRITTEN), rng.choice([*NUMBERS, *MENDED])]
        said = rng.sample(said, rng.randint(1, 3))
        changes = rng.sample(CHANGES, rng.randint(1, 4))
        people = [rng.choice(changes)(rng.choice(said), rng) for _ in range(PEOPLE)]
        people = people if rng.random() < 0.8 else people[:1] * PEOPLE
        people[-1] = "" if rng.random() < 0.05 else people[-1]
        answer = rng.choice([*people, rng.choice(changes)(rng.choice(said), rng)])
        questions.append(Question(people, answer))
    return questions[:number]


def write_files(questions: list[Question], folder: Path) -> None:
    """Questions, annotations and results as the VQA authors publish them; the key is the place."""
    about = dict.fromkeys(("info", "task_type", "data_type", "data_subtype", "license"), "")
    files = {
        "questions": about
        | {
            "questions": [
                {"question_id": key, "image_id": key, "question": "what?"}
                for key in range(len(questions))
            ]
        },
        "annotations": about
        | {
            "annotations": [
                {
                    "question_id": key,
                    "image_id": key,
                    "question_type": "what",
                    "answer_type": "other",
                    "answers": [
                        {"answer_id": place, "answer": text, "answer_confidence": "yes"}
                        for place, text in enumerate(question.people, start=1)
                    ],
                }
                for key, question in enumerate(questions)
            ]
        },
        "results": [
            {"question_id": key, "answer": question.answer}
            for key, question in enumerate(questions)
        ],
    }
    for name, content in files.items():
        (folder / f"{name}.json").write_text(json.dumps(content))


def ours(questions: list[Question], folder: Path) -> list[float]:
    """Accuracy in per cent, the people's answers read by the layout ``vqa``."""
    names = {name: str(folder / f"{name}.json") for name in ("questions", "annotations")}
    examples = read_source({"layout": "vqa", **names, "images": "", "image_name": "{image_id}.jpg"})
    answered = [
        Answered(question.answer, example.answers)
        for question, example in zip(questions, examples, strict=True)
    ]
    return [100 * score for score in VqaAccuracy().statistics(answered)[0]]


def official(python: str, folder: Path) -> list[float]:
    """Accuracy in per cent by the program in the other environment."""
    command = [python, "-m", "benchmarks.vqa_official", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    found = json.loads((folder / "official.json").read_text())
    return [found[str(key)] for key in range(len(found))]


def main() -> None:
    """Print how many accuracies differ, and the first of them; exit status 1 if any do."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--openflamingo", metavar="PYTHON", required=True, help="its environment's")
    parser.add_argument("--questions", type=int, default=10_000)
    args = parser.parse_args()
    texts = [text for text, _ in json.loads((ROOT / "tests/golden/ptb.json").read_text())]
    questions = make_questions(texts, args.questions)
    with tempfile.TemporaryDirectory() as name:
        write_files(questions, Path(name))
        theirs = official(str(Path(args.openflamingo).absolute()), Path(name))
        both = list(zip(questions, ours(questions, Path(name)), theirs, strict=True))
    differing = [each for each in both if abs(each[1] - each[2]) > EQUAL]
    for question, mine, right in differing[:SHOWN]:
        print(f"{question.answer!r}: {mine:.4f}, officially {right:.4f}; {question.people}")
    unanimous = sum(len(set(question.people)) == 1 for question in questions)
    scored = sum(0 < right < 100 for right in theirs)
    print(
        f"{len(questions)} questions ({unanimous} with one answer of all people, {scored} neither "
        f"right nor wrong), {len(differing)} accuracies differ"
    )
    sys.exit(bool(differing))


if __name__ == "__main__":
    main()
