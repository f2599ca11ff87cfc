"""Another kind of resampler goes the whole road: fit, few-shot, and what the latents tools say."""

import pytest
import tiny
import yaml

from miniflamingo.cli import fewshot, latents
from miniflamingo.cli.fit import run_command

HISTORY = {"class_path": "miniflamingo.latents.history.LatentsHistory", "init_args": {"every": 2}}


def test_a_mean_resampler_trains_is_scored_and_says_what_cannot_be_shown(
    config, write, world, tmp_path, capsys, caplog
):
    config["model"]["resampler"] = config["model"]["resampler"] | {"kind": "mean"}
    config["trainer"]["callbacks"].insert(0, HISTORY)
    run_command(["fit", "--config", write(config)])
    assert "LatentsHistory keeps nothing: resampler.kind=mean" in caplog.text
    model = str(tmp_path / "run" / "model")

    task = tmp_path / "task.yaml"
    shards = {"layout": "shards", "urls": f"{world}/validation/0.tar"}
    decoding = {"max_new_tokens": 3, "beams": 1}
    settings = {"name": "t", "queries": shards, "decoding": decoding, "text_examples": 0}
    task.write_text(yaml.safe_dump(settings))
    out = tmp_path / "fewshot"
    fewshot.main(["--model", model, "--task", str(task), "--shots", "1", "--out", str(out)])
    assert (out / "results.json").is_file()

    pictures = []
    for seed in (0, 1):
        pictures.append(str(tmp_path / f"{seed}.png"))
        tiny.picture(seed).save(pictures[-1])
    data = ["--data", f"{world}/validation/0.tar", "--out", str(tmp_path / "out")]
    for command in (["prove", *pictures], ["show", pictures[0], "--out", str(tmp_path / "out")],
                    ["clusters", *data]):  # fmt: skip
        with pytest.raises(ValueError, match="a MeanResampler: it has no learned latents"):
            latents.main([command[0], "--model", model, *command[1:]])
    latents.main(["grounding", "--model", model, *data])
    assert "swapped" in capsys.readouterr().out
    with pytest.raises(ValueError, match="latents"):
        latents.main(["history", "--run", str(tmp_path / "run")])
