"""From the text ``gym:ID`` to a vector of copies of that environment."""

from __future__ import annotations

import importlib
import importlib.util
import multiprocessing
import os
import signal
import time
from collections.abc import Mapping
from functools import partial
from typing import Any

import gymnasium
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv, VectorEnv

from mlagents_envs.exception import UnityEnvironmentException
from mlagents_envs.external.spaces import MASK, leaves
from mlagents_envs.logging_util import get_logger

logger = get_logger(__name__)

SLOW_STEP_S = 0.001
"""Environments whose steps take longer are worth a process each: a step's way there and back takes about a quarter."""

_PROBE_STEPS = 8

_REGISTERED_BY = {"ALE/": "ale_py", "MiniGrid-": "minigrid", "BabyAI-": "minigrid", "Fetch": "gymnasium_robotics"}
"""How ids begin, and the packages that must be imported for Gymnasium to know them."""

MODES = ("sync", "async", "vector_entry_point")
"""What ``vectorization_mode`` may be, as in `gymnasium.make_vec`."""


def find_spec(env_id: str) -> EnvSpec:
    """Return what Gymnasium knows of an environment, of an installed package or of ``module:ID``.

    :raises UnityEnvironmentException: there is no such environment, or the module that has it cannot be imported.
    """
    module, _, name = env_id.rpartition(":")
    modules = [module] if module else [package for start, package in _REGISTERED_BY.items() if name.startswith(start)]
    for package in modules:
        if importlib.util.find_spec(package.partition(".")[0]) is None:
            raise UnityEnvironmentException(
                f"--env gym:{env_id}: it belongs to the package {package}, which is not installed."
            )
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise UnityEnvironmentException(
                f"--env gym:{env_id}: the module {package}, which it belongs to, cannot be imported: {error}."
            ) from error
    try:
        return gymnasium.spec(name)
    except gymnasium.error.Error as error:
        raise UnityEnvironmentException(f"--env gym:{env_id}: {error} {_how_to_write()}") from None


def behavior_name(env_id: str) -> str:
    """Return the name of the behaviour that an environment's agents have: its id without module and namespace."""
    return env_id.rpartition(":")[2].rpartition("/")[2]


def make_vector_env(env_id: str, num_copies: int, arguments: Mapping[str, Any]) -> VectorEnv[Any, Any, Any]:
    """Return copies of an environment that are stepped as one batch.

    They are the environment's own vector environment where it has one, else one after the other in this process, or in
    a process each where a step takes longer than `SLOW_STEP_S`.

    :param arguments: of the environment's constructor; ``vectorization_mode`` chooses one of `MODES`.
    :raises UnityEnvironmentException: there is no such environment, or it cannot be made.
    """
    spec = find_spec(env_id)
    arguments = dict(arguments)
    mode = arguments.pop("vectorization_mode", None)
    if mode not in (None, *MODES):
        raise UnityEnvironmentException(
            f"--env gym:{env_id}: vectorization_mode is {mode!r} but must be one of {', '.join(MODES)}."
        )
    try:
        if mode is None and spec.vector_entry_point is not None and not arguments and not spec.additional_wrappers:
            mode = "vector_entry_point"
        if mode == "vector_entry_point":
            return gymnasium.make_vec(spec, num_copies, mode, **arguments)
        make = partial(_make_env, env_id, arguments)
        if mode is None:
            mode = "async" if num_copies > 1 and (os.cpu_count() or 1) > 1 and _is_worth_processes(make()) else "sync"
        copies = [make] * num_copies
        # Autoreset is disabled, for `GymnasiumEnv` resets when it has taken the last observation: an environment may
        # write the next one over it.
        if mode == "sync":
            return SyncVectorEnv(copies, copy=False, autoreset_mode=AutoresetMode.DISABLED)
        # Not forked: a process that has computed with several threads may hang in its child.
        return AsyncVectorEnv(copies, copy=False, context="spawn", autoreset_mode=AutoresetMode.DISABLED)
    except (gymnasium.error.Error, ImportError) as error:
        raise UnityEnvironmentException(f"--env gym:{env_id}: it cannot be made: {error}") from error
    except Exception as error:  # whatever a constructor raises of arguments that it does not like
        if not arguments:
            raise
        raise UnityEnvironmentException(
            f"--env gym:{env_id}: it cannot be made with {', '.join(arguments)}: {error}"
        ) from error


def _make_env(env_id: str, arguments: Mapping[str, Any]) -> gymnasium.Env[Any, Any]:
    """Make one copy, maybe in a process that has yet to import what registers it."""
    if multiprocessing.parent_process() is not None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the trainer, which ends the copies in order
    return gymnasium.make(find_spec(env_id), **arguments)


def _is_worth_processes(env: gymnasium.Env[Any, Any]) -> bool:
    """Whether an environment's steps take long, found by a few random ones; it is closed afterwards.

    Processes share memory for the observations, which is possible for Gymnasium's own spaces only.
    """
    try:
        if not all(type(part).__module__.startswith("gymnasium.") for _, part in leaves(env.observation_space)):
            return False
        env.action_space.seed(0)
        seen, info = env.reset(seed=0)
        times = []
        for _ in range(_PROBE_STEPS):
            action = env.action_space.sample(mask=_mask(seen, info))
            start = time.perf_counter()
            seen, _, terminated, truncated, info = env.step(action)
            times.append(time.perf_counter() - start)
            if terminated or truncated:
                seen, info = env.reset()
        return sorted(times)[_PROBE_STEPS // 2] > SLOW_STEP_S
    except Exception as error:  # of a step that the training would not have taken
        logger.debug(f"How long a step takes could not be found out: {error}")
        return False
    finally:
        env.close()


def _mask(seen: Any, info: Mapping[str, Any]) -> Any:
    """Return what is allowed, as an action space samples by it; None where everything is."""
    return seen[MASK] if isinstance(seen, dict) and MASK in seen else info.get(MASK)


def _how_to_write() -> str:
    return "Write gym:ID with the id that Gymnasium knows it by, or gym:MODULE:ID if importing MODULE registers it."
