"""``miniflamingo describe`` as a user types it, on models that are here as configurations only."""

import json
from pathlib import Path

import pytest

from miniflamingo.cli.describe import in_units, main

ROOT = Path(__file__).parents[2]
MODELS = ROOT / "configs" / "model"
SMALL = str(MODELS / "smollm2_135m.yaml")


@pytest.fixture(autouse=True)
def hub(monkeypatch):
    """Hub names are folders here."""
    monkeypatch.chdir(ROOT / "tests" / "hub")
    monkeypatch.setenv("COLUMNS", "120")


@pytest.fixture
def tiny_model(language_folder, clip_folder, tmp_path):
    """A model file of the tiny models."""
    file = tmp_path / "tiny.yaml"
    parts = f"language: {language_folder}, vision: {{name: 'local-dir:{clip_folder}'}}"
    sizes = "resampler: {width: 16, heads: 2}, xattn: {first: 1, heads: 2}, optim: {lr: 1.0}"
    file.write_text(f"model: {{{parts}, {sizes}}}\n")
    return str(file)


def described(capsys, *arguments):
    main([*arguments, "--json"])
    return json.loads(capsys.readouterr().out)


def test_tables(capsys):
    main(["--config", SMALL])
    shown = capsys.readouterr().out
    assert "134,515,008" in shown
    assert "Arithmetic of a step: 4 documents of 256 tokens and 5 images" in shown
    assert "precision 32-true" in shown
    assert "35.1 GFLOP" in shown  # ViT-B/16 is published with 17.6 G multiply-adds
    assert "projected step: 0.0513 s at 100 TFLOP/s and 40% utilisation" in shown


def test_a_model_over_a_recipe(capsys, tiny_model):
    alone = described(capsys, "--config", tiny_model)
    mixed = described(capsys, "--config", tiny_model, "--trainer.precision", "bf16-mixed")
    part = "activations, gated cross-attention"
    assert mixed["memory"][part] < 0.7 * alone["memory"][part]
    recipe = str(ROOT / "configs" / "gpu_24gb.yaml")  # trains in bf16-mixed, from layer 0 on
    over = described(capsys, "--config", recipe, "--config", tiny_model)
    assert (
        over["parameters"]["frozen language model"]
        == (alone["parameters"]["frozen language model"])
    )
    assert over["memory"][part] < 0.7 * alone["memory"][part]


def test_memory_is_that_of_the_recipes_choices(capsys, tiny_model):
    def held(*options):
        return described(capsys, "--config", tiny_model, *options)["memory"]

    plain = held()
    again = held("--model.checkpoint_activations", "true")
    part = "activations, gated cross-attention"
    assert again[part] == plain[part] // 2  # one of two blocks at a time
    sharded = held("--trainer.strategy", "sharded", "--trainer.devices", "4")
    assert sharded["optimizer"] == plain["optimizer"] // 4
    assert sharded["gathered weights"] > 0
    packed = held("--model.language_bits", "8")
    # Matrices of float32 become bytes and a scale for each row.
    matrices, rows = 3 * (2 * 32 * 32 + 2 * 16 * 32 + 3 * 64 * 32), 3 * (3 * 32 + 2 * 16 + 2 * 64)
    assert plain["frozen weights"] - packed["frozen weights"] == 3 * matrices - 4 * rows


def test_choices_are_shown_side_by_side(capsys):
    """SmolLM2 in bfloat16: of 106 million weights of matrices each loses a byte, or 1.4."""
    main(["--config", SMALL, "--documents", "2", "--devices", "4"])
    shown = capsys.readouterr().out
    rows = {
        cells[0].strip(): [float(cell) for cell in cells[1:5]]
        for line in shown.splitlines()
        if len(cells := line.strip("│").split("│")) == 5 and cells[4].strip()[:1].isdigit()
    }
    frozen, trained, kept, everything = rows["this recipe"]
    assert frozen == pytest.approx(2 * (134.5e6 + 86.2e6) / 1e9, abs=0.01)
    assert everything == pytest.approx(frozen + trained + kept, abs=0.02)
    assert rows["frozen weights in float32"][0] == pytest.approx(2 * frozen, abs=0.01)
    assert rows["frozen weights in bfloat16"] == rows["this recipe"]
    assert rows["model.language_bits: 8"][0] == pytest.approx(frozen - 0.106, abs=0.01)
    assert rows["model.language_bits: 4"][0] == pytest.approx(frozen - 0.152, abs=0.01)
    assert rows["trainer.strategy: sharded, 4 devices"][1] == pytest.approx(trained / 4, abs=0.01)
    assert rows["model.checkpoint_activations: true"][2] < 0.4 * kept


def test_the_embedded_recipe(capsys):
    clip = f"local-dir:{ROOT / 'configs' / 'embedded_clip'}"
    names = ["--model.language", "HuggingFaceTB/SmolLM2-135M", "--model.vision.name", clip]
    found = described(capsys, "--config", str(ROOT / "configs" / "embedded.yaml"), *names)
    assert found["parameters"]["frozen language model"] == {"all": 134_515_008, "trained": 0}
    rows = found["parameters"]["rows of <image> and <|endofchunk|>"]
    assert rows == {"all": 4 * 576, "trained": 2 * 576}


def test_the_batch_counts(capsys, tiny_model):
    one = described(capsys, "--config", tiny_model, "--documents", "1")
    two = described(capsys, "--config", tiny_model, "--documents", "2", "--flops", "200e12")
    assert two["step_seconds"] == pytest.approx(one["step_seconds"])
    assert two["memory"]["gradients"] == one["memory"]["gradients"]
    other = ["--tokens", "64", "--media", "0", "--labels", "1", "--utilisation", "1"]
    text = described(capsys, "--config", tiny_model, *other)
    assert text["flops"]["frozen image encoder"]["forward"] == 0
    total = sum(part["forward"] + part["backward"] for part in text["flops"].values())
    assert text["step_seconds"] == pytest.approx(total / 100e12)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config", "nope.yaml"], r"--config nope\.yaml: there is no such file"),
        (["--config", SMALL, "--model.xattn.evry", "2"], r"unrecognized arguments: --model\.xattn"),
        (["--config", SMALL, "--model.language", "./no"], r"language='\./no' looks like a folder"),
        (["--config", SMALL, "--documents", "0"], "must be at least 1"),
        (["--config", SMALL, "--devices", "1"], "--devices 1 must be at least 2"),
        (["--config", SMALL, "--tokens", "4"], "--media 5 does not fit --tokens 4"),
        (["--config", SMALL, "--labels", "257"], "--labels 257 does not fit --tokens 256"),
        (["--config", SMALL, "--utilisation", "1.5"], "--utilisation above 0 and at most 1"),
    ],
)
def test_mistakes_are_told(arguments, message):
    with pytest.raises(ValueError, match=message):
        main(arguments)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("model: {langage: x}", "does not accept option 'langage'"),
        ("model: {}", r"required: model\.language, model\.vision\.name"),
        ("model: [", "Problems parsing config"),
    ],
)
def test_mistakes_in_a_file_are_told_with_its_name(content, message, tmp_path):
    file = tmp_path / "bad.yaml"
    file.write_text(content)
    with pytest.raises(ValueError, match=rf"bad\.yaml: .*{message}"):
        main(["--config", str(file)])


def test_help(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "later ones win" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("amount", "text"),
    [(0, "0 B"), (999, "999 B"), (999.9, "1 kB"), (1.5e12, "1.5 TB"), (3e21, "3e+06 PB")],
)
def test_units(amount, text):
    assert in_units(amount, "B") == text
