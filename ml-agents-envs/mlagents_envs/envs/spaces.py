"""What the wrappers share: from specifications of behaviours to Gymnasium's spaces, and between values of the two."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from mlagents_envs.base_env import ActionSpec, ActionTuple, BaseEnv, BehaviorSpec, ObservationSpec

MAX_SILENT_STEPS = 10_000
"""So many steps in a row an agent may ask for nothing before that is an error."""

_IMAGE_RANK = 3


def is_image(spec: ObservationSpec) -> bool:
    """Whether an observation is an image (C, H, W)."""
    return len(spec.shape) == _IMAGE_RANK


def box(spec: ObservationSpec, as_bytes: bool = False) -> spaces.Box:
    """Return the space of one observation: images between 0 and 1, everything else without bounds.

    :param as_bytes: images are `uint8`, 0 to 255.
    """
    if not is_image(spec):
        return spaces.Box(-np.inf, np.inf, spec.shape, np.float32)
    return spaces.Box(0, 255, spec.shape, np.uint8) if as_bytes else spaces.Box(0, 1, spec.shape, np.float32)


def observation_space(spec: BehaviorSpec) -> spaces.Space[Any]:
    """Return the space of what an agent sees: a Box, or a Tuple of them in the order of the specifications."""
    boxes = [box(observation) for observation in spec.observation_specs]
    return boxes[0] if len(boxes) == 1 else spaces.Tuple(boxes)


def observation_names(spec: BehaviorSpec) -> list[str]:
    """Return a name for each observation, its own where it has one that no other has, else ``obs_0``, ``obs_1``, ..."""
    names = [observation.name for observation in spec.observation_specs]
    return [name if name and names.count(name) == 1 else f"obs_{index}" for index, name in enumerate(names)]


def action_space(spec: ActionSpec) -> spaces.Space[Any]:
    """Return the space of what an agent does.

    Continuous actions are a Box within [-1, 1], one branch is Discrete, several are MultiDiscrete, and both kinds
    together a Tuple, continuous first.
    """
    parts: list[spaces.Space[Any]] = []
    if spec.continuous_size:
        parts.append(spaces.Box(-1, 1, (spec.continuous_size,), np.float32))
    if spec.discrete_size == 1:
        parts.append(spaces.Discrete(spec.discrete_branches[0]))
    elif spec.discrete_size:
        parts.append(spaces.MultiDiscrete(list(spec.discrete_branches)))
    return parts[0] if len(parts) == 1 else spaces.Tuple(parts)


def action_tuple(spec: ActionSpec, action: Any, n_agents: int = 1) -> ActionTuple:
    """Return actions of `action_space` for the environment.

    :param action: of one agent, or a batch of them for N agents, as Gymnasium's vector environments take it.
    """
    is_hybrid = spec.continuous_size > 0 and spec.discrete_size > 0
    parts = list(action) if is_hybrid else [action]
    actions = ActionTuple()
    if spec.continuous_size:
        actions.add_continuous(np.asarray(parts.pop(0), dtype=np.float32).reshape(n_agents, spec.continuous_size))
    if spec.discrete_size:
        actions.add_discrete(np.asarray(parts.pop(0), dtype=np.int32).reshape(n_agents, spec.discrete_size))
    return actions


def allowed(forbidden: Sequence[NDArray[np.bool_]] | None, spec: ActionSpec) -> Any:
    """Return one agent's masks in the form that ``action_space.sample(mask)`` takes: int8, 1 = allowed.

    :param forbidden: per branch, (size,), True = forbidden; None where nothing is.
    :returns: an array, or with several branches a tuple of them.
    """
    masks = tuple(
        np.ones(size, dtype=np.int8) if forbidden is None else (~forbidden[branch]).astype(np.int8)
        for branch, size in enumerate(spec.discrete_branches)
    )
    return masks[0] if len(masks) == 1 else masks


def mask_space(spec: ActionSpec) -> spaces.Space[Any]:
    """Return the space of what `allowed` returns."""
    boxes = [spaces.Box(0, 1, (size,), np.int8) for size in spec.discrete_branches]
    return boxes[0] if len(boxes) == 1 else spaces.Tuple(boxes)


def seed_environment(env: BaseEnv, seed: int) -> None:
    """Seed an environment anew, if it can be: those that simulate in this process can (`LocalEnv.seed`).

    A Unity build takes its seed when it starts.
    """
    reseed = getattr(env, "seed", None)
    if callable(reseed):
        reseed(seed)
