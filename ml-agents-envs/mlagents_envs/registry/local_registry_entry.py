"""Registry entries of executables on this machine."""

from __future__ import annotations

from typing import Any, List, Optional

from mlagents_envs.base_env import BaseEnv
from mlagents_envs.registry.base_registry_entry import BaseRegistryEntry


class LocalRegistryEntry(BaseRegistryEntry):
    """An executable on this machine.

    :param path: of the executable, whose platform's suffix may be left out.
    :param additional_args: further words of its command line.
    """

    def __init__(
        self,
        identifier: str,
        expected_reward: Optional[float],
        description: Optional[str],
        path: str,
        additional_args: Optional[List[str]] = None,
    ):
        super().__init__(identifier, expected_reward, description)
        self._path = path
        self._additional_args = list(additional_args or [])

    def make(self, **kwargs: Any) -> BaseEnv:
        """Start the executable, with the arguments of `UnityEnvironment`."""
        return make_unity_environment(self._path, self._additional_args, kwargs)


def make_unity_environment(path: str, additional_args: List[str], kwargs: Any) -> BaseEnv:
    """Start an executable with an entry's own words on its command line, then those that the caller adds."""
    from mlagents_envs.environment import UnityEnvironment  # loads gRPC, which other environments do without

    words = [*additional_args, *(kwargs.pop("additional_args", None) or [])]
    return UnityEnvironment(file_name=path, additional_args=words, **kwargs)
