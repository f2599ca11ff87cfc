"""``miniflamingo fewshot``: score few-shot captioning of an exported model."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import torch
import transformers
from rich.console import Console
from transformers.utils.logging import disable_progress_bar

from miniflamingo import Document, MiniFlamingo, MiniFlamingoProcessor, __version__
from miniflamingo.evaluation import report
from miniflamingo.evaluation.runner import (
    Prediction,
    evaluate,
    evaluate_baselines,
    score,
    summarise,
)
from miniflamingo.evaluation.tasks import (
    Task,
    check_facts,
    check_shots,
    load_queries,
    load_task,
    load_vocabulary,
)


def parse_shots(text: str) -> list[int]:
    """Read ``0,1,2,4``."""
    try:
        shots = sorted({int(part) for part in text.split(",")})
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list like 0,1,2,4,8") from None
    if shots[0] < 0:
        raise argparse.ArgumentTypeError(f"{text!r} has a negative number of shots")
    return shots


def make_parser() -> argparse.ArgumentParser:
    """The options."""
    parser = argparse.ArgumentParser("miniflamingo fewshot", description=__doc__)
    parser.add_argument("--model", required=True, help="exported folder, runs/NAME/model")
    parser.add_argument("--task", required=True, help="name in configs/tasks, or a YAML file")
    parser.add_argument("--shots", type=parse_shots, default=[0, 1, 2, 4, 8], help="0,1,2,4,8")
    parser.add_argument("--out", type=Path, required=True, help="folder for the results")
    parser.add_argument("--queries", type=int, help="only the first so many queries")
    parser.add_argument("--seed", type=int, default=0, help="of the drawing of shots")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument(
        "--baselines",
        action="store_true",
        help="also score the plain language model and the model before training",
    )
    return parser


def protocol(task: Task, seed: int) -> dict[str, Any]:
    """Everything that a score depends on beside model and queries."""
    return {
        "support": "examples of the query's own document, drawn by seed",
        "0 shots": "the query picture alone, no text-only examples",
        "swapped": "the next query's picture in the query's place",
        "seed": seed,
        "decoding": vars(task.decoding),
        "versions": {
            "miniflamingo": __version__,
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
    }


def baseline_shots(shots: list[int]) -> int:
    """The number of shots to score baselines at: 4 if asked for, else the most; 1 at least."""
    return 4 if 4 in shots else max(*shots, 1)


def write(
    results: dict[str, Any], documents: list[Document], predictions: list[Prediction], out: Path
) -> None:
    """Write all files of the report and say where they are."""
    shots = max(int(k) for k in results["metrics"])
    out.mkdir(parents=True, exist_ok=True)
    (out / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    report.write_predictions(predictions, out / "predictions.jsonl")
    (out / "report.md").write_text(report.markdown(results))
    report.draw_curve(results, out / "curve.png")
    report.draw_samples(
        documents, predictions, shots, results["protocol"]["seed"], out / "samples.png"
    )
    console = Console()
    for table in report.terminal_tables(results):
        console.print(table)
    for name in ("report.md", "curve.png", "samples.png", "predictions.jsonl", "results.json"):
        console.print(f"  {out / name}")


def main(arguments: list[str]) -> None:
    """Check everything, then evaluate, then write and print."""
    args = make_parser().parse_args(arguments)
    task = load_task(args.task)
    documents = load_queries(task, args.queries)
    check_shots(documents, args.shots)
    vocabulary = load_vocabulary(task)
    check_facts(documents, vocabulary)
    disable_progress_bar()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = MiniFlamingo.from_pretrained(args.model).to(device)
    processor = MiniFlamingoProcessor.from_pretrained(args.model)

    started = time.time()
    predictions = []
    for shots in args.shots:
        predictions += evaluate(
            model, processor, task, documents, vocabulary, shots, args.seed, args.batch_size
        )
    results = {
        "task": task.name,
        "model": args.model,
        "queries": len(documents),
        "metrics": summarise(predictions, args.shots),
        "protocol": protocol(task, args.seed),
    }
    if args.baselines:
        shots = baseline_shots(args.shots)
        baseline = evaluate_baselines(
            model, processor, task, documents, vocabulary, shots, args.seed, args.batch_size
        )
        names = dict.fromkeys(each.condition for each in baseline)
        results["baselines"] = {
            f"{name}, {shots} shots": score([p for p in baseline if p.condition == name])
            for name in names
        }
        predictions += baseline
    results["seconds"] = round(time.time() - started, 1)
    write(results, documents, predictions, args.out)
