"""From a task, a query and its shots to a document that the model completes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from itertools import accumulate
from typing import NamedTuple

from miniflamingo.data.encode import encode_chunk, starting_ids
from miniflamingo.document import Chunk, Document
from miniflamingo.errors import UserError
from miniflamingo.evaluation.example import Example
from miniflamingo.evaluation.tasks import Task
from miniflamingo.generation.reader import Reader, picture_id
from miniflamingo.seeding import seeded


class Prompt(NamedTuple):
    """A few-shot prompt.

    Attributes:
        query: What is asked.
        shots: The examples shown with their pictures, in order.
        document: Solved chunks, then the query's open one.
        support: Ids of all examples shown, those without their pictures included.
    """

    query: Example
    shots: int
    document: Document
    support: tuple[str, ...]


def drawn_answer(query: Example, example: Example, seed: int) -> str:
    """One of an example's answers that are not empty, drawn by seed for each query."""
    rng = seeded(f"{seed}-{query.key}-{example.key}")
    return rng.choice(example.written)


def lead(task: Task, question: str) -> str:
    """What stands before an answer, the space between included."""
    return task.template.removesuffix("{answer}").format(question=question)


def continuation(task: Task, question: str, answer: str) -> str:
    """What the model would write to give an answer: with the space that follows its prompt."""
    before = lead(task, question)
    return before[len(before.rstrip()) :] + answer


def query_chunk(task: Task, query: Example) -> Chunk:
    """The open chunk of a query."""
    text = lead(task, query.question).rstrip()
    return Chunk(query.image, text or None, unfinished=bool(text))


def make_prompt(
    task: Task, query: Example, support: Sequence[Example], shots: int, seed: int
) -> Prompt:
    """Make the prompt of a query.

    Args:
        task: With its template.
        query: What is asked.
        support: The examples to show, in order: as many as shots, or at 0 shots those of which only
            the text is shown.
        shots: How many of them are shown with their pictures, all or none.
        seed: Draws an answer where an example has several.
    """
    solved = [
        Chunk(
            each.image if shots else None,
            lead(task, each.question) + drawn_answer(query, each, seed) + task.separator,
        )
        for each in support
    ]
    document = Document([*solved, query_chunk(task, query)], query.key)
    return Prompt(query, shots, document, tuple(each.key for each in support))


def with_pictures(prompts: Sequence[Prompt], condition: str) -> list[Document]:
    """The prompts with other pictures and the same text, to see what the pictures do.

    Args:
        prompts: At least two, of one number of shots.
        condition: ``support_shuffled`` takes the support pictures of the next prompt,
            ``query_swapped`` the query picture of the next; any other changes none.

    Raises:
        UserError: If all queries ask about one picture.
    """
    if condition not in ("support_shuffled", "query_swapped"):
        return [prompt.document for prompt in prompts]
    changed = []
    for place, prompt in enumerate(prompts):
        chunks = list(prompt.document.chunks)
        others = next_picture(prompts, place).document.chunks
        last = len(chunks) - 1
        for at in [last] if condition == "query_swapped" else range(last):
            if chunks[at].image is not None:
                chunks[at] = replace(chunks[at], image=others[at].image)
        changed.append(Document(chunks, prompt.document.key))
    return changed


def next_picture(prompts: Sequence[Prompt], place: int) -> Prompt:
    """The next prompt that asks about another picture, the first following the last.

    Raises:
        UserError: If there is none.
    """
    picture = picture_id(prompts[place].query.image)
    for step in range(1, len(prompts)):
        other = prompts[(place + step) % len(prompts)]
        if picture_id(other.query.image) != picture:
            return other
    raise UserError(
        f"all {len(prompts)} queries ask about the picture of {prompts[place].query.key!r}, so "
        "none can be swapped for another; ask about more with --queries, or pass --looking 0."
    )


def permuted(document: Document, permutation: int) -> Document:
    """The prompt with its solved examples in another order; as it is for permutation 0."""
    *solved, asked = document.chunks
    if permutation:
        seeded(f"{permutation}-{document.key}").shuffle(solved)
    return Document([*solved, asked], document.key)


def clean(completion: str, stop: Sequence[str]) -> str:
    """The answer in a completion: up to the first of ``stop``, with white space evened out."""
    for end in stop:
        completion = completion.split(end, 1)[0]
    return " ".join(completion.split())


def check_context(reader: Reader, prompts: Sequence[Prompt], new_tokens: int) -> None:
    """Prompt and answer must fit the language model's context; nothing is ever cut.

    Args:
        reader: The model.
        prompts: With the largest number of shots.
        new_tokens: Longest answer.

    Raises:
        UserError: Naming the longest prompt and the number of shots that fits all.
    """
    context = reader.model.language.config.max_position_embeddings
    tokenizer, tokens = reader.processor.tokenizer, reader.processor.tokens
    room = context - len(starting_ids(tokenizer)) - new_tokens

    @cache  # support examples are shown again and again
    def length(chunk: Chunk) -> int:
        return len(encode_chunk(chunk, tokenizer, tokens)[0])

    needed, fitting = [], []
    for prompt in prompts:
        lengths = [
            length(replace(c, image=None if c.image is None else ""))
            for c in prompt.document.chunks
        ]
        totals = list(accumulate(reversed(lengths)))  # fewer shots are the last of more
        needed.append(totals[-1])
        fitting.append(sum(total <= room for total in totals) - 1)
    if max(needed) > room:
        raise UserError(
            f"{prompts[0].shots} shots make prompts of up to {max(needed)} tokens; with "
            f"{new_tokens} for the answer that exceeds the language model's context of {context}. "
            f"At most {max(0, min(fitting))} shots fit every query."
        )
