"""Checkpoint files: whole or not there, and read without trust."""

import contextlib
import os
import random
import re

import numpy as np
import pytest
import torch

from miniflamingo.training.callbacks.random_state import random_state, set_random_state
from miniflamingo.training.checkpoint import (
    CheckpointError,
    CheckpointFiles,
    check_weights,
    read_checkpoint,
)

CONTENT = {
    "state_dict": {"model.weight": torch.arange(5000.0)},
    "loops": {"fit_loop": {}},
    "pytorch-lightning_version": "2.6.6",
    "random_states": [random_state()],
}


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "checkpoints" / "last.ckpt"
    CheckpointFiles().save_checkpoint(CONTENT, path)
    return path


def test_what_is_written_is_read(path):
    found = CheckpointFiles().load_checkpoint(path)
    assert torch.equal(found["state_dict"]["model.weight"], torch.arange(5000.0))
    assert found["random_states"] == CONTENT["random_states"]
    assert [file.name for file in path.parent.iterdir()] == ["last.ckpt"]


def test_a_write_that_fails_leaves_the_file_before(path, monkeypatch):
    before = path.read_bytes()

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    message = f"cannot write the checkpoint {path}: [Errno 28] No space left on device. The one "
    with pytest.raises(CheckpointError, match=re.escape(message)):
        CheckpointFiles().save_checkpoint(CONTENT | {"state_dict": {}}, path)
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == ["last.ckpt"]


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


class Runs:
    def __reduce__(self):
        return (os.mkdir, ("/tmp/this-was-run",))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (flip_a_bit, r"last.ckpt is damaged: the checksum of .* is wrong"),
        (cut, r"last.ckpt is damaged, or no checkpoint: File is not a zip file"),
        (lambda path: path.write_text("hello"), r"last.ckpt is damaged, or no checkpoint"),
        (lambda path: path.unlink(), r"there is no checkpoint at .*last.ckpt\. Give a file of"),
        (lambda path: torch.save(CONTENT | {"x": Runs()}, path), r"nothing in it is run"),
        (lambda path: torch.save({"weight": torch.zeros(2)}, path), r"state_dict, loops, pytorch-"),
        (lambda path: torch.save(torch.zeros(2), path), r"state_dict, loops, pytorch-lightning_v"),
    ],
    ids=["bit", "cut", "text", "gone", "code", "weights", "tensor"],
)
def test_a_damaged_or_foreign_file_is_refused(path, damage, message):
    damage(path)
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(path)
    assert not os.path.exists("/tmp/this-was-run")


def test_weights_must_be_exactly_the_models():
    expected = {"a": torch.zeros(2), "b": torch.zeros(3)}
    check_weights({name: value + 1 for name, value in expected.items()}, expected)
    message = r"Missing: \['b'\]. Unexpected: \['c'\]. Of another shape: \['a \(4,\) instead of"
    with pytest.raises(CheckpointError, match=message):
        check_weights({"a": torch.zeros(4), "c": torch.zeros(1)}, expected)


def test_all_generators_go_on_where_they_were():
    state = random_state()

    def drawn():
        return random.random(), np.random.rand(), torch.rand(3).tolist()

    first = drawn()
    assert drawn() != first
    set_random_state(state)
    assert drawn() == first


def test_a_checkpoint_of_which_any_bit_of_its_directory_has_changed_is_refused(tmp_path):
    file = tmp_path / "last.ckpt"
    CheckpointFiles().save_checkpoint({"state_dict": {"w": torch.zeros(3)}, "loops": {}}, file)
    whole = file.read_bytes()
    start = whole.index(b"PK\x01\x02")  # the zip's directory
    for place in range(start, min(start + 46, len(whole))):
        for bit in range(8):
            damaged = bytearray(whole)
            damaged[place] ^= 1 << bit
            file.write_bytes(damaged)
            with contextlib.suppress(CheckpointError):
                read_checkpoint(file)
