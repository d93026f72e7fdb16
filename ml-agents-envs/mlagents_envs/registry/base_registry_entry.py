"""What a registry holds."""

from abc import ABC, abstractmethod
from typing import Any, Optional

from mlagents_envs.base_env import BaseEnv


class BaseRegistryEntry(ABC):
    """An environment that can be made by name.

    :param identifier: its name in the registry.
    :param expected_reward: the mean reward per episode of an agent that has learnt it.
    :param description: one sentence about the task.
    """

    def __init__(self, identifier: str, expected_reward: Optional[float], description: Optional[str]):
        self._identifier = identifier
        self._expected_reward = expected_reward
        self._description = description

    @property
    def identifier(self) -> str:
        """The name in the registry."""
        return self._identifier

    @property
    def expected_reward(self) -> Optional[float]:
        """The mean reward per episode of an agent that has learnt it; None when unknown."""
        return self._expected_reward

    @property
    def description(self) -> Optional[str]:
        """One sentence about the task."""
        return self._description

    @property
    def has_own_process(self) -> bool:
        """Whether the environment simulates in a process of its own, as executables do."""
        return True

    @abstractmethod
    def make(self, **kwargs: Any) -> BaseEnv:
        """Make the environment, with the arguments of a Unity environment."""
