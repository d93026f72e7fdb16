"""Collection from environments in processes of their own, each of whose steps takes an engine's time."""

from __future__ import annotations

import os
import statistics
import time
from dataclasses import dataclass
from typing import List

from benchmarks.collection import SPEC, TIME_HORIZON, ConstantPolicy, StillEnv
from benchmarks.tables import REPEATS, print_table
from mlagents.trainers.agent_processor import AgentManager
from mlagents.trainers.settings import EnvironmentSettings, RunOptions
from mlagents.trainers.stats import StatsReporter
from mlagents.trainers.subprocess_env_manager import SubprocessEnvManager
from mlagents_envs.side_channel.side_channel import SideChannel

STEP_S = 0.005
N_AGENTS = 12
DURATION_S = 2.0
CLAIMS = {1: 0.90, 2: 0.90, 4: 0.90, 8: 0.75}


class SleepingEnv(StillEnv):
    """An environment that keeps nobody's processor busy while it steps, as an engine with a process of its own."""

    def step(self) -> None:
        """Let time pass, here as well."""
        time.sleep(STEP_S)
        super().step()


@dataclass(frozen=True)
class SleepingEnvFactory:
    """Makes the environments of workers."""

    def __call__(self, worker_id: int, side_channels: List[SideChannel]) -> SleepingEnv:
        """Make a worker's environment."""
        return SleepingEnv(N_AGENTS)


def measure_ideal() -> float:
    """Return steps per second of one environment that nobody looks at."""
    env = SleepingEnv(N_AGENTS)
    env.reset()
    n_steps, start = 0, time.perf_counter()
    while time.perf_counter() - start < DURATION_S:
        env.step()
        n_steps += 1
    return n_steps / (time.perf_counter() - start)


def measure(n_workers: int) -> float:
    """Return steps per second of so many workers together."""
    options = RunOptions(env_settings=EnvironmentSettings(env_path="Still", num_envs=n_workers))
    manager = SubprocessEnvManager(SleepingEnvFactory(), options, n_workers)
    agents = AgentManager(SPEC, "Still?team=0", StatsReporter("Still"), TIME_HORIZON)
    try:
        manager.set_agent_manager(agents.behavior_id, agents)
        manager.set_policy(agents.behavior_id, ConstantPolicy(N_AGENTS))
        manager.reset()
        manager.process_steps(manager.get_steps())
        n_steps, start = 0, time.perf_counter()
        while time.perf_counter() - start < DURATION_S:
            n_steps += manager.process_steps(manager.get_steps())
            while not agents.trajectory_queue.empty():
                agents.trajectory_queue.get_nowait()
        return n_steps / (time.perf_counter() - start)
    finally:
        manager.close()
        StatsReporter.stats_dict.clear()


def run() -> None:
    """Print the table: medians of shares, each of an ideal that was measured just before."""
    rows = []
    for n_workers, claim in CLAIMS.items():
        speeds, shares = [], []
        for _ in range(REPEATS):
            ideal = n_workers * measure_ideal()
            speeds.append(measure(n_workers))
            shares.append(speeds[-1] / ideal)
        share = statistics.median(shares)
        rows.append([str(n_workers), f"{statistics.median(speeds):,.0f}", f"{share:.0%}", f"{claim:.0%}"])
    print_table(
        f"Workers whose steps sleep {STEP_S * 1e3:g} ms, {N_AGENTS} agents each, on {os.cpu_count()} cores",
        ["workers", "steps/s", "share of ideal", "claim"],
        rows,
    )
