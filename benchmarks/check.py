"""The benchmark gate: ``python -m benchmarks.check`` compares the workloads' ratios with the committed ones.

Speeds of different machines cannot be compared, but ratios of two sides that are measured in one run can: to the floor,
to Stable-Baselines3, of four workers to one. The exit code is 1 where one of them has lost more than `TOLERANCE`.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Dict, List

from benchmarks import workloads
from benchmarks.tables import print_table

COMMITTED = Path(__file__).parent / "ratios.json"
TOLERANCE = 0.15

Ratios = Dict[str, Dict[str, float]]


def ratios(runs: List[workloads.Figures]) -> Dict[str, float]:
    """Return the ratios of a workload, larger being better."""
    _, floor, others = workloads.medians(runs)
    found = {"to the floor": floor, "to the others": others}
    return {kind: round(ratio, 3) for kind, ratio in found.items() if ratio is not None}


def losses(found: Dict[str, float], committed: Dict[str, float]) -> List[str]:
    """Return the kinds of ratios that have lost more than `TOLERANCE`, or are there no longer."""
    return [kind for kind, ratio in committed.items() if found.get(kind, 0.0) < (1.0 - TOLERANCE) * ratio]


def main() -> None:
    """Compare, or with ``--write`` commit to what is measured now."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.check", description="Compare with the committed ratios."
    )
    parser.add_argument(
        "--write",
        action="store_true",
        help="print the table of workloads, and write its ratios to compare with from now on",
    )
    write = parser.parse_args().write
    if write:
        by_name = {name: ratios(runs) for name, runs in workloads.run().items()}
        COMMITTED.write_text(json.dumps(by_name, indent=2) + "\n", encoding="utf-8")
        print(f"Wrote {COMMITTED}.")
        return
    committed: Ratios = json.loads(COMMITTED.read_text(encoding="utf-8"))
    rows, failed = [], False
    for name, expected in committed.items():
        found = ratios(workloads.measure(name))
        if losses(found, expected):  # once may be the machine's mood
            again = ratios(workloads.measure(name))
            found = {kind: max(ratio, again[kind]) for kind, ratio in found.items()}
        lost = losses(found, expected)
        failed = failed or bool(lost)
        for kind, ratio in expected.items():
            verdict = "LOST" if kind in lost else ""
            rows.append([f"{name}: {kind}", f"{ratio:.2f}", f"{found.get(kind, 0.0):.2f}", verdict])
    print_table(f"Ratios, of which none may lose more than {TOLERANCE:.0%}", ["", "committed", "found", ""], rows)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
