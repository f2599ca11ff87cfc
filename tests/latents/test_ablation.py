"""What the runs came to, and that every variant is what its name says."""

import json
import math

import pytest
from PIL import Image
from rich.console import Console
from test_configs import CONFIGS, parse

from miniflamingo.latents.ablation import (
    VARIANTS,
    Result,
    ablation_markdown,
    ablation_table,
    draw_ablation,
    mean_and_spread,
)


def result(variant: str, seed: int, loss: float) -> Result:
    return Result(variant, seed, 16, 6000, 0.5, loss, 2 * loss, 3.0, math.nan, 60.0, [], loss)


RESULTS = [result("learned", 0, 1.0), result("1 latent", 0, 2.0), result("learned", 1, 1.2)]


def test_means_and_spread():
    assert mean_and_spread([1.0, 1.2]) == "1.1 ± 0.14"
    assert mean_and_spread([2.0]) == "2"


def test_the_table_has_a_row_a_variant():
    lines = ablation_markdown(RESULTS).splitlines()
    assert len(lines) == 4
    assert lines[2].startswith("| learned | 2 | 6,000 | 0.5 ± 0 | 1.1 ± 0.14 | 2.2 ± 0.28 |")
    assert lines[2].endswith("| 3 ± 0 | - | 60 ± 0 |")
    assert lines[3].startswith("| 1 latent | 1 | 6,000 | 0.5 | 2 | 4 |")
    console = Console(width=200, record=True)
    console.print(ablation_table(RESULTS))
    assert "1.1 ± 0.14" in console.export_text()


def test_the_picture_opens(tmp_path):
    draw_ablation(RESULTS, tmp_path / "ablation.png")
    assert min(Image.open(tmp_path / "ablation.png").size) > 100


EXPECTED = {
    "learned": {},
    "frozen at random": {"train_latents": False},
    "from k-means, learned": {},
    "from k-means, frozen": {"train_latents": False},
    "mean of patches": {"depth": 0, "latents": 1},
    "1 latent": {"latents": 1},
    "4 latents": {"latents": 4},
    "64 latents": {"latents": 64},
    "latents are no keys": {"read_latents": False},
}


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.name)
def test_a_variant_changes_what_its_name_says(variant):
    recipe = CONFIGS / "ablation.yaml"
    before, after = parse(recipe), parse(recipe, *variant.options)
    changed = {
        name: value
        for name, value in vars(after.model.resampler).items()
        if value != before.model.resampler[name]
    }
    assert changed == EXPECTED[variant.name]
    paths = [callback.class_path for callback in after.trainer.callbacks]
    assert paths[: len(before.trainer.callbacks)] == [
        callback.class_path for callback in before.trainer.callbacks
    ]
    added = paths[len(before.trainer.callbacks) :]
    kmeans = ["miniflamingo.latents.start.LatentsFromClusters"]
    assert added == (kmeans if "k-means" in variant.name else [])


def test_results_survive_their_file():
    one = result("learned", 0, 1.0)
    again = Result(**json.loads(json.dumps(one._asdict())))
    assert again[:8] == one[:8]
    assert math.isnan(again.objects)
