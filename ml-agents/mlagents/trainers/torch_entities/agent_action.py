"""Actions as tensors.

Axis letters: B rows, C continuous actions, D branches.
"""

from __future__ import annotations

from typing import List, NamedTuple, Optional

from mlagents.torch_utils import torch
from mlagents.trainers.buffer import AgentBuffer, BufferKey
from mlagents.trainers.torch_entities.utils import ModelUtils
from mlagents_envs.base_env import ActionTuple


def clip_for_environment(continuous: torch.Tensor) -> torch.Tensor:
    """Return unbounded actions as an environment takes them: clipped to [-3, 3] and divided by 3."""
    return torch.clamp(continuous, -3.0, 3.0) / 3.0


class AgentAction(NamedTuple):
    """Actions of a batch.

    :param continuous_tensor: (B, C), or None without continuous actions.
    :param discrete_list: per branch the chosen indices, int64, (B, 1) when sampled and (B,) from a buffer; None
        without branches.
    """

    continuous_tensor: Optional[torch.Tensor]
    discrete_list: Optional[List[torch.Tensor]]

    @property
    def discrete_tensor(self) -> torch.Tensor:
        """Chosen indices, (B, 1, D) when sampled and (B, D) from a buffer; empty without branches."""
        return torch.stack(self.discrete_list, dim=-1) if self.discrete_list else torch.empty(0)

    def slice(self, start: int, end: int) -> AgentAction:
        """Return rows `start` to `end`."""
        continuous = None if self.continuous_tensor is None else self.continuous_tensor[start:end]
        discrete = None if self.discrete_list is None else [branch[start:end] for branch in self.discrete_list]
        return AgentAction(continuous, discrete)

    def to_action_tuple(self, clip: bool = False) -> ActionTuple:
        """Return the actions as arrays, discrete ones (B, D).

        :param clip: whether to clip and scale continuous ones, see `clip_for_environment`.
        """
        actions = ActionTuple()
        if self.continuous_tensor is not None:
            continuous = clip_for_environment(self.continuous_tensor) if clip else self.continuous_tensor
            actions.add_continuous(ModelUtils.to_numpy(continuous))
        if self.discrete_list:
            discrete = ModelUtils.to_numpy(self.discrete_tensor)
            actions.add_discrete(discrete.reshape(-1, len(self.discrete_list)))
        return actions

    @staticmethod
    def from_buffer(buff: AgentBuffer) -> AgentAction:
        """Return the actions that were stored, continuous ones unclipped."""
        continuous: Optional[torch.Tensor] = None
        discrete: Optional[List[torch.Tensor]] = None
        if BufferKey.CONTINUOUS_ACTION in buff:
            continuous = ModelUtils.list_to_tensor(buff[BufferKey.CONTINUOUS_ACTION])
        if BufferKey.DISCRETE_ACTION in buff:
            discrete = ModelUtils.columns_to_tensors(buff[BufferKey.DISCRETE_ACTION], torch.long)
        return AgentAction(continuous, discrete)

    def to_flat(self, discrete_branches: List[int]) -> torch.Tensor:
        """Return (B, C + sum of branches): continuous actions, then each branch one-hot.

        :param discrete_branches: the size of each branch.
        """
        parts = [] if self.continuous_tensor is None else [self.continuous_tensor]
        if self.discrete_list:
            chosen = torch.stack([branch.reshape(-1) for branch in self.discrete_list], dim=1)
            parts += ModelUtils.actions_to_onehot(chosen, discrete_branches)
        return torch.cat(parts, dim=1)
