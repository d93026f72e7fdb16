"""What ``gym:ID`` and ``pettingzoo:MODULE`` stand for after ``--env``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Dict, List, Sequence

import yaml

from mlagents_envs.base_env import BaseEnv
from mlagents_envs.exception import UnityEnvironmentException
from mlagents_envs.external.gymnasium_env import GymnasiumEnv
from mlagents_envs.external.gymnasium_ids import behavior_name, find_spec, make_vector_env
from mlagents_envs.external.pettingzoo_env import PettingZooEnv
from mlagents_envs.external.pettingzoo_modules import find_factory
from mlagents_envs.side_channel.side_channel import SideChannel


@dataclass(frozen=True)
class GymnasiumSource:
    """Copies of an environment of Gymnasium's; see `GymnasiumEnv`.

    :param env_id: as Gymnasium knows it, or ``module:ID``.
    :param arguments: of its constructor.
    """

    env_id: str
    arguments: Mapping[str, Any]
    has_own_process: ClassVar[bool] = False

    @property
    def name(self) -> str:
        """What the user wrote, for messages."""
        return f"gym:{self.env_id}"

    def check(self) -> None:
        """Raise `UnityEnvironmentException` where there is no such environment."""
        find_spec(self.env_id)

    def make(self, *, worker_id: int, seed: int, num_areas: int, side_channels: List[SideChannel]) -> BaseEnv:
        """Make as many copies as there are areas; see `EnvSource`."""
        vector_env = make_vector_env(self.env_id, num_areas, self.arguments)
        try:
            return GymnasiumEnv(vector_env, behavior_name(self.env_id), seed=seed, side_channels=side_channels)
        except UnityEnvironmentException:
            vector_env.close()
            raise


@dataclass(frozen=True)
class PettingZooSource:
    """Copies of an environment of PettingZoo's; see `PettingZooEnv`.

    :param module: whose ``parallel_env`` or ``env`` makes it.
    :param arguments: of its constructor.
    """

    module: str
    arguments: Mapping[str, Any]
    has_own_process: ClassVar[bool] = False

    @property
    def name(self) -> str:
        """What the user wrote, for messages."""
        return f"pettingzoo:{self.module}"

    def check(self) -> None:
        """Raise `UnityEnvironmentException` where there is no such environment."""
        find_factory(self.module, self.arguments)

    def make(self, *, worker_id: int, seed: int, num_areas: int, side_channels: List[SideChannel]) -> BaseEnv:
        """Make as many copies as there are areas; see `EnvSource`."""
        factory = find_factory(self.module, self.arguments)
        return PettingZooEnv(factory, self.name, num_areas=num_areas, seed=seed, side_channels=side_channels)


def read_arguments(env: str, words: Sequence[str]) -> Dict[str, Any]:
    """Return the constructor's arguments of ``--env-args KEY=VALUE ...``, values read as YAML.

    :raises UnityEnvironmentException: a word is not of that form.
    """
    arguments = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not key.isidentifier() or not equals:
            raise UnityEnvironmentException(
                f"--env {env}: --env-args takes arguments of the environment as KEY=VALUE but was given {word!r}."
            )
        arguments[key] = _read_value(env, key, text)
    return arguments


def _read_value(env: str, key: str, text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        reason = " ".join(str(error).split())
        raise UnityEnvironmentException(
            f"--env {env}: the value of {key} in --env-args cannot be read: {reason}"
        ) from None
