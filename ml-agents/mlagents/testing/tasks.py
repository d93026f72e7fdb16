"""The tasks that trainers are checked on: each environment with what it takes to be called solved."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable, Dict, Optional, Sequence, Type

import attr

from mlagents.testing.crowd import CrowdEnv
from mlagents.testing.environments import (
    BranchesEnv,
    ContinuousEnv,
    DelayedEnv,
    HybridEnv,
    InterruptedEnv,
    MasksEnv,
    MemoryEnv,
    ScalesEnv,
)
from mlagents.trainers.exception import TrainerConfigError
from mlagents.trainers.settings import HyperparamSettings, OffPolicyHyperparamSettings, OnPolicyHyperparamSettings
from mlagents_envs.base_env import BaseEnv
from mlagents_envs.spelling import did_you_mean


@dataclass(frozen=True)
class Task:
    """One capability, and the environment that asks for it.

    :param capability: what a trainer that fails here cannot do.
    :param make_env: called with `seed`.
    :param random_return: of an episode, on average, by uniformly random actions that are allowed.
    :param best_return: the same by the best policy.
    :param threshold: the mean return from which on the task is solved.
    :param max_steps: agent steps in which it has to be solved.
    :param gamma: discount.
    :param normalize: whether networks normalize observations.
    :param has_masks: whether choices are forbidden.
    :param needs_memory: whether only a network that remembers can solve it.
    """

    name: str
    capability: str
    make_env: Callable[..., BaseEnv]
    random_return: float
    best_return: float = 1.0
    threshold: float = 0.85
    max_steps: int = 4000
    gamma: float = 0.99
    normalize: bool = False
    has_masks: bool = False
    needs_memory: bool = False


_ALL = [
    Task("continuous", "continuous actions", ContinuousEnv, random_return=0.4, max_steps=8000),
    Task("branches", "several discrete branches", BranchesEnv, random_return=13 / 36),
    Task("hybrid", "continuous and discrete actions at once", HybridEnv, random_return=11 / 30),
    Task("masks", "action masks", MasksEnv, random_return=17 / 48, has_masks=True),
    Task("scales", "normalized observations", ScalesEnv, random_return=0.5, normalize=True),
    Task("delayed", "reward at the end of an episode", DelayedEnv, random_return=1 / 3),
    Task(
        "interrupted",
        "episodes that are cut short",
        InterruptedEnv,
        random_return=31 / 104,
        best_return=5 / 9,
        threshold=0.45,
        gamma=0.8,
    ),
    Task("crowd", "agents that come and go", CrowdEnv, random_return=1 / 3),
    Task("memory", "remembering", MemoryEnv, random_return=1 / 3, max_steps=10000, needs_memory=True),
]
TASKS: Dict[str, Task] = {task.name: task for task in _ALL}
"""The tasks by name."""


def choose_tasks(names: Optional[Sequence[str]]) -> Sequence[Task]:
    """Return the tasks of these names; all for None.

    :raises TrainerConfigError: there is no such task.
    """
    if names is None:
        return list(TASKS.values())
    for name in names:
        if name not in TASKS:
            raise TrainerConfigError(f"There is no task {name}.{did_you_mean(name, TASKS)} Tasks: {', '.join(TASKS)}.")
    return [TASKS[name] for name in names]


SMALL_NETWORK = {"hidden_units": 32, "num_layers": 1}
SMALL_MEMORY = {"sequence_length": 4, "memory_size": 16}
SMALL_RUN: Dict[Type[HyperparamSettings], Dict[str, Any]] = {
    OnPolicyHyperparamSettings: {"batch_size": 32, "buffer_size": 128, "learning_rate": 0.015},
    OffPolicyHyperparamSettings: {
        "batch_size": 64,
        "buffer_size": 5000,
        "buffer_init_steps": 256,
        "steps_per_update": 4,
        "reward_signal_steps_per_update": 4,
        "learning_rate": 0.01,
    },
}
"""Hyperparameters under which a sound trainer solves the tasks in time, by the base of its settings."""


def small_hyperparameters(settings_class: type, has_memory: bool) -> Dict[str, Any]:
    """Return the hyperparameters that trainers with such settings are checked with.

    Trainers that pass over the same samples several times learn at a lower rate in each pass: together, the passes go
    about as far. Networks with memory learn at half the rate, for they lose their way more easily.
    """
    for base, hyperparameters in SMALL_RUN.items():
        if issubclass(settings_class, base):
            fields = attr.fields_dict(settings_class)
            n_passes = fields["num_epoch"].default if "num_epoch" in fields else 1
            learning_rate = hyperparameters["learning_rate"] / n_passes * (0.5 if has_memory else 1.0)
            return {**hyperparameters, "learning_rate": learning_rate}
    return {}
