"""What a user says about one source of documents."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from miniflamingo.data.images import MOST_ASPECT
from miniflamingo.errors import UserError

Layout = Literal["auto", "pairs", "interleaved", "mmc4", "obelics"]


@dataclass(frozen=True)
class SourceConfig:
    """One named training stream.

    The defaults read whole documents from their start and refuse no picture that can be decoded.
    The paper's sampling of web pages is ``window: random, max_images: 5, min_images: 1,
    p_next: 0.5, min_image_side: 64, max_image_aspect: 3``. Source: Flamingo, sections 2.4, A.3.

    Attributes:
        urls: Shards: paths, globs, brace ranges or urls.
        batch_size: Documents a step on each device.
        pack: Whether short documents share rows of ``max_tokens``, each reading itself alone.
        layout: How a sample's files make a document (docs/data.md); ``auto`` tells it by the files
            of each sample.
        window: Where a document that is too long is read: at its ``start``, or from a ``random``
            chunk on, drawn anew in every epoch.
        max_images: Most media items of a document; None for as many as ``max_tokens`` holds.
        min_images: Documents with fewer media items in every window are dropped.
        p_next: Probability, drawn for each document, that its texts read the media item after
            them on the page instead of the one before.
        max_frames: Most frames of a clip, taken evenly over its length; at most those of
            ``model.resampler.max_frames``.
        min_similarity: MMC4 alone: least CLIP similarity of a picture and its sentence.
        min_image_bytes: Smaller picture files are not used: icons, rules, tracking pixels.
        min_image_side: Pixels; a picture with a shorter side is not used.
        max_image_aspect: A picture that is longer than this times its width, or wider than this
            times its height, is not used.
        weight: Of the source's loss in the sum of a step; where ``data.mixture`` is ``sample``, its
            share of the steps instead.
        shuffle: Samples among which each reader draws the next one, kept in memory undecoded; 1
            leaves them in the order of the shards.
        resampled: Whether shards are drawn with replacement, instead of each once in every epoch.
        most_bad: Share of the samples read, or of the shards, that may be bad before the run stops;
            those that a filter leaves out are not bad.
        timeout: Seconds that an http server may be silent before it is asked again.
    """

    urls: str | list[str]
    batch_size: int
    pack: bool = False
    layout: Layout = "auto"
    window: Literal["start", "random"] = "start"
    max_images: int | None = None
    min_images: int = 0
    p_next: float = 0.0
    max_frames: int = 1
    min_similarity: float = 0.24
    min_image_bytes: int = 0
    min_image_side: int = 1
    max_image_aspect: float = MOST_ASPECT
    weight: float = 1.0
    shuffle: int = 1000
    resampled: bool = False
    most_bad: float = 0.5
    timeout: float = 60.0

    def __post_init__(self) -> None:
        """Refuse values that would drop or mangle every sample.

        Raises:
            UserError: Naming the field, what was found and what is possible.
        """
        least = {
            "batch_size": 1,
            "max_images": 1,
            "min_images": 0,
            "max_frames": 1,
            "min_image_bytes": 0,
            "min_image_side": 1,
            "max_image_aspect": 1,
            "weight": 0,
            "shuffle": 1,
            "most_bad": 0,
            "timeout": 0,
        }
        for name, limit in least.items():
            value = getattr(self, name)
            if value is not None and value < limit:
                raise UserError(f"a source's {name} is {value}; it must be at least {limit}.")
        if not 0 <= self.p_next <= 1:
            raise UserError(f"a source's p_next is {self.p_next}; it is a probability, 0 to 1.")
        if self.max_images is not None and self.min_images > self.max_images:
            raise UserError(
                f"a source's min_images is {self.min_images} and its max_images "
                f"{self.max_images}: no document would be left. Lower min_images."
            )


DEFAULTS = SourceConfig(urls=[], batch_size=1)
"""How samples are read that belong to no training stream, those of a few-shot task for one."""


def check_frames(sources: Mapping[str, SourceConfig], most: int) -> None:
    """No source may give clips of more frames than the resampler has positions for.

    Raises:
        UserError: Naming the first that does.
    """
    for name, source in sources.items():
        if source.max_frames > most:
            raise UserError(
                f"data.sources.{name}.max_frames is {source.max_frames}, but "
                f"model.resampler.max_frames is {most}; raise the one or lower the other."
            )
