"""How much memory a million steps of training add to the process once the first buffer is full."""

from __future__ import annotations

import multiprocessing

from benchmarks.probe import INTERVAL, ProbedBall
from benchmarks.tables import print_table
from benchmarks.training import train

MAX_STEPS = 1_000_000
DECISIONS_TO_FIRST_UPDATE = 12_000 // 12
CLAIM_MIB = 50


def _measure() -> tuple[float, float]:
    train(MAX_STEPS)
    # A little later than the first update, which has costs of its own, once.
    first = ProbedBall.peak_mib[2 * DECISIONS_TO_FIRST_UPDATE // INTERVAL]
    return first, ProbedBall.peak_mib[-1]


def run() -> None:
    """Train in a process of its own and print the table."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        first, last = pool.apply(_measure)
    print_table(
        f"Memory of {MAX_STEPS:,} steps of 3DBall (claim: under {CLAIM_MIB} MiB added)",
        ["after the first buffer, MiB", "at the end, MiB", "added, MiB"],
        [[f"{first:.0f}", f"{last:.0f}", f"{last - first:.1f}"]],
    )
