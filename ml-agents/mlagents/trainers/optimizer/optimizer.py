"""What every optimizer is: from a minibatch to a gradient step."""

from abc import ABC, abstractmethod
from typing import Dict

from mlagents.trainers.buffer import AgentBuffer
from mlagents.trainers.torch_entities.components.reward_providers.base_reward_provider import BaseRewardProvider


class Optimizer(ABC):
    """Improves a policy.

    :ivar reward_signals: reward providers by name.
    """

    def __init__(self) -> None:
        self.reward_signals: Dict[str, BaseRewardProvider] = {}

    @abstractmethod
    def update(self, batch: AgentBuffer, num_sequences: int) -> Dict[str, float]:
        """Take a gradient step on `batch`, which holds `num_sequences` sequences, and return statistics by name."""
