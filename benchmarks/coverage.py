"""How often 95% intervals hold the truth: shares of few queries, by bootstrap and by Wilson.

Run ``python -m benchmarks.coverage``; docs/evaluation.md shows its table.
"""

from __future__ import annotations

import argparse

import numpy as np

from miniflamingo.bootstrap import mean_interval, wilson_interval

SHARES = (0.004, 0.05, 0.3, 0.5)
SIZES = (20, 100, 250)


def coverage(share: float, size: int, draws: int) -> tuple[float, float]:
    """How often each interval holds the true share.

    Args:
        share: The true share of right answers.
        size: Queries of an evaluation.
        draws: Evaluations to simulate.

    Returns:
        Of the bootstrap, and of Wilson's interval.
    """
    rng = np.random.default_rng(0)
    held = np.zeros(2)
    for _ in range(draws):
        answers = (rng.random(size) < share).astype(float)
        ends = mean_interval(answers), wilson_interval(float(answers.mean()), size)
        held += [low <= share <= high for low, high in ends]
    return float(held[0] / draws), float(held[1] / draws)


def main() -> None:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=1000, help="evaluations to simulate (1000)")
    draws = parser.parse_args().draws
    print("| true share | queries | bootstrap | Wilson |\n|---|---|---|---|")
    for share in SHARES:
        for size in SIZES:
            bootstrap, wilson = coverage(share, size, draws)
            print(f"| {share:.1%} | {size} | {bootstrap:.0%} | {wilson:.0%} |")


if __name__ == "__main__":
    main()
