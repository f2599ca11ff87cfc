"""From measured records to figures, tables and the goals.

A record is one case with, for each side, either an ``error`` or its ``runs`` (for each part of a
repetition wall and CPU seconds, and the rate of matrix products beside it by both clocks), peak
memory, checkpoint size and, on our side, the FLOPs that each part needs.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from benchmarks.cases import UNPACKED

Record = Mapping[str, Any]
Clock = Literal["seconds", "cpu"]
"""Wall time, or the CPU time of all threads, which other jobs on the cores disturb less."""

OURS, THEIRS = "ours", "openflamingo"
NEW_TOKENS_BETWEEN = 18
"""Tokens by which the long generation is longer than the short one."""


@dataclass(frozen=True)
class Figures:
    """What one side needed for one case.

    Attributes:
        seconds: Median time of the step, or of the whole long generation.
        per_token: Median time of one more token; None where nothing is generated.
        peak_bytes: Most memory of the process.
        checkpoint_bytes: On disk; None unless the case saves.
        error: Last lines of what it said when it failed.
    """

    seconds: float | None = None
    per_token: float | None = None
    peak_bytes: int | None = None
    checkpoint_bytes: int | None = None
    error: str | None = None


class Floor(NamedTuple):
    """Seconds that the arithmetic alone takes, None where it is not counted."""

    seconds: float | None
    per_token: float | None


@dataclass(frozen=True)
class Summary:
    """One case in figures.

    Attributes:
        name: Of the case.
        kind: ``train``, ``generate`` or ``checkpoint``.
        floor: Arithmetic of the case at the rate that was measured beside it.
        sides: By name; a side that did not run it is missing.
    """

    name: str
    kind: str
    floor: Floor
    sides: dict[str, Figures] = field(default_factory=dict)

    def side(self, name: str) -> Figures:
        """Figures of a side, empty ones if it did not run."""
        return self.sides.get(name, Figures())


def quotient(above: float | None, below: float | None) -> float | None:
    """``above / below``, None if either is missing or nothing is there to divide by."""
    return above / below if above is not None and below else None


def median_time(runs: Sequence[Record], part: str, clock: Clock) -> float | None:
    """Median time of a part over the repetitions, None if there is no such part."""
    times = [run["parts"][part][clock] for run in runs if part in run["parts"]]
    return statistics.median(times) if times else None


def per_token(long: float | None, short: float | None) -> float | None:
    """Time of one more token from a long and a short generation."""
    return None if long is None or short is None else (long - short) / NEW_TOKENS_BETWEEN


def figures(side: Record, clock: Clock) -> Figures:
    """Summarise one side of a record."""
    if "error" in side:
        return Figures(error=side["error"])
    runs = side["runs"]
    long = median_time(runs, "long", clock)
    return Figures(
        seconds=median_time(runs, "step", clock) if long is None else long,
        per_token=per_token(long, median_time(runs, "short", clock)),
        peak_bytes=side["peak_bytes"],
        checkpoint_bytes=side["checkpoint_bytes"],
    )


def floor_of(sides: Mapping[str, Record], clock: Clock) -> Floor:
    """The floor of a case, at the median rate that both sides measured."""
    rates = [run["rate"][clock] for side in sides.values() for run in side.get("runs", [])]
    flops = sides.get(OURS, {}).get("flops")
    if not rates or not flops:
        return Floor(None, None)
    rate = statistics.median(rates)
    long = flops.get("long", flops.get("step"))
    token = per_token(flops["long"], flops["short"]) if "long" in flops else None
    return Floor(quotient(long, rate), quotient(token, rate))


def summarise(record: Record, clock: Clock = "seconds") -> Summary:
    """Turn a record into figures by one of the clocks."""
    sides = record["sides"]
    return Summary(
        record["case"]["name"],
        record["case"]["kind"],
        floor_of(sides, clock),
        {name: figures(side, clock) for name, side in sides.items()},
    )


class Table(NamedTuple):
    """Text in rows and columns.

    Attributes:
        title: Above it.
        columns: Headings; the first column is text, the others are numbers.
        rows: As many cells as columns.
    """

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[str, ...]]


MEASURED = "{:.3g}"


def number(value: float | None, pattern: str = MEASURED) -> str:
    """A number for people, a dash where there is none."""
    return "-" if value is None else pattern.format(value)


def shown(side: Figures, value: float | None, unit: float = 1) -> str:
    """A figure of a side in some unit; a failure is told, not hidden."""
    return "failed" if side.error is not None else number(quotient(value, unit))


def times(above: float | None, below: float | None) -> str:
    """A quotient with its sign."""
    return number(quotient(above, below), "{:.2f}x")


def time_table(
    title: str, summaries: Sequence[Summary], kind: str, measure: str, unit: str = "s"
) -> Table:
    """Times of both sides beside the floor.

    Args:
        title: Of the table.
        summaries: All that there are.
        kind: Of the cases that are shown.
        measure: ``seconds`` or ``per_token``.
        unit: ``s`` or ``ms``.
    """
    scale = {"s": 1.0, "ms": 1e-3}[unit]
    rows = []
    for summary in summaries:
        if summary.kind != kind:
            continue
        ours, theirs = summary.side(OURS), summary.side(THEIRS)
        floor = getattr(summary.floor, measure)
        mine, other = getattr(ours, measure), getattr(theirs, measure)
        rows.append(
            (
                summary.name.removeprefix(f"{kind}/"),
                number(quotient(floor, scale)),
                shown(ours, mine, scale),
                shown(theirs, other, scale),
                times(other, mine),
                times(mine, floor),
                times(other, floor),
            )
        )
    heads = (f"floor, {unit}", f"ours, {unit}", f"theirs, {unit}")
    return Table(title, ("case", *heads, "faster", "ours / floor", "theirs / floor"), rows)


def size_table(
    title: str, summaries: Sequence[Summary], kinds: tuple[str, ...], measure: str, unit: str
) -> Table:
    """Bytes of both sides.

    Args:
        title: Of the table.
        summaries: All that there are.
        kinds: Of the cases that are shown.
        measure: ``peak_bytes`` or ``checkpoint_bytes``.
        unit: ``GB`` or ``MB``.
    """
    scale = {"GB": 1e9, "MB": 1e6}[unit]
    rows = []
    for summary in summaries:
        if summary.kind not in kinds:
            continue
        ours, theirs = summary.side(OURS), summary.side(THEIRS)
        mine, other = getattr(ours, measure), getattr(theirs, measure)
        cells = (shown(ours, mine, scale), shown(theirs, other, scale), times(mine, other))
        rows.append((summary.name, *cells))
    return Table(title, ("case", f"ours, {unit}", f"theirs, {unit}", "ours / theirs"), rows)


GROWTH = {  # what grows: from which case to which
    "generation in every layer, 4 to 32 shots": (
        "generate/4-shots/beam-1/batch-1/every-1/fp32",
        "generate/32-shots/beam-1/batch-1/every-1/fp32",
    ),
    "step in every layer, 128 to 512 tokens": (
        "train/length-128/every-1/fp32",
        "train/length-512/every-1/fp32",
    ),
    "step in every 4th layer, 128 to 512 tokens": (
        "train/length-128/every-4/fp32",
        "train/length-512/every-4/fp32",
    ),
}


def growth_table(summaries: Sequence[Summary]) -> Table:
    """By how much more work takes longer, and needs more memory."""
    by_name = {summary.name: summary for summary in summaries}
    rows = []
    for what, (small, large) in GROWTH.items():
        if small not in by_name or large not in by_name:
            continue
        cells = [times(by_name[large].floor.seconds, by_name[small].floor.seconds)]
        for measure in ("seconds", "per_token", "peak_bytes"):
            for side in (OURS, THEIRS):
                below, above = (by_name[name].side(side) for name in (small, large))
                cells.append(times(getattr(above, measure), getattr(below, measure)))
        rows.append((what, *cells))
    measured = ("time", "a token", "memory")
    heads = (f"{side}, {what}" for what in measured for side in ("ours", "theirs"))
    return Table("Growth", ("from, to", "floor", *heads), rows)


def packing_table(records: Sequence[Record], clock: Clock) -> Table:
    """Tokens per second of ours with and without documents sharing rows."""
    found = {record["case"]["name"]: record for record in records}
    rows = []
    for name, record in found.items():
        alone = found.get(f"{name}{UNPACKED}")
        if alone is None:
            continue
        tokens = sum(
            1 + sum(words + 2 for words in document) for document in record["case"]["documents"]
        )
        apart, packed = (
            quotient(tokens, summarise(each, clock).side(OURS).seconds) for each in (alone, record)
        )
        rows.append((name, number(apart), number(packed), times(packed, apart)))
    return Table("Packing", ("case", "a row each, tokens/s", "packed, tokens/s", "faster"), rows)


class Goal(NamedTuple):
    """A figure that a case must reach.

    Attributes:
        what: For people.
        case: Its name.
        measure: One of ``MEASURES``.
        bound: Where it must be, at most or at least.
        at_most: Which of the two.
    """

    what: str
    case: str
    measure: str
    bound: float
    at_most: bool = True


MEASURES = {
    "over_floor": lambda s: quotient(s.side(OURS).seconds, s.floor.seconds),
    "faster": lambda s: quotient(s.side(THEIRS).seconds, s.side(OURS).seconds),
    "faster_per_token": lambda s: quotient(s.side(THEIRS).per_token, s.side(OURS).per_token),
    "memory": lambda s: quotient(s.side(OURS).peak_bytes, s.side(THEIRS).peak_bytes),
    "size": lambda s: quotient(s.side(OURS).checkpoint_bytes, s.side(THEIRS).checkpoint_bytes),
}

GREEDY_32 = "generate/32-shots/beam-1/batch-1/every-1/fp32"
BEAM_32 = "generate/32-shots/beam-3/batch-1/every-1/fp32"
GOALS = (
    *(
        Goal(
            f"step over floor, {workload}, every {every}, {precision}",
            f"train/{workload}/every-{every}/{precision}",
            "over_floor",
            bound,
        )
        for workload, precision, bound in (("interleaved", "fp32", 1.15), ("pairs", "bf16", 1.4))
        for every in (1, 4)
    ),
    *(
        Goal(
            f"step as batches come, faster, every {every}, bf16",
            f"train/as-they-come/every-{every}/bf16",
            "faster",
            2.5,
            at_most=False,
        )
        for every in (1, 4)
    ),
    Goal("32 shots, faster in all", GREEDY_32, "faster", 2, at_most=False),
    Goal("32 shots, faster a token", GREEDY_32, "faster_per_token", 8, at_most=False),
    Goal("32 shots, beam 3, faster in all", BEAM_32, "faster", 5, at_most=False),
    *(
        Goal(
            f"step, peak memory, every {every}",
            f"train/interleaved/every-{every}/fp32",
            "memory",
            0.7,
        )
        for every in (1, 4)
    ),
    *(
        Goal(f"checkpoint, every {every}", f"checkpoint/every-{every}", "size", 0.75)
        for every in (1, 4)
    ),
)


def goal_table(summaries: Sequence[Summary], goals: Sequence[Goal] = GOALS) -> Table:
    """Which goals are reached, of those that were measured."""
    by_name = {summary.name: summary for summary in summaries}
    rows = []
    for goal in goals:
        if goal.case not in by_name:
            continue
        value = MEASURES[goal.measure](by_name[goal.case])
        if value is None:
            continue
        reached = value <= goal.bound if goal.at_most else value >= goal.bound
        bound = f"{'at most' if goal.at_most else 'at least'} {goal.bound:g}x"
        rows.append((goal.what, bound, f"{value:.2f}x", "yes" if reached else "no"))
    return Table("Goals", ("goal", "bound", "measured", "reached"), rows)


def without_empty_columns(table: Table) -> Table:
    """Leave out columns in which nothing was measured, OpenFlamingo's when ours ran alone."""
    kept = [
        place
        for place in range(len(table.columns))
        if place == 0 or any(row[place] != "-" for row in table.rows)
    ]
    return Table(
        table.title,
        tuple(table.columns[place] for place in kept),
        [tuple(row[place] for place in kept) for row in table.rows],
    )


def tables(records: Sequence[Record], clock: Clock = "seconds") -> list[Table]:
    """Everything there is to show, without empty tables and columns."""
    summaries = [summarise(record, clock) for record in records]
    made = (
        time_table("Training step", summaries, "train", "seconds"),
        time_table("Generation of 20 tokens", summaries, "generate", "seconds"),
        time_table("Each further token", summaries, "generate", "per_token", "ms"),
        size_table("Peak memory", summaries, ("train", "generate"), "peak_bytes", "GB"),
        size_table("Checkpoint", summaries, ("checkpoint",), "checkpoint_bytes", "MB"),
        growth_table(summaries),
        packing_table(records, clock),
        goal_table(summaries),
    )
    return [without_empty_columns(table) for table in made if table.rows]


def to_markdown(table: Table) -> str:
    """A table for the documentation."""
    lines = [table.columns, ("---", *["---:"] * (len(table.columns) - 1)), *table.rows]
    return f"## {table.title}\n\n" + "".join(f"| {' | '.join(line)} |\n" for line in lines)
