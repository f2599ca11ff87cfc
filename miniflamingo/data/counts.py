"""What was read of each source, what was used, and what was dropped for which reason."""

from __future__ import annotations

from collections.abc import Mapping

from rich.table import Table

from miniflamingo.data.dropped import FILTERS, REASONS
from miniflamingo.errors import UserError
from miniflamingo.terminal import as_markup

LEAST_READ = 100
"""Samples, or shards, before a share of bad ones says anything."""


def check_bad_share(name: str, counts: Mapping[str, int], most: float) -> None:
    """Stop a run that would learn from what is left of a broken source.

    Samples that a filter leaves out are not bad.

    Args:
        name: Of the source.
        counts: See ``Batch.counts``.
        most: Share of bad samples, and of broken shards, that is allowed.

    Raises:
        UserError: If there are more.
    """
    bad = {reason: counts[reason] for reason in counts if reason in REASONS.keys() - FILTERS}
    broken = {"broken_shard": counts.get("broken_shard", 0)}
    for what, reasons, of in (("samples", bad, "read"), ("shards", broken, "shards")):
        number, total = sum(reasons.values()), counts.get(of, 0)
        if total >= LEAST_READ and number > most * total:
            found = ", ".join(f"{reason} {n}" for reason, n in sorted(reasons.items()))
            raise UserError(
                f"source {name!r}: {number} of {total} {what} are bad ({found}), more than "
                f"most_bad={most} allows; the log names some. Look at the shards, or raise "
                f"data.sources.{name}.most_bad."
            )


def counts_table(sources: Mapping[str, Mapping[str, int]]) -> Table:
    """Lay out the counts of all sources.

    Args:
        sources: ``Batch.counts`` by name of the source.
    """
    table = Table("source", "", "samples", "share")
    for column in table.columns[2:]:
        column.justify = "right"
    for source, counts in sources.items():
        read = counts.get("read", 0)
        table.add_section()
        table.add_row(as_markup(source), "read", f"{read:,}", "")
        for name in ("used", *sorted(REASONS.keys() & counts, key=lambda name: -counts[name])):
            number = counts.get(name, 0)
            table.add_row("", name, f"{number:,}", f"{number / max(1, read):.2%}")
        for name in sorted(name for name in counts if name.startswith("picture_")):
            table.add_row("", f"pictures: {name.removeprefix('picture_')}", f"{counts[name]:,}", "")
        if broken := counts.get("broken_shard", 0):
            table.add_row("", "broken shards", f"{broken:,}", f"{broken / counts['shards']:.2%}")
    return table
