"""Run a few-shot evaluation: prompts, completions, scores."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from tqdm import tqdm

from miniflamingo.data.processor import MiniFlamingoProcessor
from miniflamingo.document import Document
from miniflamingo.evaluation.baselines import text_only_completions
from miniflamingo.evaluation.captioning import Captioning
from miniflamingo.evaluation.facts import facts_right
from miniflamingo.evaluation.tasks import Task, prompt
from miniflamingo.generation.complete import complete
from miniflamingo.model.flamingo import MiniFlamingo

Vocabulary = dict[str, dict[str, list[str]]]


class Prediction(NamedTuple):
    """One completion and what it is held against.

    Attributes:
        condition: ``real`` pictures, the query's ``swapped``, or the name of a baseline.
        shots: How many solved examples the prompt showed.
        key: Of the query.
        prediction: The completion.
        truth: The query's true caption.
        right: Fact -> whether the prediction mentions exactly what is true.
    """

    condition: str
    shots: int
    key: str
    prediction: str
    truth: str
    right: dict[str, bool]


def prompts_for(
    documents: Sequence[Document], shots: int, seed: int, swapped: bool
) -> list[Document]:
    """The prompts of all queries, each with its own query picture or with the next query's."""
    others = [*documents[1:], documents[0]]
    return [
        prompt(document, shots, seed, other.chunks[-1] if swapped else None)
        for document, other in zip(documents, others, strict=True)
    ]


def judge(
    documents: Sequence[Document],
    completions: Iterable[str],
    condition: str,
    shots: int,
    vocabulary: Vocabulary,
) -> list[Prediction]:
    """Hold completions against the true captions and facts, with a progress bar."""
    bar = tqdm(completions, f"{shots} shots, {condition}", len(documents), leave=False)
    predictions = []
    for document, text in zip(documents, bar, strict=True):
        facts = {name: document.meta["facts"][name] for name in vocabulary}
        truth = document.chunks[-1].text
        assert truth is not None
        right = facts_right(text, facts, vocabulary)
        predictions.append(Prediction(condition, shots, document.key, text, truth, right))
    return predictions


def score(predictions: Sequence[Prediction]) -> dict[str, float]:
    """CIDEr-D (0 to 10), BLEU-4, exact captions and facts right (0 to 1)."""
    metric = Captioning()
    metric.update([each.prediction for each in predictions], [[each.truth] for each in predictions])
    scores = metric.compute()
    facts = {
        name: sum(each.right[name] for each in predictions) / len(predictions)
        for name in predictions[0].right
    }
    return {name: scores[name] for name in ("cider", "bleu4", "exact")} | facts


def evaluate(
    model: MiniFlamingo,
    processor: MiniFlamingoProcessor,
    task: Task,
    documents: Sequence[Document],
    vocabulary: Vocabulary,
    shots: int,
    seed: int,
    batch_size: int,
) -> list[Prediction]:
    """Predict with real and with swapped query pictures at one number of shots."""
    predictions = []
    for condition in ("real", "swapped"):
        prompts = prompts_for(documents, shots, seed, condition == "swapped")
        completions = complete(model, processor, prompts, task.decoding, batch_size)
        predictions += judge(documents, completions, condition, shots, vocabulary)
    return predictions


def evaluate_baselines(
    model: MiniFlamingo,
    processor: MiniFlamingoProcessor,
    task: Task,
    documents: Sequence[Document],
    vocabulary: Vocabulary,
    shots: int,
    seed: int,
    batch_size: int,
) -> list[Prediction]:
    """Predict with the plain language model on text alone, and with the model before training."""
    prompts = prompts_for(documents, shots, seed, swapped=False)
    length = task.decoding.max_new_tokens
    lines = text_only_completions(model.config.language, prompts, length, batch_size)
    predictions = judge(documents, lines, "text-only language model", shots, vocabulary)
    untrained = MiniFlamingo.build(model.config).eval().to(model.device)
    completions = complete(untrained, processor, prompts, task.decoding, batch_size)
    return predictions + judge(documents, completions, "untrained model", shots, vocabulary)


def summarise(predictions: Sequence[Prediction], shots: Sequence[int]) -> dict[str, dict]:
    """Metrics by number of shots, those with swapped query pictures under ``swapped_`` names."""
    metrics: dict[str, dict[str, float]] = {}
    for k in shots:
        for condition, prefix in (("real", ""), ("swapped", "swapped_")):
            group = [p for p in predictions if p.shots == k and p.condition == condition]
            scores = {prefix + name: value for name, value in score(group).items()}
            metrics.setdefault(str(k), {}).update(scores)
    return metrics
