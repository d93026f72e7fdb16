"""Whether speed costs learning: returns over steps beside Stable-Baselines3's, of five seeds each, as a picture."""

from __future__ import annotations

import multiprocessing
import statistics
from pathlib import Path
from typing import Callable, Dict, List, NamedTuple, Tuple

import matplotlib.pyplot as plt
import numpy as np

from benchmarks.stable_baselines import Curve, train_ppo, train_sac
from benchmarks.tables import print_table
from benchmarks.training import train
from mlagents.trainers.stats import StatsSummary, StatsWriter

SEEDS = range(1, 6)
PICTURE = Path(__file__).parent.parent / "docs" / "images" / "learning.png"
OURS, THEIRS = "this toolkit", "Stable-Baselines3"
FINAL_SHARE = 0.2
"""The last part of a training, whose mean return is the final one."""


class _Curve(StatsWriter):
    def __init__(self) -> None:
        self.points: Curve = []

    def write_stats(self, category: str, values: Dict[str, StatsSummary], step: int) -> None:
        reward = values.get("Environment/Cumulative Reward")
        if reward is not None:
            self.points.append((step, reward.mean))


class Task(NamedTuple):
    """What both learn."""

    env: str
    algorithm: str
    copies: int
    horizon: int
    steps: int
    every: int
    theirs: Callable[[int], Curve]

    def ours(self, seed: int) -> Curve:
        """Train as our configuration says."""
        curve = _Curve()
        train(
            self.steps,
            seed,
            f"gym:{self.env}",
            self.env,
            algorithm=self.algorithm,
            num_areas=self.copies,
            writers=[curve],
            time_horizon=self.horizon,
            summary_freq=self.every,
        )
        return curve.points


TASKS = {
    "PPO CartPole-v1, 8 x 256": Task(
        "CartPole-v1", "ppo", 8, 256, 150_000, 5000, lambda seed: train_ppo(150_000, 8, 256, seed, 5000)[1]
    ),
    "PPO CartPole-v1, 64 x 32": Task(
        "CartPole-v1", "ppo", 64, 32, 150_000, 5000, lambda seed: train_ppo(150_000, 64, 32, seed, 5000)[1]
    ),
    "SAC Pendulum-v1": Task("Pendulum-v1", "sac", 4, 200, 20_000, 800, lambda seed: train_sac(20_000, 4, seed, 800)[1]),
}


def _measure(job: Tuple[str, str, int]) -> Curve:
    title, who, seed = job
    task = TASKS[title]
    return task.ours(seed) if who == OURS else task.theirs(seed)


def _final(curve: Curve) -> float:
    last_step = curve[-1][0]
    return statistics.fmean(value for step, value in curve if step > (1 - FINAL_SHARE) * last_step)


def run() -> None:
    """Train all, print the final returns, and draw the curves."""
    jobs = [(title, who, seed) for title in TASKS for who in (OURS, THEIRS) for seed in SEEDS]
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        curves = dict(zip(jobs, pool.map(_measure, jobs, chunksize=1)))
    figure, axes = plt.subplots(1, len(TASKS), figsize=(5 * len(TASKS), 4), layout="constrained")
    rows: List[List[str]] = []
    for axis, title in zip(axes, TASKS):
        for who, color in ((OURS, "tab:blue"), (THEIRS, "tab:orange")):
            found = [curves[title, who, seed] for seed in SEEDS]
            steps = np.linspace(max(curve[0][0] for curve in found), min(curve[-1][0] for curve in found), 50)
            returns = np.array([np.interp(steps, [step for step, _ in it], [value for _, value in it]) for it in found])
            axis.plot(steps, returns.mean(axis=0), color=color, label=who)
            axis.fill_between(steps, returns.min(axis=0), returns.max(axis=0), color=color, alpha=0.2)
            finals = [_final(curve) for curve in found]
            rows.append([f"{title}: {who}", f"{statistics.fmean(finals):.0f}", ", ".join(f"{it:.0f}" for it in finals)])
        axis.set(title=title, xlabel="agent steps", ylabel="mean return")
        axis.locator_params(axis="x", nbins=5)
        axis.legend()
    figure.savefig(PICTURE, dpi=100)
    print_table(
        f"Mean return over the last {FINAL_SHARE:.0%} of training, {len(SEEDS)} seeds; curves in {PICTURE.name}",
        ["", "mean", "each seed"],
        rows,
    )
