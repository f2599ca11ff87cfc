"""``make test-cluster``: a preempted SLURM job resumes by itself and ends as an undisturbed one.

Brings up SLURM on this machine, submits the embedded recipe, shortened, as a job of two tasks by
the sbatch file that users run, puts it back in the queue in the middle (``scontrol requeue``), and
compares what it exports, bit for bit, with a job that was left alone.
"""

import argparse
import csv
import os
import shutil
import tempfile
import time
from pathlib import Path

import torch
from cluster.slurm import cluster, field, run, state_of, wait_for
from safetensors.torch import load_file

ROOT = Path(__file__).parents[2]
JOB = ROOT / "configs" / "cluster" / "slurm_one_node.sbatch"

SHORT = """\
data:
  sources:
    pairs: {{urls: "data/embedded/pairs/*.tar", batch_size: 2}}
    documents: {{urls: "data/embedded/documents/*.tar", batch_size: 1}}
trainer:
  max_steps: {steps}
  log_every_n_steps: 1
  val_check_interval: {steps}
  limit_val_batches: 1
  default_root_dir: {folder}
  callbacks:
    - class_path: miniflamingo.training.callbacks.warm_start.ResamplerWarmStart
      init_args: {{source: pairs, pictures: 100, steps: 20, least: 2}}
    - class_path: lightning.pytorch.callbacks.ModelCheckpoint
      init_args: {{every_n_train_steps: 100, save_top_k: 0, save_last: true}}
"""
"""Laid over configs/embedded.yaml: real models and data, fewer of everything."""


def submit(folder: Path, steps: int, recipe: Path) -> str:
    """Submit a training as a job of two tasks; returns its number."""
    folder.mkdir()
    overlay = folder / "short.yaml"
    overlay.write_text(SHORT.format(steps=steps, folder=folder))
    size = ["--ntasks-per-node=2", "--gpus-per-node=0", "--cpus-per-task=1"]
    output = f"--output={folder}/job.log"
    line = ["--config", str(recipe), "--config", str(overlay), "--trainer.accelerator", "cpu"]
    return run("sbatch", "--parsable", f"--chdir={ROOT}", *size, output, str(JOB), *line)


def step_of(folder: Path) -> int:
    """Last step that the log holds, -1 before the first."""
    steps = [-1]
    for file in folder.glob("csv/version_*/metrics.csv"):
        steps += [int(row["step"]) for row in csv.DictReader(file.open()) if row["step"]]
    return max(steps)


def wait_for_end(job: str, folder: Path, seconds: float) -> None:
    """Wait until a job has completed; stop with its log if it failed."""
    wait_for(lambda: state_of(job) not in ("PENDING", "RUNNING", "COMPLETING"), seconds, "the job")
    if state_of(job) != "COMPLETED":
        raise SystemExit(f"job {job}: {state_of(job)}\n{log_of(folder)[-4000:]}")


def log_of(folder: Path) -> str:
    """What a job printed; two ranks' progress bars may cut each other's characters."""
    return (folder / "job.log").read_text(errors="replace")


def main() -> None:
    """Run both jobs and compare."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--steps", type=int, default=12, help="of training (12)")
    parser.add_argument("--recipe", type=Path, default=ROOT / "configs" / "embedded.yaml")
    parser.add_argument("--wait", type=float, default=1800, help="seconds for a job (1800)")
    args = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = "1"
    place = Path(tempfile.mkdtemp(prefix="miniflamingo-cluster-"))
    print(f"logs are in {place}", flush=True)
    preempted, alone = place / "preempted", place / "alone"
    with cluster(place / "slurm"):
        job = submit(preempted, args.steps, args.recipe)
        middle = args.steps // 2
        wait_for(lambda: step_of(preempted) >= middle, args.wait, f"step {middle}")
        run("scontrol", "requeue", job)
        print(f"job {job} requeued by scontrol after step {middle}", flush=True)
        wait_for(lambda: field(job, "Restarts") != "0", 60, "the job to be requeued")
        wait_for_end(job, preempted, args.wait)
        told = [line for line in log_of(preempted).splitlines() if "stopped after step" in line]
        assert told, "the job was not told to stop, or had no time to write a checkpoint"
        assert "Restored all states from the checkpoint" in log_of(preempted)
        assert "MEMBER: 2/2" in log_of(preempted)
        assert field(job, "Restarts") == "1"
        print("\n".join(told))
        print(f"job {job}: {state_of(job)}, Restarts={field(job, 'Restarts')}", flush=True)

        other = submit(alone, args.steps, args.recipe)
        wait_for_end(other, alone, args.wait)
        print(f"job {other}: {state_of(other)}, undisturbed")
    weights = [load_file(run_ / "model" / "model.safetensors") for run_ in (preempted, alone)]
    assert weights[0].keys() == weights[1].keys()
    different = [key for key in weights[0] if not torch.equal(weights[0][key], weights[1][key])]
    if different:
        raise SystemExit(f"{len(different)} weights differ, the first being {different[0]}")
    print(f"all {len(weights[0])} trained tensors are equal bit for bit")
    shutil.rmtree(place)


if __name__ == "__main__":
    began = time.monotonic()
    main()
    print(f"{time.monotonic() - began:.0f} s")
