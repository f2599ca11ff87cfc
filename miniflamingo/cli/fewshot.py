"""``miniflamingo fewshot``: score an exported model few-shot.

On several devices: ``torchrun --nproc-per-node 8 -m miniflamingo fewshot ...``. Started again, it
goes on with the cells (shots, seed, condition) that are not finished.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from rich.console import Console
from torchmetrics.multimodal import CLIPScore
from tqdm import tqdm
from transformers.utils.logging import disable_progress_bar

from miniflamingo import Document, MiniFlamingo, MiniFlamingoProcessor
from miniflamingo.errors import UserError
from miniflamingo.evaluation.fewshot import evaluate, evaluate_baselines
from miniflamingo.evaluation.looking import looking_line
from miniflamingo.evaluation.metrics.clip_score import clip_scores, load_clip_score
from miniflamingo.evaluation.metrics.java_scores import check_java, java_scores
from miniflamingo.evaluation.metrics.table import metric_for
from miniflamingo.evaluation.prediction import Prediction, write_predictions
from miniflamingo.evaluation.protocol import arithmetic, claim_folder, fingerprints, protocol
from miniflamingo.evaluation.ranks import Ranks, device_of_rank, join, leave
from miniflamingo.evaluation.report.compare import compare, comparison_table
from miniflamingo.evaluation.report.tables import terminal_tables, write_report
from miniflamingo.evaluation.results import (
    PREDICTIONS_FILE,
    RESULTS_FILE,
    Results,
    versions,
    write_results,
)
from miniflamingo.evaluation.runner import Evaluation, prompts_of
from miniflamingo.evaluation.similarity import check_pictures, clip_features
from miniflamingo.evaluation.summary import Key, cells_of, summarise, with_more_scores
from miniflamingo.evaluation.support import Choose, at_random, most_similar, pictures_of
from miniflamingo.evaluation.tasks import Task, TaskData, check_shots, load_data, load_task
from miniflamingo.generation.reader import Reader
from miniflamingo.terminal import as_markup


def parse_shots(text: str) -> list[int]:
    """Read ``0,1,2,4``."""
    try:
        shots = sorted({int(part) for part in text.split(",")})
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list like 0,1,2,4,8") from None
    if shots[0] < 0:
        raise argparse.ArgumentTypeError(f"{text!r} has a negative number of shots")
    return shots


def at_least(least: int) -> Callable[[str], int]:
    """Read a number that may not be smaller."""

    def parse(text: str) -> int:
        if not text.lstrip("-").isdigit() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least {least}")
        return int(text)

    return parse


def make_parser() -> argparse.ArgumentParser:
    """The options."""
    parser = argparse.ArgumentParser("miniflamingo fewshot", description=__doc__)
    parser.add_argument("--model", required=True, help="exported folder, runs/NAME/model")
    parser.add_argument("--task", required=True, help="name in configs/tasks, or a YAML file")
    parser.add_argument("--shots", type=parse_shots, default=[0, 1, 2, 4, 8], help="0,1,2,4,8")
    parser.add_argument(
        "--support",
        choices=["random", "rices"],
        default="random",
        help="shots at random for each query, or those most similar to it by CLIP",
    )
    parser.add_argument("--seeds", type=at_least(1), default=1, help="how many drawings of shots")
    parser.add_argument("--out", type=Path, required=True, help="folder for the results")
    parser.add_argument("--queries", type=at_least(1), help="only a fixed sample of so many")
    parser.add_argument(
        "--true-zero-shot",
        action="store_true",
        help="0 shots show nothing but the query, not the paper's two examples without pictures",
    )
    parser.add_argument(
        "--permutations",
        type=at_least(1),
        default=1,
        help="average a classifying task over so many orders of its shots (the paper: 6)",
    )
    parser.add_argument(
        "--looking",
        type=at_least(0),
        default=100,
        help="so many queries are also asked with other pictures and with none; 0 for no query",
    )
    parser.add_argument(
        "--baselines",
        action="store_true",
        help="also score the plain language model and the model before training",
    )
    parser.add_argument(
        "--java", action="store_true", help="also score captions by METEOR and SPICE, with Java"
    )
    parser.add_argument(
        "--clip-score",
        nargs="+",
        metavar=("MODEL", "WEIGHTS"),
        help="also score captions by CLIPScore: name and weights as open_clip takes them",
    )
    parser.add_argument(
        "--allow-pipe",
        action="store_true",
        help="let a task file run the pipe: commands that it names as its files",
    )
    parser.add_argument("--batch-size", type=at_least(1), default=32)
    parser.add_argument(
        "--cache", type=Path, default=Path("data/cache/clip"), help="folder for features of RICES"
    )
    return parser


def baseline_shots(shots: list[int]) -> int:
    """The number of shots to score baselines at: 4 if asked for, else the most; 1 at least."""
    return 4 if 4 in shots else max(*shots, 1)


def chooser(support: str, data: TaskData, model: MiniFlamingo, cache: Path, ranks: Ranks) -> Choose:
    """How shots are chosen, with the features that RICES needs."""
    if support == "random":
        return at_random(data)
    pictures = pictures_of(data)
    vision = model.config.vision
    encoder = (model.config.fingerprints or {})["vision"]
    features = {}
    if ranks.rank == 0:
        with tqdm(total=len(pictures), desc="RICES features", unit="picture") as bar:
            features = clip_features(vision, encoder, pictures, cache, model.device, bar.update)
    return most_similar(data, ranks.agree(features))


def prepare(args: argparse.Namespace, task: Task, data: TaskData, ranks: Ranks) -> Evaluation:
    """Check all pictures, then load the model."""
    pictures = ranks.share(pictures_of(data))
    with tqdm(
        total=len(pictures), desc="checking pictures", unit="picture", disable=ranks.rank > 0
    ) as bar:
        check_pictures(pictures, bar.update)
    model = MiniFlamingo.from_pretrained(args.model).to(device_of_rank())
    reader = Reader(model, MiniFlamingoProcessor.from_pretrained(args.model))
    choose = chooser(args.support, data, model, args.cache, ranks)
    return Evaluation(reader, task, data, choose, args.permutations, args.batch_size, ranks)


def load_more(args: argparse.Namespace, task: Task) -> CLIPScore | None:
    """Check what the scores beside the task's own need; load CLIPScore's model if it is asked for.

    Raises:
        UserError: If the task has no captions, or something is missing.
    """
    if (args.java or args.clip_score) and task.metric != "captioning":
        raise UserError(
            f"--java and --clip-score are of captions; the task {task.name!r} has metric: "
            f"{task.metric}."
        )
    if args.java:
        check_java()
    return load_clip_score(*args.clip_score) if args.clip_score else None


def more_scores(
    java: bool, clip: CLIPScore | None, data: TaskData, predictions: list[Prediction]
) -> dict[Key, dict[str, float]]:
    """Scores of the real pictures' cells beside the task's own."""
    cells = {key: cell for key, cell in cells_of(predictions).items() if key[0] == "real"}
    pictures = {query.key: query.image for query in data.queries}
    by_java = java_scores(cells) if java else {}
    by_clip = clip_scores(cells, pictures.__getitem__, clip) if clip else {}
    return {key: by_java.get(key, {}) | by_clip.get(key, {}) for key in cells}


def show_comparison(arguments: list[str]) -> bool:
    """Compare two results if that is what is asked."""
    parser = argparse.ArgumentParser("miniflamingo fewshot", allow_abbrev=False)
    parser.add_argument("--compare", nargs=2, type=Path, metavar=("A", "B"), required=True)
    parser.add_argument("--anyway", action="store_true")
    if "--compare" not in arguments:
        return False
    args = parser.parse_args(arguments)
    Console().print(comparison_table(compare(*args.compare, anyway=args.anyway)))
    return True


def report(run: Evaluation, results: Results, predictions: list[Prediction], out: Path) -> None:
    """Write all files of the report, print its tables and say where the files are."""
    queries = {query.key: query for query in run.data.queries}

    def prompt_of(prediction: Prediction) -> Document:
        asked = [queries[prediction.key]]
        shots, seed = prediction.shots, prediction.seed
        return prompts_of(run.task, asked, run.choose, shots, seed)[0].document

    write_results(results, out)
    write_predictions(predictions, out / PREDICTIONS_FILE)
    line = None
    if any(each.condition == "no_media" for each in results.summaries):
        line = looking_line(results.summaries, results.headline)
    files = write_report(results, predictions, prompt_of, line, out)
    console = Console()
    for table in terminal_tables(results):
        console.print(table)
    if line:
        console.print(as_markup(line))
    for file in (*files, out / PREDICTIONS_FILE, out / RESULTS_FILE):
        console.print(as_markup(f"  {file}"))


def main(arguments: list[str]) -> None:
    """Check everything, then evaluate, then write and print."""
    if show_comparison(arguments):
        return
    args = make_parser().parse_args(arguments)
    task = load_task(args.task, args.allow_pipe)
    if args.true_zero_shot:
        task = replace(task, text_examples=0)
    if args.baselines and task.classify:
        raise UserError(f"--baselines writes answers, but the task {task.name!r} classifies.")
    data = load_data(task, args.queries)
    check_shots(data, [*args.shots, task.text_examples])
    described = protocol(task, data, args.support, args.permutations)
    prints = fingerprints(args.model, data)
    disable_progress_bar()
    clip = load_more(args, task)
    ranks = join()
    cells = args.out / "cells"
    run = prepare(args, task, data, ranks)
    described |= arithmetic(run.reader.model, args.batch_size)
    if ranks.rank == 0:
        claim_folder(cells, {"protocol": described, "fingerprints": prints})
    started = time.time()
    seeds = list(range(args.seeds))
    predictions = evaluate(run, args.shots, seeds, args.looking, cells)
    if args.baselines:
        predictions += evaluate_baselines(run, baseline_shots(args.shots), seeds[0], cells)
    leave()
    if ranks.rank > 0:
        return
    more = more_scores(args.java, clip, data, predictions)
    results = Results(
        task.name,
        args.model,
        task.metric,
        metric_for(task.metric).headline,
        with_more_scores(summarise(predictions, task.metric), more),
        described | {"seeds": seeds},
        prints,
        versions(),
        round(time.time() - started, 1),
    )
    report(run, results, predictions, args.out)
