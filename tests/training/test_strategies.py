"""One device, DDP and sharded weights train the same model, on two real processes over gloo."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import ranks
import torch
from safetensors.torch import load_file

from miniflamingo import MiniFlamingo

PLAN = {
    "ddp": {"strategy": "ddp"},
    "sharded": {"strategy": "sharded", "generate": True},
    "ddp-accumulated": {"strategy": "ddp", "accumulated": 2, "steps": 6},
    "sharded-accumulated": {
        "strategy": "sharded", "accumulated": 2, "steps": 6, "checkpoint_activations": True
    },
    "sharded-features": {"strategy": "sharded", "accumulated": 2, "steps": 4, "features": True},
    "sharded-mean": {"strategy": "sharded", "steps": 4, "kind": "mean"},
    "sharded-resumed": {"strategy": "sharded"},
}  # fmt: skip


def launch(folder: Path, plan: dict, number: int = 2, script: str = ranks.__file__) -> None:
    """Run a plan on ranks as torchrun starts them."""
    (folder / "plan.json").write_text(json.dumps(plan))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = []
    for rank in range(number):
        environment = os.environ | {
            "RANK": str(rank), "LOCAL_RANK": str(rank), "GROUP_RANK": "0",
            "WORLD_SIZE": str(number), "LOCAL_WORLD_SIZE": str(number),
            "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_RUN_ID": "test",
            "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "",
            "PYTHONPATH": os.pathsep.join(sys.path),
        }  # fmt: skip
        line = [sys.executable, script, str(folder / "plan.json")]
        processes.append(subprocess.Popen(line, env=environment, stderr=subprocess.PIPE, text=True))
    for process in processes:
        _, errors = process.communicate(timeout=240)
        assert process.returncode == 0, errors[-3000:]


@pytest.fixture(scope="module")
def models(language_folder, clip_folder):
    return {"language": str(language_folder), "clip": str(clip_folder)}


@pytest.fixture(scope="module")
def alone(models, tmp_path_factory):
    """One process, all documents of a step at once."""
    folder = tmp_path_factory.mktemp("alone")
    return folder, ranks.run(folder, **models, generate=True)


@pytest.fixture(scope="module")
def together(models, alone, tmp_path_factory):
    """Two processes, each with half of the documents of a step."""
    folder = tmp_path_factory.mktemp("together")
    plan = {name: models | {"ranks": 2} | settings for name, settings in PLAN.items()}
    plan["sharded-resumed"]["resume"] = str(alone[0] / "step=10.ckpt")
    for name in plan:
        (folder / name).mkdir()
    launch(folder, plan)
    return {name: (folder / name, json.loads((folder / name / "seen-0.json").read_text()))
            for name in plan}  # fmt: skip


def curves(seen) -> torch.Tensor:
    """(steps, sources) logged losses."""
    return torch.tensor(
        [[step[f"train/loss/{name}"] for name in ("pairs", "documents")] for step in seen["steps"]]
    )


def assert_same_weights(folder: Path, other: Path, tolerance: float) -> None:
    mine, others = (load_file(each / "model" / "model.safetensors") for each in (folder, other))
    torch.testing.assert_close(mine, others, rtol=0, atol=tolerance)


@pytest.mark.parametrize("strategy", ["ddp", "sharded"])
def test_two_ranks_have_the_curve_of_one_with_twice_the_batch(alone, together, strategy):
    (folder, seen), (other, expected) = together[strategy], alone
    assert len(curves(seen)) == 20
    assert (curves(expected)[-1] < curves(expected)[0] - 0.5).all()  # it learns
    torch.testing.assert_close(curves(seen), curves(expected), rtol=0, atol=1e-5)
    assert seen["validated"]["val/loss"] == pytest.approx(
        expected["validated"]["val/loss"], abs=1e-5
    )
    assert_same_weights(folder, other, 1e-4)
    MiniFlamingo.from_pretrained(folder / "model")  # frozen parts are those of before sharding


def test_sharded_ranks_hold_half_of_all_weights_and_generate_alike(alone, together):
    assert together["ddp"][1]["numel"] == alone[1]["numel"]
    assert together["sharded"][1]["numel"] < 0.51 * alone[1]["numel"]
    assert together["sharded"][1]["completion"] == alone[1]["completion"]


@pytest.mark.parametrize("strategy", ["ddp", "sharded"])
def test_accumulated_batches_make_the_step_of_one_large_batch(models, together, tmp_path, strategy):
    """Though one of the four parts of every step is a text without a picture."""
    expected = ranks.run(tmp_path, **models, steps=6)
    folder, seen = together[f"{strategy}-accumulated"]
    assert seen["validated"]["val/loss"] == pytest.approx(
        expected["validated"]["val/loss"], abs=1e-5
    )
    assert_same_weights(folder, tmp_path, 2e-5)


def test_a_text_alone_among_patch_features_holds_no_rank_up(models, together, tmp_path):
    """One rank's only document has patches, the other's is a text: neither runs the encoder."""
    expected = ranks.run(tmp_path, **models, steps=4, features=True)
    folder, seen = together["sharded-features"]
    assert seen["validated"]["val/loss"] == pytest.approx(
        expected["validated"]["val/loss"], abs=1e-5
    )
    assert_same_weights(folder, tmp_path, 2e-5)


def test_another_kind_of_resampler_is_sharded_too(models, together, tmp_path):
    expected = ranks.run(tmp_path, **models, steps=4, kind="mean")
    folder, seen = together["sharded-mean"]
    assert seen["validated"]["val/loss"] == pytest.approx(
        expected["validated"]["val/loss"], abs=1e-5
    )
    assert_same_weights(folder, tmp_path, 2e-5)


def test_checkpoints_go_from_one_strategy_to_another(models, alone, together, tmp_path):
    half = torch.load(together["sharded"][0] / "step=10.ckpt", weights_only=True)
    expected = torch.load(alone[0] / "step=10.ckpt", weights_only=True)
    assert half["state_dict"].keys() == expected["state_dict"].keys()
    (mine,), (others,) = half["optimizer_states"], expected["optimizer_states"]
    assert mine["param_groups"] == others["param_groups"]
    torch.testing.assert_close(mine["state"], others["state"], rtol=0, atol=1e-4)

    _, resumed = together["sharded-resumed"]
    torch.testing.assert_close(curves(resumed), curves(alone[1])[10:], rtol=0, atol=1e-5)
    resume = str(together["sharded"][0] / "step=10.ckpt")
    resumed = ranks.run(tmp_path, **models, resume=resume)
    torch.testing.assert_close(curves(resumed), curves(alone[1])[10:], rtol=0, atol=1e-5)
