"""A decision of 3DBall against the bare `mj_step` calls in it."""

from __future__ import annotations

import statistics
import time
from typing import List

import mujoco
import numpy as np

from benchmarks.tables import REPEATS, print_table
from mlagents_envs.base_env import ActionTuple
from mlagents_envs.builtin.ball3d import PHYSICS_STEPS_PER_DECISION, Ball3DEnv

DECISIONS = 1000
CLAIM = 2.5


def balancing_actions(env: Ball3DEnv) -> ActionTuple:
    """Return actions that keep most balls on their cubes, so that the physics has contacts to solve."""
    obs = env.get_steps(env.behavior_name)[0].obs[0]
    tilt_z = -0.1 * (obs[:, 2] + obs[:, 5]) * -1.0
    tilt_x = -0.1 * (obs[:, 4] + obs[:, 7])
    actions = 5.0 * np.stack([tilt_z - obs[:, 0], tilt_x - obs[:, 1]], axis=1)
    return ActionTuple(np.clip(actions, -1, 1))


def measure(n_agents: int) -> List[float]:
    """Return seconds per decision and of five bare `mj_step`, in the same states, medians of five rounds."""
    env = Ball3DEnv(seed=1, n_agents=n_agents)
    env.reset()
    for _ in range(50):
        env.set_actions(env.behavior_name, balancing_actions(env))
        env.step()
    whole, bare = [], []
    for _ in range(REPEATS):
        decision_s = 0.0
        bare_s = 0.0
        copy = mujoco.MjData(env.model)
        for _ in range(DECISIONS):
            actions = balancing_actions(env)
            mujoco.mj_copyData(copy, env.model, env.data)
            start = time.perf_counter()
            for _ in range(PHYSICS_STEPS_PER_DECISION):
                mujoco.mj_step(env.model, copy)
            middle = time.perf_counter()
            env.set_actions(env.behavior_name, actions)
            env.step()
            env.get_steps(env.behavior_name)
            decision_s += time.perf_counter() - middle
            bare_s += middle - start
        whole.append(decision_s / DECISIONS)
        bare.append(bare_s / DECISIONS)
    env.close()
    ratio = statistics.median(one / other for one, other in zip(whole, bare))
    return [statistics.median(whole), statistics.median(bare), ratio]


def run() -> None:
    """Print the table."""
    rows = []
    for n_agents in (12, 120):
        whole_s, bare_s, ratio = measure(n_agents)
        rows.append([str(n_agents), f"{bare_s * 1e6:.0f}", f"{whole_s * 1e6:.0f}", f"{ratio:.2f}"])
    print_table(
        f"3DBall: a decision against its five bare mj_step (claim: at most {CLAIM} times, 12 agents)",
        ["agents", "5 mj_step, us", "decision, us", "ratio"],
        rows,
    )
