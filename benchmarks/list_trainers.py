"""How long ``mlagents-learn --list-trainers`` takes beyond importing torch, which every run has to."""

from __future__ import annotations

import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path
from typing import List, Sequence

from benchmarks.tables import REPEATS, print_table

CLAIM_S = 1.0

LIST_TRAINERS = [str(Path(sysconfig.get_path("scripts"), "mlagents-learn")), "--list-trainers"]
IMPORT_TORCH = [sys.executable, "-c", "import torch"]


def _seconds(command: Sequence[str], folder: str) -> float:
    start = time.perf_counter()
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def run() -> None:
    """Run both commands in turn and print the table."""
    times: List[List[float]] = []
    with tempfile.TemporaryDirectory() as folder:
        for repeat in range(REPEATS + 1):
            pair = [_seconds(command, folder) for command in (LIST_TRAINERS, IMPORT_TORCH)]
            if repeat > 0:  # the first reads the files into the cache
                times.append(pair)
    listing, importing = (statistics.median(column) for column in zip(*times))
    print_table(
        f"mlagents-learn --list-trainers (claim: at most {CLAIM_S:g} s more than importing torch)",
        ["", "seconds"],
        [
            ["mlagents-learn --list-trainers", f"{listing:.2f}"],
            ['python -c "import torch"', f"{importing:.2f}"],
            ["difference", f"{listing - importing:.2f}"],
        ],
    )
