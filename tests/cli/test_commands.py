"""The commands as a user types them, on an exported tiny model."""

import json
import subprocess
import sys

import pytest
import tiny
import torch

from miniflamingo.__main__ import COMMANDS, main, usage
from miniflamingo.cli import caption


def test_caption_prints_one_line_a_picture(exported, tmp_path, capsys):
    files = []
    for seed in range(3):
        files.append(str(tmp_path / f"{seed}.png"))
        tiny.picture(seed, 20).save(files[-1])
    arguments = ["--model", exported, "--shot", files[0], "a cat.", *files[1:]]
    caption.main([*arguments, "--max-new-tokens", "4", "--json"])
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["image"] for row in rows] == files[1:]
    assert all(isinstance(row["caption"], str) for row in rows)


def test_a_missing_picture_is_told_before_the_model_loads():
    with pytest.raises(ValueError, match=r"cannot read the picture nope\.png"):
        caption.main(["--model", "no/such/model", "nope.png"])


def test_a_folder_that_is_no_export_is_told(tmp_path):
    file = tmp_path / "0.png"
    tiny.picture(0).save(file)
    with pytest.raises(ValueError, match="is not an exported MiniFlamingo"):
        caption.main(["--model", str(tmp_path), str(file)])


def test_a_users_mistake_ends_with_one_line_and_code_2():
    command = [sys.executable, "-m", "miniflamingo", "caption", "--model", "m", "nope.png"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1].startswith("miniflamingo caption: cannot read")
    assert "Traceback" not in done.stderr


def test_an_error_of_the_program_shows_its_traceback(monkeypatch):
    def fault(arguments):
        torch.nn.functional.cross_entropy(torch.zeros(2, 3), torch.zeros(3, dtype=torch.long))

    monkeypatch.setattr(caption, "main", fault)
    monkeypatch.setattr(sys, "argv", ["miniflamingo", "caption", "query.png"])
    with pytest.raises(ValueError, match="batch_size"):
        main()


def test_usage_names_every_command():
    assert all(name in usage() for name in COMMANDS)
