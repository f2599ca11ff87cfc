"""Count what shards hold, and draw its distributions.

Run ``python -m data_prep.stats --help``.
"""

from collections import Counter
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.ticker import MaxNLocator
from rich.console import Console
from rich.table import Table

from data_prep.command import run_command
from data_prep.every_shard import look_at_every_shard
from data_prep.recipes import Reading, load_text
from data_prep.shards import write_json
from miniflamingo.data.dropped import Dropped
from miniflamingo.data.encode import encode_document
from miniflamingo.data.images import DAMAGE, open_image
from miniflamingo.data.layouts.choose import to_document
from miniflamingo.data.shards import BrokenShard, RawSample, read_shard
from miniflamingo.data.source import SourceConfig
from miniflamingo.document import Patches
from miniflamingo.terminal import as_markup, plain

Histogram = Counter[int]
STEPS_AN_OCTAVE = 4


@dataclass
class Stats:
    """How often each value stands in some shards.

    Attributes:
        media: Media items of a document.
        tokens: Tokens of a whole document, tags included.
        characters: Characters of a chunk's text.
        sides: Shorter side of a picture in pixels.
        aspects: Longer side of a picture over its shorter, in hundredths.
        bytes: Size of a picture's file, rounded to a quarter of an octave.
        unusable: Samples that make no document, by reason, and shards that break off.
    """

    media: Histogram = field(default_factory=Counter)
    tokens: Histogram = field(default_factory=Counter)
    characters: Histogram = field(default_factory=Counter)
    sides: Histogram = field(default_factory=Counter)
    aspects: Histogram = field(default_factory=Counter)
    bytes: Histogram = field(default_factory=Counter)
    unusable: Counter[str] = field(default_factory=Counter)

    def add(self, other: "Stats") -> None:
        """Take in what others count."""
        for each in fields(self):
            getattr(self, each.name).update(getattr(other, each.name))


LABELS = {
    "media": "pictures and clips of a document",
    "tokens": "tokens of a document",
    "characters": "characters of a text",
    "sides": "shorter side of a picture, pixels",
    "aspects": "longer side over shorter",
    "bytes": "bytes of a picture",
}
SCALES = {"aspects": 0.01}


def count_shard(reading: Reading, shard: tuple[str, str]) -> tuple[str, Stats]:
    """Count one shard; pictures are opened, not decoded.

    Args:
        reading: How its source is read.
        shard: Name of its source, and its url.

    Returns:
        The source's name, and its figures.
    """
    source, url = shard
    stats = Stats()
    try:
        for sample in read_shard(url):
            if isinstance(sample, Dropped):
                stats.unusable[sample.reason] += 1
                continue
            try:
                count_sample(reading.language, reading.sources[source], sample, stats)
            except Dropped as error:
                stats.unusable[error.reason] += 1
    except BrokenShard:
        stats.unusable["broken_shard"] += 1
    return source, stats


def count_sample(language: str, source: SourceConfig, sample: RawSample, stats: Stats) -> None:
    """Count one sample.

    Raises:
        Dropped: If it makes no document.
    """
    document = to_document(sample, source)
    encoded = encode_document(document, *load_text(language))
    stats.media[document.num_media] += 1
    stats.tokens[len(encoded.input_ids)] += 1
    for chunk in document.chunks:
        if chunk.text is not None:
            stats.characters[len(chunk.text)] += 1
        if isinstance(chunk.image, Patches):
            continue
        for frame in chunk.frames:
            assert isinstance(frame, bytes)
            stats.bytes[round_size(len(frame))] += 1
            try:
                width, height = open_image(frame).size
            except DAMAGE:
                stats.unusable["image_broken"] += 1
                continue
            stats.sides[min(width, height)] += 1
            stats.aspects[round(100 * max(width, height) / min(width, height))] += 1


def round_size(value: int) -> int:
    """The nearest of four steps an octave, so that few values are counted."""
    exponent = max(value, 1).bit_length() - 1
    step = 2**exponent / STEPS_AN_OCTAVE
    return round(round(value / step) * step)


