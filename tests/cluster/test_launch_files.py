"""The launch files say what their machines understand, and options that ``fit`` has."""

import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml
from test_configs import parse

ROOT = Path(__file__).parents[2]
CLUSTER = ROOT / "configs" / "cluster"


def test_jobset_agrees_with_itself_and_with_fit():
    job_set = yaml.safe_load((CLUSTER / "jobset.yaml").read_text())
    assert (job_set["apiVersion"], job_set["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    name = job_set["metadata"]["name"]
    (replicated,) = job_set["spec"]["replicatedJobs"]
    job = replicated["template"]["spec"]
    pod = job["template"]["spec"]
    (container,) = pod["containers"]

    _, options = container["args"][0].split(" fit ")
    options = options.split()
    config = parse(ROOT / options[1], *options[2:])
    assert options[0] == "--config"
    assert config.ckpt_path == "last"
    assert config.trainer.num_nodes == job["parallelism"] == job["completions"]
    assert int(config.trainer.devices) == container["resources"]["limits"]["nvidia.com/gpu"]
    mounts = [mount["mountPath"] for mount in container["volumeMounts"]]
    assert mounts[0] == "/" + config.trainer.default_root_dir.split("/")[1]
    assert {mount["name"] for mount in container["volumeMounts"]} == {
        volume["name"] for volume in pod["volumes"]
    }
    # The API: a pod failure policy asks for restartPolicy Never, an index for completionMode.
    assert pod["restartPolicy"] == "Never"
    assert job["completionMode"] == "Indexed"
    assert job["podFailurePolicy"]["rules"][0]["onExitCodes"]["containerName"] == container["name"]
    environment = {each["name"]: each["value"] for each in container["env"]}
    assert environment["MASTER_ADDR"] == f"{name}-{replicated['name']}-0-0.{name}"


@pytest.mark.parametrize("name", ["slurm_one_node.sbatch", "slurm_many_nodes.sbatch"])
def test_sbatch_files_signal_before_the_end_and_may_be_requeued(name):
    text = (CLUSTER / name).read_text()
    assert "#SBATCH --requeue" in text
    assert "#SBATCH --signal=USR1@" in text
    assert "#SBATCH --open-mode=append" in text
    assert "source configs/cluster/slurm_steps.sh" in text
    for recipe in re.findall(r"configs/\w+\.yaml", text):
        assert (ROOT / recipe).is_file()


@pytest.fixture
def slurm_steps(tmp_path):
    """Run the body of the sbatch files with an srun that exits with a code."""

    def slurm_steps(code, restarts=0):
        for tool, line in (("srun", f"exit {code}"), ("scontrol", "")):
            (tmp_path / tool).write_text(f'#!/bin/sh\necho {tool} "$@"\n{line}\n')
            (tmp_path / tool).chmod(0o755)
        environment = os.environ | {
            "PATH": f"{tmp_path}:{os.environ['PATH']}",
            "SLURM_JOB_ID": "7",
            "SLURM_NTASKS_PER_NODE": "4",
            "SLURM_JOB_NUM_NODES": "2",
            "SLURM_RESTART_COUNT": str(restarts),
        }
        line = ["bash", str(CLUSTER / "slurm_steps.sh"), "--config", "configs/gpu_8x.yaml"]
        done = subprocess.run(line, env=environment, capture_output=True, text=True)
        return done.returncode, done.stdout

    return slurm_steps


@pytest.mark.parametrize(
    ("code", "restarts", "requeued"),
    [(0, 0, False), (75, 0, True), (137, 3, True), (1, 0, False), (2, 0, False), (75, 50, False)],
)
def test_a_job_goes_back_in_the_queue_if_it_can_go_on(slurm_steps, code, restarts, requeued):
    found, shown = slurm_steps(code, restarts)
    assert found == code
    assert ("scontrol requeue 7" in shown) is requeued


def test_the_job_takes_its_size_from_slurm(slurm_steps):
    _, shown = slurm_steps(0)
    options = shown.splitlines()[0].partition(" fit ")[2].split()
    assert options[0] == "--config"
    config = parse(ROOT / options[1], *options[2:])  # in this order: the recipe says 8 and 1
    assert (config.trainer.devices, config.trainer.num_nodes) == ("4", 2)
    assert config.ckpt_path == "last"


def test_make_train_launches():
    def line(*variables):
        make = ["make", "-n", "--no-print-directory", "train", "CONFIG=configs/gpu_8x.yaml"]
        done = subprocess.run([*make, *variables], cwd=ROOT, capture_output=True, text=True)
        return done.stdout.splitlines()[-1] if done.returncode == 0 else done.stderr

    recipe = "--config configs/gpu_8x.yaml"
    assert line("ARGS=--x 1") == f".venv/bin/miniflamingo fit {recipe} --x 1"
    assert line("LAUNCH=torchrun").split() == f"configs/cluster/torchrun.sh {recipe}".split()
    one = line("LAUNCH=slurm", "SBATCH=--time=1").split()
    assert one == f"sbatch --time=1 configs/cluster/slurm_one_node.sbatch {recipe}".split()
    many = line("LAUNCH=slurm", "NODES=4").split()
    assert many == f"sbatch --nodes=4 configs/cluster/slurm_many_nodes.sbatch {recipe}".split()
    assert "LAUNCH=kube is not local, torchrun or slurm" in line("LAUNCH=kube")
