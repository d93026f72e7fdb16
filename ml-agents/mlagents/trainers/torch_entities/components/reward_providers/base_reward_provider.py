"""What every reward signal is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Dict

import numpy as np

from mlagents.torch_utils import torch
from mlagents.trainers.buffer import AgentBuffer
from mlagents.trainers.settings import RewardSignalSettings
from mlagents_envs.base_env import BehaviorSpec


class BaseRewardProvider(ABC):
    """Gives rewards for experience, and may learn from it."""

    def __init__(self, specs: BehaviorSpec, settings: RewardSignalSettings) -> None:
        self._policy_specs = specs
        self._gamma = settings.gamma
        self._strength = settings.strength
        self._ignore_done = False

    @property
    def gamma(self) -> float:
        """The discount of this signal's rewards."""
        return self._gamma

    @property
    def strength(self) -> float:
        """By what the rewards are multiplied; the trainer does that."""
        return self._strength

    @property
    def name(self) -> str:
        """The signal's name in statistics: the class's, without "RewardProvider"."""
        return type(self).__name__.replace("RewardProvider", "")

    @property
    def ignore_done(self) -> bool:
        """Whether the end of an episode is not the end of this signal's returns."""
        return self._ignore_done

    @abstractmethod
    def evaluate(self, mini_batch: AgentBuffer) -> np.ndarray:
        """Return the rewards (B,) of `mini_batch`, before `strength`."""

    @abstractmethod
    def update(self, mini_batch: AgentBuffer) -> Dict[str, np.ndarray]:
        """Learn from `mini_batch` and return statistics by name."""

    def get_modules(self) -> Dict[str, torch.nn.Module]:
        """Return what of the signal belongs into a checkpoint."""
        return {}
