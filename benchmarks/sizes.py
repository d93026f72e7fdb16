"""How the cost of training grows with the number of agents and with the width of the networks."""

from __future__ import annotations

import multiprocessing
import statistics
from pathlib import Path
from typing import Dict, List

import matplotlib.pyplot as plt

from benchmarks.tables import print_table
from benchmarks.training import train
from mlagents.trainers.settings import NetworkSettings

AGENTS = [1, 4, 16, 64, 256, 1024, 4096]
HIDDEN = [64, 128, 256, 512, 1024]
HORIZON, BUFFER, MIN_STEPS = 32, 2048, 20_000
REPEATS = 3
PICTURE = Path(__file__).parent.parent / "docs" / "images" / "sizes.png"


def _steps_per_s(n_agents: int, hidden: int) -> float:
    buffer_size = max(BUFFER, HORIZON * n_agents // 2)
    steps = max(MIN_STEPS, 3 * buffer_size)
    tree = train(
        steps,
        env="gym:CartPole-v1",
        behavior="CartPole-v1",
        num_areas=n_agents,
        time_horizon=HORIZON,
        summary_freq=steps,
        network_settings=NetworkSettings(normalize=False, hidden_units=hidden, num_layers=2),
    )
    return steps / float(tree["total"])


def _measure(sizes: List[int], of_agents: bool) -> Dict[int, float]:
    """Return the median speed at each size."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        jobs = [(size, 128) if of_agents else (8, size) for size in sizes]
        pool.starmap(_steps_per_s, jobs[:1])  # imports
        runs = [pool.starmap(_steps_per_s, jobs, chunksize=len(jobs)) for _ in range(REPEATS)]
    return {size: statistics.median(column) for size, column in zip(sizes, zip(*runs))}


def run() -> None:
    """Print the tables, and draw the picture: microseconds per agent step."""
    figure, axes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    for axis, title, sizes in zip(axes, ("agents", "hidden units"), (AGENTS, HIDDEN)):
        speeds = _measure(sizes, title == "agents")
        rows = [[str(size), f"{speed:,.0f}", f"{1e6 / speed:.1f}"] for size, speed in speeds.items()]
        print_table(f"PPO on CartPole-v1, 2 layers, by {title}", [title, "agent steps/s", "us per agent step"], rows)
        axis.loglog(sizes, [1e6 / speeds[size] for size in sizes], "o-")
        axis.set(title=f"by {title}", xlabel=title, ylabel="us per agent step")
        axis.grid(visible=True, which="both", alpha=0.3)
    figure.savefig(PICTURE, dpi=100)
