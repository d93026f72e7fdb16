"""Registry entries of environments that are part of this package."""

import importlib
from typing import Any, Callable, Optional, Sequence

from mlagents_envs.base_env import BaseEnv
from mlagents_envs.exception import UnityEnvironmentException
from mlagents_envs.registry.base_registry_entry import BaseRegistryEntry
from mlagents_envs.side_channel.side_channel import SideChannel

_MEANINGLESS_HERE = frozenset(
    ("worker_id", "base_port", "no_graphics", "no_graphics_monitor", "timeout_wait", "additional_args", "log_folder")
)
"""Arguments of a Unity environment that are about its process, its window or its port."""


class BuiltinRegistryEntry(BaseRegistryEntry):
    """An environment that runs in this process, imported when it is first made.

    :param factory: ``package.module:Class``, called with `seed`, `num_areas` and `side_channels`.
    """

    def __init__(self, identifier: str, expected_reward: Optional[float], description: Optional[str], factory: str):
        super().__init__(identifier, expected_reward, description)
        self._module, _, self._attribute = factory.partition(":")

    @property
    def has_own_process(self) -> bool:
        """Whether the environment simulates in a process of its own: no."""
        return False

    def make(
        self,
        seed: int = 0,
        num_areas: int = 1,
        side_channels: Optional[Sequence[SideChannel]] = None,
        **env_kwargs: Any,
    ) -> BaseEnv:
        """Make the environment.

        :param num_areas: how many copies of the scene to simulate side by side.
        :param env_kwargs: what else a Unity environment takes; what is about its process is accepted and ignored.
        :raises UnityEnvironmentException: the physics engine is not installed.
        :raises TypeError: an argument that no environment takes.
        """
        unknown = sorted(env_kwargs.keys() - _MEANINGLESS_HERE)
        if unknown:
            raise TypeError(f"make() of the environment {self.identifier!r} takes no argument {', '.join(unknown)}")
        try:
            factory: Callable[..., BaseEnv] = getattr(importlib.import_module(self._module), self._attribute)
            return factory(seed=seed, num_areas=num_areas, side_channels=side_channels)
        except ModuleNotFoundError as error:
            if error.name != "mujoco":
                raise
            raise UnityEnvironmentException(
                f"The environment {self.identifier!r} needs the physics engine MuJoCo, which is not installed: "
                'pip install "mlagents_envs[builtin]"'
            ) from error
