"""Few-shot evaluation beside the naive loop: ``python -m benchmarks.fewshot``.

Both answer the same queries of the embedded task with the same trained model, once for each seed
that draws the shots, in one process. The naive loop takes one query at a time: it decodes and
encodes all pictures of the prompt and lets the model complete it. Ours is what ``miniflamingo
fewshot`` runs: prompts of like length together, each distinct picture encoded once in all seeds.
Completions are compared text by text.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers.utils.logging import disable_progress_bar

from benchmarks.floor import timed
from miniflamingo import Document, MiniFlamingo, MiniFlamingoProcessor
from miniflamingo.evaluation.runner import prompts_of
from miniflamingo.evaluation.support import at_random
from miniflamingo.evaluation.tasks import load_data, load_task
from miniflamingo.generation.complete import complete
from miniflamingo.generation.reader import Reader


@torch.no_grad()
def naive(
    model: MiniFlamingo,
    processor: MiniFlamingoProcessor,
    documents: Sequence[Document],
    max_new_tokens: int,
) -> list[str]:
    """One prompt at a time, greedily, nothing kept."""
    texts = []
    dtype = model.language.dtype
    for document in documents:
        inputs = processor([document])
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            ids = model.generate(
                **inputs,
                max_new_tokens=max_new_tokens,
                num_beams=1,
                do_sample=False,
            )
        texts += processor.batch_decode(ids)
    return texts


def measure(args: argparse.Namespace, dtype: str, shots: int) -> dict[str, Any]:
    """Time both at one precision and number of shots."""
    task = load_task(args.task)
    data = load_data(task, args.queries)
    choose = at_random(data)
    cells = [
        [prompt.document for prompt in prompts_of(task, data.queries, choose, shots, seed)]
        for seed in range(args.seeds)
    ]
    documents = [document for cell in cells for document in cell]
    decoding = replace(task.decoding, beams=1)
    model = MiniFlamingo.from_pretrained(args.model, dtype)
    processor = MiniFlamingoProcessor.from_pretrained(args.model)
    complete(Reader(model, processor), documents[:2], decoding, 2)  # warm up
    texts: dict[str, list[str]] = {}

    def run_naive() -> None:
        texts["naive"] = naive(model, processor, documents, decoding.max_new_tokens)

    def run_ours() -> None:
        reader = Reader(model, processor)
        found = (complete(reader, cell, decoding, args.batch_size) for cell in cells)
        texts["ours"] = [text for texts_of_cell in found for text in texts_of_cell]

    timings = [(timed(run_naive), timed(run_ours)) for _ in range(args.repeats)]
    one, other = (min(each) for each in zip(*timings, strict=True))
    same = sum(a == b for a, b in zip(texts["naive"], texts["ours"], strict=True))
    return {
        "dtype": str(model.language.dtype).removeprefix("torch."),
        "shots": shots,
        "seeds": args.seeds,
        "answered": len(documents),
        "batch_size": args.batch_size,
        "threads": torch.get_num_threads(),
        "naive_queries_per_s": round(len(documents) / one.seconds, 3),
        "our_queries_per_s": round(len(documents) / other.seconds, 3),
        "faster": round(one.seconds / other.seconds, 2),
        "faster_by_cpu_time": round(one.cpu / other.cpu, 2),
        "same_texts": same,
    }


def main() -> None:
    """Measure and print one JSON line for each precision and number of shots."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=Path("runs/embedded/model"))
    parser.add_argument("--task", default="embedded")
    parser.add_argument("--shots", type=int, nargs="+", default=[8])
    parser.add_argument("--dtypes", nargs="+", default=["auto"])
    parser.add_argument("--queries", type=int, default=96)
    parser.add_argument("--seeds", type=int, default=3, help="drawings of the shots")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=1, help="in turns; the fastest counts")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    disable_progress_bar()
    for dtype in args.dtypes:
        for shots in args.shots:
            print(json.dumps(measure(args, dtype, shots)), flush=True)


if __name__ == "__main__":
    main()
