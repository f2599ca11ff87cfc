"""How scores are named and written for people."""

from __future__ import annotations

LABELS = {
    "cider": "CIDEr-D",
    "bleu1": "BLEU-1",
    "bleu2": "BLEU-2",
    "bleu3": "BLEU-3",
    "bleu4": "BLEU-4",
    "rouge_l": "ROUGE-L",
    "meteor": "METEOR",
    "spice": "SPICE",
    "clip_score": "CLIPScore",
    "roc_auc": "ROC AUC",
}
"""Scores shown as numbers; all others are shares of queries, shown in per cent."""


def label(name: str) -> str:
    """A score's name for people."""
    return LABELS.get(name) or name.replace("_", " ").replace("vqa", "VQA")


def number(name: str, value: float) -> str:
    """A score's value for people."""
    return f"{value:.3f}" if name in LABELS else f"{100 * value:.1f}%"
