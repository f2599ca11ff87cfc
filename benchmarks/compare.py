"""Measure cases on one side or on both in turns: ``python -m benchmarks.compare``.

Each case runs in a process of its own on each side. The processes take turns, repetition by
repetition, so that whatever else the machine does meets both; only one computes at a time.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

import rich.console
import rich.table

from benchmarks import report
from benchmarks.cases import QUICK, STANDARD, Case, choose

ROOT = Path(__file__).parents[1]
LEAST_REPEATS = 2
"""Repetitions before a case may be cut short."""


class SideFailed(Exception):
    """A side's process ended before it said what it should."""


class Process:
    """One side running one case."""

    def __init__(
        self, python: str, side: str, case: Case, threads: int, repeats: int, errors: IO[str]
    ) -> None:
        """Start it.

        Args:
            python: Interpreter of the side's environment.
            side: A module of ``benchmarks``.
            case: What it runs.
            threads: Of its arithmetic.
            repeats: At most.
            errors: Takes what it writes to its standard error.
        """
        self.errors = errors
        self.process = subprocess.Popen(
            [
                *(python, "-m", f"benchmarks.{side}", case.name, "--wait"),
                *("--threads", str(threads), "--repeats", str(repeats)),
            ],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": str(threads)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            text=True,
        )

    def read(self) -> dict[str, Any]:
        """Wait for the next line of JSON; anything else that libraries print is passed over.

        Raises:
            SideFailed: If the process ends instead, with the last lines it wrote.
        """
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith("{"):
                return json.loads(line)
        self.process.wait()
        self.errors.seek(0)
        last = "".join(self.errors.readlines()[-5:]).strip()
        raise SideFailed(f"exit status {self.process.returncode}: {last}")

    def repeat(self) -> dict[str, Any]:
        """Let it run one repetition."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self.read()

    def finish(self) -> dict[str, Any]:
        """Ask for nothing more; returns its last line."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        return self.read()

    def close(self) -> None:
        """End it, whatever it does."""
        self.process.kill()
        self.process.wait()


def attempt(
    results: dict[str, dict[str, Any]], side: str, ask: Callable[[], dict[str, Any]]
) -> dict[str, Any]:
    """Ask a side something, unless it has failed; a failure becomes its result."""
    if "error" in results[side]:
        return {}
    try:
        return ask()
    except (SideFailed, BrokenPipeError) as failure:
        results[side] = {"error": str(failure)}
        return {}


def measure_case(
    case: Case, pythons: Mapping[str, str], threads: int, repeats: int, enough: float
) -> dict[str, Any]:
    """Run a case on every side in turns.

    Args:
        case: Which.
        pythons: Side -> interpreter of its environment.
        threads: Of each process.
        repeats: At most.
        enough: Seconds after which no repetition beyond ``LEAST_REPEATS`` is begun.

    Returns:
        A record as ``benchmarks.report`` reads it.
    """
    results: dict[str, dict[str, Any]] = {side: {"runs": []} for side in pythons}
    with ExitStack() as stack:
        processes = {}
        for side, python in pythons.items():
            errors = stack.enter_context(tempfile.TemporaryFile("w+"))
            processes[side] = Process(python, side, case, threads, repeats, errors)
            stack.callback(processes[side].close)
        for side, process in processes.items():
            results[side].update(attempt(results, side, process.read))
        start = time.monotonic()
        for done in range(repeats):
            if done >= LEAST_REPEATS and time.monotonic() - start > enough:
                break
            for side, process in processes.items():
                if run := attempt(results, side, process.repeat):
                    results[side]["runs"].append(run)
        for side, process in processes.items():
            results[side].update(attempt(results, side, process.finish))
    return {"case": asdict(case), "sides": results}


def machine(threads: int) -> dict[str, Any]:
    """What the figures depend on."""
    waiting = {name: value for name, value in os.environ.items() if name.startswith("GOMP_")}
    return {
        "system": platform.platform(terse=True),
        "machine": platform.machine(),
        "processors": os.cpu_count(),
        "threads": threads,
        **waiting,
    }


def to_rich(table: report.Table) -> rich.table.Table:
    """A table for the terminal."""
    made = rich.table.Table(title=table.title)
    for place, column in enumerate(table.columns):
        if place:
            made.add_column(column, justify="right", no_wrap=True, min_width=len(column))
        else:
            made.add_column(column, overflow="fold")
    for row in table.rows:
        made.add_row(*row)
    return made


def write(
    out: Path, about: Mapping[str, Any], records: Sequence[report.Record], clock: report.Clock
) -> None:
    """Write records as JSON and tables as Markdown beside it."""
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({"machine": about, "records": records}, indent=1) + "\n")
    tables = report.tables(records, clock)
    out.with_suffix(".md").write_text("\n".join(report.to_markdown(table) for table in tables))


def outcome(figures: report.Figures) -> str:
    """What came out of a case on one side, in few words."""
    if figures.error is not None:
        return f"failed ({figures.error.splitlines()[-1]})"
    if figures.checkpoint_bytes is not None:
        return f"{figures.checkpoint_bytes / 1e6:.0f} MB"
    return f"{report.number(figures.seconds)} s"


def progress(case: Case, record: report.Record, clock: report.Clock) -> str:
    """One line about a case that is done."""
    sides = report.summarise(record, clock).sides
    outcomes = (f"{side} {outcome(figures)}" for side, figures in sides.items())
    return f"{case.name}: {', '.join(outcomes)}"


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--openflamingo", metavar="PYTHON", help="of its environment; without it ours runs alone"
    )
    parser.add_argument("--cases", nargs="+", metavar="PATTERN", help="of any case of the grid")
    parser.add_argument("--quick", action="store_true", help="three small cases, once")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument(
        "--enough",
        type=float,
        default=45,
        metavar="SECONDS",
        help=f"a case gets no more than {LEAST_REPEATS} repetitions after so long",
    )
    parser.add_argument(
        "--clock",
        choices=("seconds", "cpu"),
        default="seconds",
        help="of the tables: wall time, or CPU time for a machine that others use, too",
    )
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/bench.json"))
    return parser.parse_args()


def main() -> None:
    """Measure the chosen cases and print the tables; results are written after every case."""
    chosen = arguments()
    pythons = {report.OURS: sys.executable}
    if chosen.openflamingo:
        pythons[report.THEIRS] = str(Path(chosen.openflamingo).absolute())
    cases = choose(tuple(chosen.cases or (QUICK if chosen.quick else STANDARD)))
    repeats = 1 if chosen.quick else chosen.repeats
    about = machine(chosen.threads)
    records = []
    start = time.monotonic()
    for place, case in enumerate(cases, start=1):
        sides = pythons if case.both else {report.OURS: sys.executable}
        record = measure_case(case, sides, chosen.threads, repeats, chosen.enough)
        records.append(record)
        write(chosen.out, about, records, chosen.clock)
        minutes = (time.monotonic() - start) / 60
        line = f"[{place}/{len(cases)}, {minutes:.1f} min] {progress(case, record, chosen.clock)}"
        print(line, file=sys.stderr, flush=True)
    console = rich.console.Console()
    if not console.is_terminal:
        console.width = 120  # a file or a pipe has no width of its own
    for table in report.tables(records, chosen.clock):
        console.print(to_rich(table))
    print(f"written: {chosen.out} and {chosen.out.with_suffix('.md')}")


if __name__ == "__main__":
    main()
