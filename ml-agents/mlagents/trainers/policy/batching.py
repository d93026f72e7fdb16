"""One decision for the agents of several workers: their steps joined, and the decision split again.

Axis letters: N agents of all workers together.
"""

from __future__ import annotations

from functools import singledispatch
from typing import Any, List, Optional, Sequence

import numpy as np

from mlagents.torch_utils import torch
from mlagents.trainers.action_info import ActionInfo
from mlagents_envs.base_env import DecisionSteps, _ActionTupleBase


def join_steps(parts: Sequence[DecisionSteps]) -> DecisionSteps:
    """Return the steps of several workers as one batch.

    Agents of different workers have the same ids; here each has the number of its row instead.
    """
    n_agents = sum(map(len, parts))
    return DecisionSteps(
        obs=[np.concatenate(columns) for columns in zip(*(steps.obs for steps in parts))],
        reward=np.concatenate([steps.reward for steps in parts]),
        agent_id=np.arange(n_agents, dtype=np.int32),
        action_mask=_join_masks(parts),
        group_id=np.concatenate([steps.group_id for steps in parts]),
        group_reward=np.concatenate([steps.group_reward for steps in parts]),
    )


def _join_masks(parts: Sequence[DecisionSteps]) -> Optional[List[np.ndarray]]:
    """Return the masks of all, in which workers that sent none forbid nothing; None where nobody sent any."""
    sizes = next(([mask.shape[1] for mask in steps.action_mask] for steps in parts if steps.action_mask), None)
    if sizes is None:
        return None
    masks = [steps.action_mask or [np.zeros((len(steps), size), dtype=bool) for size in sizes] for steps in parts]
    return [np.concatenate(of_branch) for of_branch in zip(*masks)]


def split_decision(decision: ActionInfo, parts: Sequence[DecisionSteps]) -> List[ActionInfo]:
    """Return each worker's share of what was decided for `join_steps` of the same parts.

    Of the outputs, what has a row per agent is split: arrays, tensors, and tuples, lists and dictionaries of them.
    Everything else is for all.
    """
    n_agents = sum(map(len, parts))
    shares = []
    start = 0
    for steps in parts:
        rows = slice(start, start + len(steps))
        action, env_action, outputs = (_share(part, rows, n_agents) for part in decision[:3])
        shares.append(ActionInfo(action, env_action, outputs, steps.agent_id))  # type: ignore[arg-type]  # an array
        start = rows.stop
    return shares


@singledispatch
def _share(value: Any, rows: slice, n_agents: int) -> Any:
    """Return the rows that some agents have in `value`, or `value` where it does not have one per agent."""
    return value


@_share.register(np.ndarray)
@_share.register(torch.Tensor)
def _share_of_array(value: Any, rows: slice, n_agents: int) -> Any:
    return value[rows] if value.ndim and len(value) == n_agents else value


@_share.register
def _share_of_actions(value: _ActionTupleBase, rows: slice, n_agents: int) -> _ActionTupleBase:
    return type(value)(value.continuous[rows], value.discrete[rows])


@_share.register(tuple)
@_share.register(list)
def _share_of_sequence(value: Any, rows: slice, n_agents: int) -> Any:
    shares = [_share(part, rows, n_agents) for part in value]
    return value._make(shares) if hasattr(value, "_make") else type(value)(shares)


@_share.register(dict)
def _share_of_dictionary(value: Any, rows: slice, n_agents: int) -> Any:
    return {name: _share(part, rows, n_agents) for name, part in value.items()}
