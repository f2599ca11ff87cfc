"""``miniflamingo latents ablate``: short runs that differ in the latents alone."""

from __future__ import annotations

import argparse
import json
import math
import shutil
import time
from pathlib import Path

from lightning.fabric.utilities import move_data_to_device
from rich.console import Console

from miniflamingo.cli import fewshot
from miniflamingo.cli.fit import run_command
from miniflamingo.errors import UserError
from miniflamingo.evaluation.results import read_results
from miniflamingo.evaluation.tasks import check_shots, load_data, load_task
from miniflamingo.latents.ablation import (
    AS_IT_IS,
    VARIANTS,
    Result,
    Variant,
    ablation_markdown,
    ablation_table,
    draw_ablation,
)
from miniflamingo.latents.grounding import losses_of, losses_without_each_latent
from miniflamingo.model.parameters import count_parameters
from miniflamingo.terminal import plain
from miniflamingo.training.logs import read_curves


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of the command."""
    names = {variant.name: variant for variant in VARIANTS}
    parser.add_argument("--config", required=True, help="recipe, configs/ablation.yaml for one")
    parser.add_argument("--task", required=True, help="name in configs/tasks, or a YAML file")
    parser.add_argument("--out", type=Path, required=True, help="folder for runs and results")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument(
        "--variants",
        nargs="+",
        choices=names,
        default=list(names),
        metavar="NAME",
        help=f"some of: {', '.join(repr(name) for name in names)}; all if left",
    )
    parser.add_argument("--shots", type=int, default=4, help="of the few-shot task")
    parser.add_argument("--queries", type=int, default=40, help="only a fixed sample of so many")


def few_shot(args: argparse.Namespace, model: Path, out: Path) -> dict[str, float]:
    """Score an exported model by ``miniflamingo fewshot``: CIDEr-D and the rest by name."""
    options = {
        "--model": model,
        "--task": args.task,
        "--shots": args.shots,
        "--queries": args.queries,
        "--looking": 0,
        "--out": out,
    }
    fewshot.main([str(each) for pair in options.items() for each in pair])
    summary = read_results(out).find("real", args.shots)
    assert summary is not None
    return {name: score.mean for name, score in summary.scores.items()}


def last_logged(run: Path, name: str) -> float:
    """The last value that a run logged by a name; NaN if none."""
    curve = read_curves(run, name).get(name)
    return curve[-1][1] if curve else math.nan


def run_variant(args: argparse.Namespace, variant: Variant, seed: int, folder: Path) -> Result:
    """Train a variant in a folder of its own and measure it.

    Args:
        args: Recipe and few-shot task.
        variant: What is changed.
        seed: Of everything drawn.
        folder: Of the run; what an interrupted run left there is removed.
    """
    shutil.rmtree(folder, ignore_errors=True)
    place = f"--trainer.default_root_dir={folder}"
    started = time.process_time()
    # What is there is of a run of this variant that did not come to its end.
    options = [place, f"--seed_everything={seed}", "--overwrite", *variant.options]
    cli = run_command(["fit", "--config", args.config, *options])
    seconds = time.process_time() - started
    model = cli.model.model.eval()
    counts = count_parameters(model)
    scores = few_shot(args, folder / "model", folder / "fewshot")
    without: list[float] = []
    batch = next(iter(cli.datamodule.val_dataloader()))
    batch = move_data_to_device(batch, model.device)
    if variant.name == AS_IT_IS:
        without = losses_without_each_latent(model, [batch]).tolist()
    return Result(
        variant.name,
        seed,
        model.resampler.tokens_per_item,
        sum(trained for _, trained in counts.values()),
        last_logged(folder, "warm_start/recall"),
        last_logged(folder, "val/loss"),
        last_logged(folder, "val/loss_swapped"),
        scores["cider"],
        scores.get("objects", math.nan),
        seconds,
        without,
        float(losses_of(model, batch).mean()),
    )


def write(results: list[Result], out: Path) -> None:
    """Table and picture of what there is so far."""
    lines = [json.dumps(result._asdict()) for result in results]
    (out / "ablation.jsonl").write_text("\n".join(lines) + "\n")
    (out / "ablation.md").write_text(ablation_markdown(results))
    draw_ablation(results, out / "ablation.png")


def claim(args: argparse.Namespace) -> None:
    """Make the folder of the runs, or make sure that it is one of the same recipe and task.

    Raises:
        UserError: If it holds runs of another, or the recipe is missing.
    """
    if not Path(args.config).is_file():
        raise UserError(f"--config {args.config} is no file; give a recipe.")
    settings = {name: getattr(args, name) for name in ("task", "shots", "queries")}
    settings["recipe"] = Path(args.config).read_text()
    file = args.out / "settings.json"
    if file.is_file():
        before = json.loads(file.read_text())
        if other := [name for name, value in settings.items() if before.get(name) != value]:
            raise UserError(
                f"{args.out} holds runs with another {', '.join(other)}; give --out a new folder, "
                "or remove this one."
            )
    args.out.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(settings, indent=2) + "\n")


def run(args: argparse.Namespace) -> None:
    """Run what is not there yet, seed after seed, and tell all."""
    task = load_task(args.task)
    if task.metric != "captioning":
        raise UserError(f"--task {args.task} is scored by {task.metric}; give a captioning task.")
    check_shots(load_data(task, args.queries), [args.shots])
    claim(args)
    chosen = [variant for variant in VARIANTS if variant.name in args.variants]
    console = Console()
    results: list[Result] = []
    for seed in args.seeds:
        for variant in chosen:
            folder = args.out / f"{variant.name.replace(' ', '_').replace(',', '')}-{seed}"
            file = folder / "result.json"
            if file.is_file():
                results.append(Result(**json.loads(file.read_text())))
                continue
            console.print(f"\n{variant.name}, seed {seed}")
            result = run_variant(args, variant, seed, folder)
            file.write_text(json.dumps(result._asdict()) + "\n")
            results.append(result)
            write(results, args.out)
    write(results, args.out)
    console.print(ablation_table(results))
    for name in ("ablation.md", "ablation.png", "ablation.jsonl"):
        print(plain(f"  {args.out / name}"))
