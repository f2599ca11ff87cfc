"""Few-shot evaluation beside the naive loop: ``python -m benchmarks.fewshot``.

Both answer the same queries of the embedded task with the same trained model, in turns in one
process. The naive loop takes one query at a time: it decodes and encodes all pictures of the prompt
and lets the model complete it. Ours is what ``miniflamingo fewshot`` runs: prompts of like length
together, each distinct picture encoded once. Completions are compared text by text.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers.utils.logging import disable_progress_bar

from miniflamingo import Document, MiniFlamingo, MiniFlamingoProcessor
from miniflamingo.evaluation.runner import prompts_of
from miniflamingo.evaluation.support import at_random
from miniflamingo.evaluation.tasks import load_data, load_task
from miniflamingo.generation.complete import Decoding, complete
from miniflamingo.generation.reader import Reader


@torch.no_grad()
def naive(
    model: MiniFlamingo,
    processor: MiniFlamingoProcessor,
    documents: Sequence[Document],
    decoding: Decoding,
) -> list[str]:
    """One prompt at a time, nothing kept."""
    texts = []
    dtype = model.language.dtype
    for document in documents:
        inputs = processor([document])
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            ids = model.generate(
                **inputs,
                max_new_tokens=decoding.max_new_tokens,
                num_beams=decoding.beams,
                length_penalty=decoding.length_penalty,
                do_sample=False,
            )
        texts += processor.batch_decode(ids)
    return texts


def measure(args: argparse.Namespace, dtype: str, shots: int) -> dict[str, Any]:
    """Time both at one precision and number of shots."""
    task = load_task(args.task)
    data = load_data(task, args.queries)
    prompts = prompts_of(task, data.queries, at_random(data), shots, seed=0)
    documents = [prompt.document for prompt in prompts]
    model = MiniFlamingo.from_pretrained(args.model, dtype)
    processor = MiniFlamingoProcessor.from_pretrained(args.model)
    complete(Reader(model, processor), documents[:2], task.decoding, 2)  # warm up
    seconds: dict[str, list[float]] = {"naive": [], "ours": []}
    texts: dict[str, list[str]] = {}
    for _ in range(args.repeats):
        for side in seconds:
            started = time.perf_counter()
            if side == "naive":
                texts[side] = naive(model, processor, documents, task.decoding)
            else:
                reader = Reader(model, processor)
                texts[side] = complete(reader, documents, task.decoding, args.batch_size)
            seconds[side].append(time.perf_counter() - started)
    rates = {side: len(documents) / min(times) for side, times in seconds.items()}
    same = sum(a == b for a, b in zip(texts["naive"], texts["ours"], strict=True))
    return {
        "dtype": str(model.language.dtype).removeprefix("torch."),
        "shots": shots,
        "queries": len(documents),
        "batch_size": args.batch_size,
        "threads": torch.get_num_threads(),
        "queries_per_s": {side: round(rate, 3) for side, rate in rates.items()},
        "times": round(rates["ours"] / rates["naive"], 2),
        "same_texts": same,
    }


def main() -> None:
    """Measure and print one JSON line for each precision and number of shots."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=Path("runs/embedded/model"))
    parser.add_argument("--task", default="embedded")
    parser.add_argument("--shots", type=int, nargs="+", default=[8])
    parser.add_argument("--dtypes", nargs="+", default=["auto", "float32"])
    parser.add_argument("--queries", type=int, default=64)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=2, help="in turns; the fastest counts")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    disable_progress_bar()
    for dtype in args.dtypes:
        for shots in args.shots:
            print(json.dumps(measure(args, dtype, shots)), flush=True)


if __name__ == "__main__":
    main()
