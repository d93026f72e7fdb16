"""Stable-Baselines3 on the built-in 3DBall: through `UnityVectorEnv`, and on a plain vector environment.

The plain one calls the same simulator directly, so what differs is the way between the two.
"""

from __future__ import annotations

import time
from typing import Any, Callable

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import VecEnv

from benchmarks.tables import REPEATS, print_table
from mlagents_envs.base_env import ActionTuple
from mlagents_envs.builtin.ball3d import Ball3DEnv
from mlagents_envs.envs.sb3_vec_env import SB3VecEnv
from mlagents_envs.envs.unity_vector_env import UnityVectorEnv

STEPS_PER_AGENT, ITERATIONS = 256, 4
CLAIM = 0.80


class PlainBall(VecEnv):
    """The simulator of 3DBall behind the interface of Stable-Baselines3 and nothing else."""

    render_mode = None

    def __init__(self) -> None:
        self._simulator = Ball3DEnv(seed=1)
        super().__init__(
            self._simulator.n_agents, spaces.Box(-np.inf, np.inf, (8,), np.float32), spaces.Box(-1, 1, (2,), np.float32)
        )

    def reset(self) -> Any:
        return np.asarray(self._simulator.reset_agents(np.arange(self.num_envs))[0], dtype=np.float32)

    def step_async(self, actions: Any) -> None:
        self._actions = ActionTuple(continuous=actions)

    def step_wait(self) -> Any:
        (observed,), reward, terminated, truncated = self._simulator.step_agents(self._actions)
        observed = np.array(observed, dtype=np.float32)
        infos: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        ended = np.asarray(terminated) | np.asarray(truncated)
        (indices,) = ended.nonzero()
        if indices.size:
            for index in indices:
                infos[index]["terminal_observation"] = observed[index].copy()
                infos[index]["TimeLimit.truncated"] = bool(np.asarray(truncated)[index])
            observed[indices] = self._simulator.reset_agents(indices)[0]
        return observed, np.array(reward, dtype=np.float32), ended, infos

    def close(self) -> None:
        self._simulator.close()

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        return [getattr(self, attr_name)] * self.num_envs

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        setattr(self, attr_name, value)

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        return []

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        return [False] * self.num_envs


def steps_per_second(make: Callable[[], VecEnv]) -> float:
    """Train with Stable-Baselines3; return agent steps per second."""
    environment = make()
    model = PPO("MlpPolicy", environment, n_steps=STEPS_PER_AGENT, batch_size=64, n_epochs=3, device="cpu", seed=1)
    steps = ITERATIONS * STEPS_PER_AGENT * environment.num_envs
    start = time.perf_counter()
    model.learn(steps)
    elapsed = time.perf_counter() - start
    environment.close()
    return steps / elapsed


def run() -> None:
    """Print the table: the turn with the median ratio."""
    torch.set_num_threads(1)
    turns = []
    for _ in range(REPEATS):
        plain = steps_per_second(PlainBall)
        turns.append((steps_per_second(lambda: SB3VecEnv(UnityVectorEnv(Ball3DEnv(seed=1)))), plain))
    turns.sort(key=lambda turn: turn[0] / turn[1])
    through, plain = turns[len(turns) // 2]
    rows = [["through UnityVectorEnv", f"{through:.0f}"], ["plain", f"{plain:.0f}"]]
    print_table("Stable-Baselines3's PPO on 3DBall", ["environment", "agent steps/s"], rows)
    ratios = ", ".join(f"{ours / bare:.0%}" for ours, bare in turns)
    print(f"  of the plain one's speed: median {through / plain:.0%} of {ratios} (claim: at least {CLAIM:.0%})")
