"""Every shipped recipe parses; those with hub models are built on the meta device."""

from pathlib import Path

import open_clip
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from miniflamingo.cli.fit import FlamingoCLI
from miniflamingo.data.datamodule import InterleavedData
from miniflamingo.model import flamingo
from miniflamingo.model.parameters import count_parameters
from miniflamingo.model.vision import FrozenVision
from miniflamingo.training import module as training
from miniflamingo.training.optim import make_optimizer

CONFIGS = Path(__file__).parents[1] / "configs"
HUB = Path(__file__).parent / "hub"
RECIPES = sorted(CONFIGS.glob("*.yaml"))


class Parsed(FlamingoCLI):
    """Parses, and builds nothing."""

    def instantiate_classes(self) -> None:
        pass

    def _run_subcommand(self, subcommand: str) -> None:
        pass


def parse(recipe: Path, *arguments: str):
    """The settings of a recipe, every key checked against the code's signatures."""
    cli = Parsed(
        training.FlamingoModule,
        InterleavedData,
        args=["fit", "--config", str(recipe), *arguments],
        parser_kwargs={"allow_abbrev": False},
    )
    return cli.config.fit


def name_of(recipe: Path) -> str:
    return recipe.stem


def test_there_are_recipes():
    assert {"embedded", "smoke", "gpu_24gb", "gpu_8x"} <= {recipe.stem for recipe in RECIPES}


@pytest.mark.parametrize("recipe", RECIPES, ids=name_of)
def test_recipe_parses(recipe):
    config = parse(recipe)
    assert set(config.model.source_weights) == set(config.data.sources)
    assert config.trainer.default_root_dir == f"runs/{recipe.stem}"  # where `make train` looks
    with pytest.raises(SystemExit):
        parse(recipe, "--model.xattn.evry", "2")


@pytest.fixture
def on_meta(monkeypatch, processor):
    """Let the frozen parts come from their shapes alone."""

    def load_language(name, dtype):
        config = AutoConfig.from_pretrained(HUB / name)
        return AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype))

    def load_vision(config):
        assert config.pretrained in open_clip.list_pretrained_tags_by_model(config.name)
        model = open_clip.create_model(config.name, device="meta")
        return FrozenVision(config, model.get_submodule("visual"))

    monkeypatch.setattr(flamingo, "load_language", load_language)
    monkeypatch.setattr(flamingo, "load_vision", load_vision)
    from_pretrained = AutoConfig.from_pretrained
    monkeypatch.setattr(AutoConfig, "from_pretrained", lambda name: from_pretrained(HUB / name))
    monkeypatch.setattr(training, "load_tokenizer", lambda name: processor.tokenizer)


SIZES = {  # as published: language model, image tower
    "gpu_24gb": (361_821_120, 303_966_208),
    "gpu_8x": (1_720_574_976, 303_966_208),
}


@pytest.mark.parametrize("name", SIZES)
def test_recipe_with_hub_models_builds(name, on_meta):
    config = parse(CONFIGS / f"{name}.yaml").model
    settings = config.as_dict()
    for key, kind in (
        ("vision", training.VisionConfig),
        ("resampler", training.ResamplerConfig),
        ("xattn", training.XattnConfig),
        ("optim", training.OptimConfig),
    ):
        settings[key] = kind(**settings[key])
    with torch.device("meta"):
        module = training.FlamingoModule(**settings)
    model = module.model
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}
    counts = count_parameters(model)
    language, vision = SIZES[name]
    assert counts["frozen language model"] == (language, 0)
    assert counts["frozen image encoder"] == (vision, 0)
    assert model.language.dtype == torch.bfloat16
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    assert trained > 100_000_000
    layers = model.language.config.num_hidden_layers
    assert len(list(model.gated_blocks())) == len(range(0, layers, settings["xattn"].every))
    optimizer, _ = make_optimizer(model, settings["optim"], 100)
    assert sum(p.numel() for group in optimizer.param_groups for p in group["params"]) == trained
    assert model.vision(torch.zeros(2, 1, 3, 224, 224, device="meta")).shape == (2, 1, 256, 1024)
