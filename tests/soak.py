"""Whether a long run keeps its size: ``make soak``.

Trains `Basic` with 64 agents for 20 million steps or ten minutes, whichever comes first. The exit code is 1 if memory
grows by more than 1 MiB per million steps, or the number of open files at all.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
import yaml

from mlagents.trainers import learn
from mlagents.trainers.stats import StatsReporter, StatsSummary, StatsWriter

MAX_STEPS = 20_000_000
N_AGENTS = 64
MAX_GROWTH_MIB = 1.0
WARM_UP = 0.3
"""Which share of the samples is left out: buffers reach their size, and torch its pools."""

SETTINGS = {
    "trainer_type": "ppo",
    "max_steps": MAX_STEPS,
    "checkpoint_interval": 500_000,
    "summary_freq": 50_000,
    "network_settings": {"hidden_units": 20, "num_layers": 1},
    "hyperparameters": {"batch_size": 2048, "buffer_size": 20480, "num_epoch": 1},
}


class Sampler(StatsWriter):
    """Notes the size of the process with each summary, and ends the run when its time is over."""

    def __init__(self, duration_s: float):
        self.samples: list[tuple[int, float, int]] = []
        self._process = psutil.Process()
        self._ends_at_s = time.monotonic() + duration_s

    def write_stats(self, category: str, values: dict[str, StatsSummary], step: int) -> None:
        """Take a sample."""
        files = self._process.num_fds() if os.name == "posix" else self._process.num_handles()
        self.samples.append((step, self._process.memory_info().rss / 2**20, files))
        if time.monotonic() > self._ends_at_s:
            self._ends_at_s = float("inf")
            signal.raise_signal(signal.SIGTERM)


def main() -> None:
    """Train, and say how much the process grew."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--duration-s", type=float, default=570.0)
    sampler = Sampler(parser.parse_args().duration_s)
    StatsReporter.add_writer(sampler)
    with tempfile.TemporaryDirectory(prefix="soak-") as name:
        config = Path(name, "soak.yaml")
        config.write_text(yaml.safe_dump({"behaviors": {"Basic": SETTINGS}}))
        run = [str(config), "--env", "Basic", "--num-areas", str(N_AGENTS), "--run-id", "soak", "--results-dir", name]
        learn.run_cli(learn.parse_command_line(run))
    steps, memory, files = np.array(sampler.samples).T[:, int(WARM_UP * len(sampler.samples)) :]
    growth = float(np.polyfit(steps / 1e6, memory, 1)[0])
    print(f"{int(steps[-1]):,} steps; memory {memory[-1]:.0f} MiB, growing by {growth:.2f} MiB per million steps")
    print(f"open files: {int(files[0])} to {int(files[-1])}")
    sys.exit(1 if growth > MAX_GROWTH_MIB or files[-1] > files[0] else 0)


if __name__ == "__main__":
    main()
