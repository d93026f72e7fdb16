"""Actions as inputs of networks."""

from __future__ import annotations

from mlagents.torch_utils import torch
from mlagents.trainers.torch_entities.agent_action import AgentAction
from mlagents_envs.base_env import ActionSpec


class ActionFlattener:
    """Turns actions of one specification into vectors: continuous ones, then each branch one-hot."""

    def __init__(self, action_spec: ActionSpec):
        self._action_spec = action_spec

    @property
    def flattened_size(self) -> int:
        """Continuous actions plus the sum of the branch sizes."""
        return self._action_spec.continuous_size + sum(self._action_spec.discrete_branches)

    def forward(self, action: AgentAction) -> torch.Tensor:
        """Return (B, flattened_size)."""
        return action.to_flat(list(self._action_spec.discrete_branches))
