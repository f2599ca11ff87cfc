"""A run keeps its latents; the command draws them; a run that kept none is told."""

import json

import pytest
import tiny
import torch
from PIL import Image

from miniflamingo.cli.fit import run_command
from miniflamingo.cli.latents import main
from miniflamingo.latents import LatentsHistory, read_history
from miniflamingo.latents.curves import chosen, draw_film, figures_of
from miniflamingo.training.logs import read_curves

CALLBACKS = [
    {
        "class_path": "miniflamingo.latents.history.LatentsHistory",
        "init_args": {"every": 2},
    },
    {"class_path": "miniflamingo.latents.panel.GroundingPanel"},
]


@pytest.fixture
def watched(config, write):
    """A configuration with both callbacks, before the warm start; options change it."""
    config["trainer"]["callbacks"] = [*CALLBACKS, *config["trainer"]["callbacks"]]
    return ["fit", "--config", write(config), "--trainer.enable_progress_bar=false"]


def test_a_run_keeps_its_latents_from_drawn_to_the_end(watched, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "140")
    trained = run_command(watched).model.model
    run = tmp_path / "run"
    history = read_history(run)
    kept = [(each.step, each.stage) for each in history.snapshots]
    assert kept == [(0, "drawn"), (0, "training"), (2, "training"), (4, "training"), (6, "end")]
    drawn, first, *_, end = history.snapshots
    assert drawn.latents.shape == (3, 16)
    assert not torch.equal(drawn.latents, first.latents)  # the warm start lies between
    assert torch.equal(end.latents, trained.resampler.latents.detach().half())
    assert first.gradient_norms.isfinite().all()
    assert end.gradient_norms.isnan().all()
    assert history.snapshots[3].gradient_norms.min() > 0
    gates = [block.attention_gate.detach().tanh() for block in trained.gated_blocks()]
    assert torch.equal(end.attention_gates, torch.cat(gates))
    assert end.maps.shape == (2, 3, 4)
    assert history.frames.shape == (1, 16, 16, 3)
    sizes = [file.stat().st_size for file in (run / "latents").iterdir()]
    assert max(sizes) < 3000

    curves = read_curves(run, "grounding/")
    assert {"grounding/real", "grounding/swapped", "grounding/both_closed/1"} <= set(curves)
    assert len(curves) == 8
    assert [step for step, _ in curves["grounding/real"]] == [1, 3, 5]

    main(["history", "--run", str(run)])
    shown = capsys.readouterr().out
    for name in ("history.png", "film.png", "grounding.png"):
        assert min(Image.open(run / "latents" / name).size) > 200
        assert name in shown
    figures = json.loads((run / "latents" / "history.json").read_text())
    assert [each["step"] for each in figures] == [0, 0, 2, 4, 6]
    assert figures[0]["distance"] == [0, 0, 0]
    assert "effective rank" in shown


def test_a_resumed_run_adds_and_a_new_one_begins_anew(watched, tmp_path):
    run_command([*watched, "--trainer.max_steps=3"])
    last = str(tmp_path / "run" / "checkpoints" / "last.ckpt")
    run_command([*watched, "--ckpt_path", last])
    kept = [(each.step, each.stage) for each in read_history(tmp_path / "run").snapshots]
    assert kept == [
        (0, "drawn"), (0, "training"), (2, "training"), (3, "end"), (4, "training"), (6, "end")
    ]  # fmt: skip
    run_command([*watched, "--trainer.max_steps=1", "--overwrite"])
    kept = [(each.step, each.stage) for each in read_history(tmp_path / "run").snapshots]
    assert kept == [(0, "drawn"), (0, "training"), (1, "end")]


@pytest.mark.parametrize("options", [["frozen"], ["no layers"]])
def test_latents_that_do_not_train_and_a_resampler_without_layers(watched, tmp_path, options):
    change = {
        "frozen": "--model.resampler.train_latents=false",
        "no layers": "--model.resampler.depth=0",
    }[options[0]]
    run_command([*watched, change, "--trainer.max_steps=2"])
    history = read_history(tmp_path / "run")
    first, last = history.snapshots[0], history.snapshots[-1]
    assert torch.equal(first.latents, last.latents) == (options == ["frozen"])
    known = figures_of(history.snapshots[1], first)["gradient_norm"] is not None
    assert known == (options != ["frozen"])
    main(["history", "--run", str(tmp_path / "run"), "--out", str(tmp_path / "out")])
    assert (tmp_path / "out" / "film.png").is_file() == (options == ["frozen"])
    if options == ["no layers"]:
        with pytest.raises(ValueError, match="hold no attention maps, so there is no film"):
            draw_film(history, tmp_path / "film.png")


def test_a_validation_that_begins_with_a_text_and_one_of_texts_alone(watched, world, tmp_path):
    text = {"json": json.dumps({"chunks": [{"text": "a dog."}]}).encode()}
    shard = tiny.write_shard(tmp_path / "validation" / "0.tar", {"t0": text, "t1": text})
    both = f"['{shard}','{world}/validation/0.tar']"
    run_command([*watched, f"--data.validation.urls={both}", "--trainer.max_steps=2"])
    assert read_history(tmp_path / "run").snapshots[0].maps.shape[-1] == 4
    texts = f"--data.validation.urls={shard}"
    with pytest.raises(ValueError, match="LatentsHistory looks at the first validation picture"):
        run_command([*watched, texts, "--trainer.max_steps=2", "--overwrite"])


def test_a_run_without_history_is_told(tmp_path):
    with pytest.raises(ValueError, match=r"kept no history of its latents.*LatentsHistory"):
        main(["history", "--run", str(tmp_path)])
    with pytest.raises(ValueError, match="there is no run"):
        main(["history", "--run", str(tmp_path / "nowhere")])


def test_a_rhythm_of_no_steps():
    with pytest.raises(ValueError, match=r"LatentsHistory\.every is 0"):
        LatentsHistory(every=0)


@pytest.mark.parametrize(("count", "most", "places"), [(3, 8, [0, 1, 2]), (9, 3, [0, 4, 8])])
def test_the_first_and_the_last_are_always_shown(count, most, places):
    assert chosen(list(range(count)), most) == places
