"""What was read of each source, what was used, and what was dropped for which reason."""

from __future__ import annotations

from collections.abc import Mapping

from miniflamingo.data.dropped import FILTERS, REASONS

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
        ValueError: If there are more.
    """
    bad = {reason: counts[reason] for reason in counts if reason in REASONS.keys() - FILTERS}
    broken = {"broken_shard": counts.get("broken_shard", 0)}
    for what, reasons, of in (("samples", bad, "read"), ("shards", broken, "shards")):
        number, total = sum(reasons.values()), counts.get(of, 0)
        if total >= LEAST_READ and number > most * total:
            found = ", ".join(f"{reason} {n}" for reason, n in sorted(reasons.items()))
            raise ValueError(
                f"source {name!r}: {number} of {total} {what} are bad ({found}), more than "
                f"most_bad={most} allows; the log names some. Look at the shards, or raise "
                f"data.sources.{name}.most_bad."
            )


def counts_table(sources: Mapping[str, Mapping[str, int]]) -> str:
    """Lay out the counts of all sources, a line for each and one for each reason of a drop.

    Args:
        sources: ``Batch.counts`` by name of the source.

    >>> print(counts_table({"pairs": {"read": 1000, "used": 990, "no_text": 10, "shards": 2}}))
    source                            samples
    pairs                 read          1,000
                          used            990   99.0 %
                          no_text          10    1.0 %
    """
    lines = [f"{'source':22}{'':10}{'samples':>9}"]
    for source, counts in sources.items():
        reasons = sorted((r for r in counts if r in REASONS), key=lambda r: -counts[r])
        read = max(1, counts.get("read", 0))
        width = max(len(reason) for reason in ("used", *reasons)) + 2
        lines.append(f"{source:22}{'read':{width}}{counts.get('read', 0):>11,}")
        for name in ("used", *reasons):
            number = counts.get(name, 0)
            lines.append(f"{'':22}{name:{width}}{number:>11,}{number / read:>9.1%}")
        if broken := counts.get("broken_shard", 0):
            lines.append(f"{'':22}{broken:,} of {counts.get('shards', 0):,} shards broke off")
    return "\n".join(lines)
