"""Stable-Baselines3's PPO and SAC with the settings of our configurations."""

from __future__ import annotations

import time
from typing import Any, List, Tuple

import numpy as np
from stable_baselines3 import PPO, SAC
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env

Curve = List[Tuple[int, float]]
"""Steps, and the mean return of the last episodes until then."""


class _Returns(BaseCallback):
    """Keeps the mean return of the episodes of every so many steps."""

    def __init__(self, every: int):
        super().__init__()
        self._every, self._returns = every, list[float]()
        self.curve: Curve = []

    def _on_step(self) -> bool:
        infos: Any = self.locals["infos"]
        self._returns += [info["episode"]["r"] for info in infos if "episode" in info]
        if self.num_timesteps // self._every > len(self.curve) and self._returns:
            self.curve.append((self.num_timesteps, float(np.mean(self._returns))))
            self._returns.clear()
        return True


def train_ppo(steps: int, copies: int, horizon: int, seed: int = 1, every: int = 0) -> Tuple[float, Curve]:
    """Train on CartPole-v1 as `config/ppo/CartPole-v1.yaml` says.

    :param every: how many steps there are between points of the curve; 0 for none.
    :return: agent steps per second, and the curve.
    """

    def decay(remaining: float) -> float:
        return 1e-3 * remaining

    model = PPO(
        "MlpPolicy",
        make_vec_env("CartPole-v1", copies, seed=seed),
        n_steps=horizon,
        batch_size=64,
        n_epochs=3,
        learning_rate=decay,
        gamma=0.99,
        gae_lambda=0.95,
        ent_coef=0.001,
        clip_range=lambda remaining: 0.1 + 0.1 * remaining,
        policy_kwargs={"net_arch": {"pi": [128, 128], "vf": [128, 128]}},
        device="cpu",
        seed=seed,
    )
    return _learn(model, steps, every)


def train_sac(steps: int, copies: int, seed: int = 1, every: int = 0) -> Tuple[float, Curve]:
    """Train on Pendulum-v1 as `config/sac/Pendulum-v1.yaml` says; see `train_ppo`."""
    model = SAC(
        "MlpPolicy",
        make_vec_env("Pendulum-v1", copies, seed=seed),
        batch_size=128,
        buffer_size=50_000,
        learning_starts=1000,
        learning_rate=1e-3,
        tau=0.01,
        gamma=0.98,
        train_freq=1,
        gradient_steps=copies // 2,
        ent_coef="auto_0.2",
        policy_kwargs={"net_arch": [64, 64]},
        device="cpu",
        seed=seed,
    )
    return _learn(model, steps, every)


def _learn(model: Any, steps: int, every: int) -> Tuple[float, Curve]:
    returns = _Returns(every) if every else None
    start = time.perf_counter()
    model.learn(steps, callback=returns)
    return steps / (time.perf_counter() - start), returns.curve if returns else []