def quantile(histogram: Histogram, share: float) -> int:
    """The smallest value that so large a share of the counted does not exceed."""
    wanted, seen = share * histogram.total(), 0
    for value in sorted(histogram):
        seen += histogram[value]
        if seen >= wanted:
            return value
    raise AssertionError("an empty histogram has no quantiles")


def summary(stats: Stats) -> dict[str, dict[str, float]]:
    """Count, sum, mean and quantiles of everything that was found."""
    found = {}
    for name in LABELS:
        histogram: Histogram = getattr(stats, name)
        if not histogram:
            continue
        scale = SCALES.get(name, 1)
        total = sum(value * count for value, count in histogram.items())
        found[name] = {
            "count": histogram.total(),
            "sum": total * scale,
            "mean": total * scale / histogram.total(),
            **{f"p{p}": quantile(histogram, p / 100) * scale for p in (5, 50, 95)},
            "most": max(histogram) * scale,
        }
    return found


def table_of(sources: dict[str, Stats]) -> Table:
    """A row for each distribution of each source."""
    table = Table("source", "", "count", "mean", "5%", "50%", "95%", "most")
    for source, stats in sources.items():
        for name, found in summary(stats).items():
            shown = [f"{found[each]:,.4g}" for each in ("mean", "p5", "p50", "p95", "most")]
            table.add_row(as_markup(source), LABELS[name], f"{found['count']:,.0f}", *shown)
        for reason, count in stats.unusable.most_common():
            table.add_row(
                as_markup(source), as_markup(f"unusable: {reason}"), f"{count:,}", style="red"
            )
    return table


def draw(sources: dict[str, Stats], path: Path) -> None:
    """Draw the distributions, a colour for each source."""
    figure, axes = plt.subplots(2, 3, figsize=(13, 7), layout="constrained")
    for axis, (name, label) in zip(axes.flat, LABELS.items(), strict=True):
        together: Histogram = Counter()
        for stats in sources.values():
            together.update(getattr(stats, name))
        for source, stats in sources.items():
            histogram: Histogram = getattr(stats, name)
            if not histogram:
                continue
            scale = SCALES.get(name, 1)
            values = [value * scale for value in histogram]
            axis.hist(
                values,
                bins=bins_of(name, together, scale),
                weights=[count / histogram.total() for count in histogram.values()],
                histtype="stepfilled",
                alpha=0.5,
                label=source,
            )
        axis.set_xlabel(label)
        axis.set_ylabel("share")
        if name in ("media", "tokens"):
            axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        if name in ("bytes", "sides", "characters"):
            axis.set_xscale("log", base=2)
    handles, labels = axes.flat[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=max(1, len(labels)))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def bins_of(name: str, histogram: Histogram, scale: float) -> list[float]:
    """Edges: every integer where there are few, quarter octaves for sizes, else forty alike."""
    low, high = min(histogram), max(histogram)
    if name in ("bytes", "sides", "characters"):
        first, last = max(low, 1).bit_length() - 1, max(high, 1).bit_length()
        steps = range(STEPS_AN_OCTAVE * first, STEPS_AN_OCTAVE * last + 1)
        return [2 ** (step / STEPS_AN_OCTAVE) for step in steps]
    if high - low < 40:
        return [(value - 0.5) * scale for value in range(low, high + 2)]
    width = (high + 1 - low) / 40
    return [(low + place * width) * scale for place in range(41)]


def stats(out: Path = Path("stats"), **options: Any) -> None:
    """Count documents, pictures, tokens and sizes of shards, as a table and a picture.

    Args:
        out: Folder for stats.json and stats.png.
        options: As in ``look_at_every_shard``.
    """
    counted = look_at_every_shard("stats", count_shard, Stats, **options)
    content: dict[str, Any] = {
        name: {**summary(each), "unusable": dict(each.unusable)} for name, each in counted.items()
    }
    write_json(out / "stats.json", content)
    draw(counted, out / "stats.png")
    Console().print(table_of(counted))
    print(plain(f"{out}/stats.json, {out}/stats.png"))


if __name__ == "__main__":
    run_command(stats)
