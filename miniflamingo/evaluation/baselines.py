"""What the score is without training, and without pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from transformers import AutoTokenizer

from miniflamingo.document import Document
from miniflamingo.model.language import load_language


@torch.no_grad()
def text_only_completions(
    language: str, prompts: Sequence[Document], max_new_tokens: int, batch_size: int = 16
) -> Iterator[str]:
    """Let the plain frozen language model continue the captions of the support set, one a line.

    Args:
        language: Folder or hub name.
        prompts: Few-shot prompts with at least one shot; their pictures are left out.
        max_new_tokens: Longest completion.
        batch_size: Prompts at a time.

    Yields:
        One line for each prompt, greedy.
    """
    tokenizer = AutoTokenizer.from_pretrained(
        language, padding_side="left", trust_remote_code=False
    )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    model = load_language(language, "auto").eval()
    for start in range(0, len(prompts), batch_size):
        batch = prompts[start : start + batch_size]
        lines = ["".join((c.text or "") + "\n" * (not c.is_open) for c in p.chunks) for p in batch]
        inputs = tokenizer(lines, return_tensors="pt", padding=True)
        out = model.generate(  # type: ignore[misc]  # a protocol that no type fulfils
            **inputs, max_new_tokens=max_new_tokens, do_sample=False
        )
        for ids in out[:, inputs["input_ids"].shape[1] :]:
            yield tokenizer.decode(ids, skip_special_tokens=True).split("\n")[0].strip()
