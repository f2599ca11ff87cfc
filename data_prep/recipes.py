"""What a command reads: the sources of a training recipe, or shards named alone."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from jsonargparse import Namespace
from transformers import PreTrainedTokenizerBase

from miniflamingo.cli.describe import read_recipe
from miniflamingo.data.source import Layout, SourceConfig
from miniflamingo.errors import UserError
from miniflamingo.model.config import VisionConfig
from miniflamingo.tokens import MediaTokens, load_tokenizer, media_tokens

VALIDATION = "validation"


@dataclass(frozen=True)
class Reading:
    """How training reads some sources.

    Attributes:
        sources: By name.
        language: Folder or hub name of the language model whose tokens are counted.
        max_tokens: Longest document.
        seed: Of what is drawn.
    """

    sources: dict[str, SourceConfig]
    language: str
    max_tokens: int
    seed: int


def reading_of(
    recipe: Path | None, source: str | None, urls: str | None, layout: Layout, language: str | None
) -> Reading:
    """Take the sources of a recipe, or shards named alone with the defaults of a source.

    Args:
        recipe: A YAML that ``miniflamingo fit`` takes.
        source: One of its sources, or ``validation``; None for all of them.
        urls: Shards, instead of a recipe.
        layout: Of ``urls``.
        language: Language model to count tokens by; with ``urls`` it is needed.

    Raises:
        UserError: If not exactly one of ``recipe`` and ``urls`` is given, or a name is unknown.
    """
    if (recipe is None) == (urls is None):
        raise UserError("give either --recipe, whose sources are read, or --urls.")
    if recipe is None:
        if language is None or urls is None:
            raise UserError("--urls needs --language, the folder or hub name of a language model.")
        return Reading({"shards": SourceConfig(urls, 1, layout=layout)}, language, 256, 0)
    settings = read_recipe([str(recipe)])
    sources = {name: as_source(each) for name, each in settings.data.sources.items()}
    sources[VALIDATION] = as_source(settings.data.validation)
    if source is not None:
        sources = {source: pick_source(sources, source, recipe)}
    data = settings.data
    return Reading(sources, language or settings.model.language, data.max_tokens, data.seed)


def read_encoder(recipe: Path, source: str) -> tuple[VisionConfig, SourceConfig]:
    """The image encoder of a recipe, and one of its sources.

    Raises:
        UserError: If the recipe has no such source.
    """
    settings = read_recipe([str(recipe)])
    sources = {name: as_source(each) for name, each in settings.data.sources.items()}
    sources[VALIDATION] = as_source(settings.data.validation)
    vision = VisionConfig(**settings.model.vision.as_dict())
    return vision, pick_source(sources, source, recipe)


def pick_source(sources: dict[str, SourceConfig], name: str, recipe: Path) -> SourceConfig:
    """Look up a source.

    Raises:
        UserError: If there is none of that name.
    """
    if name not in sources:
        raise UserError(f"--source {name}: {recipe} has the sources {sorted(sources)}.")
    return sources[name]


def as_source(settings: Namespace) -> SourceConfig:
    """A source as the command line parsed it."""
    return SourceConfig(**settings.as_dict())


@cache
def load_text(language: str) -> tuple[PreTrainedTokenizerBase, MediaTokens]:
    """A tokenizer and the ids of the two tokens, loaded once in each process."""
    tokenizer = load_tokenizer(language)
    return tokenizer, media_tokens(tokenizer)
