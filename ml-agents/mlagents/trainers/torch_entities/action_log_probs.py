"""Logarithms of the probabilities of actions.

Axis letters: B rows, C continuous actions, D branches, A = C + D.
"""

from __future__ import annotations

from typing import List, NamedTuple, Optional

from mlagents.torch_utils import torch
from mlagents.trainers.buffer import AgentBuffer, BufferKey
from mlagents.trainers.torch_entities.utils import ModelUtils
from mlagents.trainers.trajectory import LogProbsTuple

__all__ = ["ActionLogProbs", "LogProbsTuple"]


class ActionLogProbs(NamedTuple):
    """Log-probabilities of the actions taken and, for branches, of all choices.

    :param continuous_tensor: (B, C), or None without continuous actions.
    :param discrete_list: per branch (B,), or None without branches.
    :param all_discrete_list: per branch (B, size), or None where not known.
    """

    continuous_tensor: Optional[torch.Tensor]
    discrete_list: Optional[List[torch.Tensor]]
    all_discrete_list: Optional[List[torch.Tensor]]

    @property
    def discrete_tensor(self) -> torch.Tensor:
        """Of the choices taken (B, D); empty without branches."""
        return torch.stack(self.discrete_list, dim=-1) if self.discrete_list else torch.empty(0)

    @property
    def all_discrete_tensor(self) -> torch.Tensor:
        """Of all choices (B, sum of branches); empty without branches."""
        return torch.cat(self.all_discrete_list, dim=1) if self.all_discrete_list else torch.empty(0)

    def to_log_probs_tuple(self) -> LogProbsTuple:
        """Return the log-probabilities of the actions taken as arrays."""
        log_probs = LogProbsTuple()
        if self.continuous_tensor is not None:
            log_probs.add_continuous(ModelUtils.to_numpy(self.continuous_tensor))
        if self.discrete_list:
            log_probs.add_discrete(ModelUtils.to_numpy(self.discrete_tensor))
        return log_probs

    def flatten(self) -> torch.Tensor:
        """Return those of the actions taken (B, A), continuous ones first."""
        if not self.discrete_list:
            return torch.empty(0) if self.continuous_tensor is None else self.continuous_tensor
        if self.continuous_tensor is None:
            return self.discrete_tensor
        return torch.cat([self.continuous_tensor, self.discrete_tensor], dim=1)

    @staticmethod
    def from_buffer(buff: AgentBuffer) -> ActionLogProbs:
        """Return what was stored when the actions were taken; those of all choices are not."""
        continuous: Optional[torch.Tensor] = None
        discrete: Optional[List[torch.Tensor]] = None
        if BufferKey.CONTINUOUS_LOG_PROBS in buff:
            continuous = ModelUtils.list_to_tensor(buff[BufferKey.CONTINUOUS_LOG_PROBS])
        if BufferKey.DISCRETE_LOG_PROBS in buff:
            discrete = ModelUtils.columns_to_tensors(buff[BufferKey.DISCRETE_LOG_PROBS])
        return ActionLogProbs(continuous, discrete, None)
