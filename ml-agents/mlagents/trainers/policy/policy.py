"""What every policy is: from the agents that wait for a decision to their actions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Dict, List, Mapping, NoReturn, Optional, Sequence, Tuple

import numpy as np

from mlagents.trainers.action_info import ActionInfo
from mlagents_envs.base_env import ActionTuple, BehaviorSpec, DecisionSteps
from mlagents_envs.exception import UnityPolicyException

if TYPE_CHECKING:
    from mlagents.trainers.settings import NetworkSettings

__all__ = ["Policy", "UnityPolicyException"]


class Policy(ABC):
    """Decides for all agents of a behaviour at once.

    :ivar use_recurrent: whether agents remember: what they do is learned from sequences of steps.
    :ivar sequence_length: rows per training sequence (T); 1 without memory.
    :ivar m_size: floats of memory per agent (M); 0 without memory.
    """

    def __init__(self, seed: int, behavior_spec: BehaviorSpec, network_settings: NetworkSettings):
        self.seed = seed
        self.behavior_spec = behavior_spec
        self.network_settings = network_settings
        self.normalize = network_settings.normalize
        self.use_recurrent = network_settings.memory is not None
        self.m_size = 0
        self.sequence_length = 1
        if network_settings.memory is not None:
            self.m_size = network_settings.memory.memory_size
            self.sequence_length = network_settings.memory.sequence_length

    @abstractmethod
    def get_action(self, decision_requests: DecisionSteps, worker_id: int = 0) -> ActionInfo:
        """Decide for every agent of `decision_requests`.

        :param worker_id: which worker they are in. Within it, an agent's id belongs to one agent at a time, whatever
            its behaviour: a policy with memory knows agents by worker and id, and teams may share a policy.
        """

    def get_actions(self, requests: Sequence[Tuple[int, DecisionSteps]]) -> List[ActionInfo]:
        """Decide for the agents of several workers; here one worker after the other.

        :param requests: worker ids, each with what its agents see.
        :returns: one decision per request, in their order.
        """
        return [self.get_action(decision_requests, worker_id) for worker_id, decision_requests in requests]

    def end_episodes(self, worker_id: int, agent_ids: np.ndarray) -> None:  # noqa: B027  # may stay as it is
        """Take note that episodes of some agents ended, before their next decision; nothing to do without memory."""

    def end_all_episodes(self) -> None:  # noqa: B027
        """Take note that all environments start anew; nothing to do without memory."""

    def act_deterministically(self) -> None:  # noqa: B027  # may stay as it is
        """Take the best actions from now on; nothing to do for policies that leave nothing to chance.

        For evaluations, whose policies are copies.
        """

    def episodes_state(self) -> Dict[str, Any]:
        """Return what is known of the episodes under way, for a run that resumes; nothing without memory."""
        return {}

    def restore_episodes(self, state: Mapping[str, Any]) -> None:  # noqa: B027
        """Take over what `episodes_state` told; nothing to do without memory."""

    @staticmethod
    def check_nan_action(action: Optional[ActionTuple]) -> None:
        """Raise where an action holds NaN.

        :raises UnityPolicyException: it does: the network's parameters are no longer finite.
        """
        if action is not None and action.continuous.size and np.count_nonzero(np.isnan(action.continuous)):
            Policy._raise_not_finite()

    @staticmethod
    def _raise_not_finite(what: str = "an action") -> NoReturn:
        raise UnityPolicyException(
            f"The policy gave {what} that is NaN: its parameters are no longer finite. Go back to an "
            "earlier checkpoint with --initialize-from, and lower the learning rate."
        )

    @abstractmethod
    def increment_step(self, n_steps: int) -> int:
        """Count `n_steps` more steps of training and return all so far."""

    @abstractmethod
    def get_current_step(self) -> int:
        """Return the steps of training so far."""

    @abstractmethod
    def load_weights(self, values: List[np.ndarray]) -> None:
        """Set the parameters from what `get_weights` gave."""

    @abstractmethod
    def get_weights(self) -> List[np.ndarray]:
        """Return copies of the parameters."""

    @abstractmethod
    def init_load_weights(self) -> None:
        """Prepare for `load_weights`."""
