"""Registry entries of executables that are fetched when they are first made."""

from __future__ import annotations

from typing import Any, List, Mapping, Optional

from mlagents_envs.base_env import BaseEnv
from mlagents_envs.env_utils import get_platform
from mlagents_envs.exception import UnityEnvironmentException
from mlagents_envs.registry.base_registry_entry import BaseRegistryEntry
from mlagents_envs.registry.binary_utils import get_local_binary_path
from mlagents_envs.registry.local_registry_entry import make_unity_environment


class RemoteRegistryEntry(BaseRegistryEntry):
    """An executable in a zip archive on the net, one per platform; it is fetched once, see `get_local_binary_path`.

    :param linux_url: where the archive for Linux is, https; None where there is none. Likewise the others.
    :param additional_args: further words of the executable's command line, such as its scene.
    :param tmp_dir: where archives are unpacked; the user's cache folder if not given.
    :param sha256: of the archives in hexadecimal, by platform: ``linux``, ``darwin``, ``win``.
    """

    def __init__(
        self,
        identifier: str,
        expected_reward: Optional[float],
        description: Optional[str],
        linux_url: Optional[str],
        darwin_url: Optional[str],
        win_url: Optional[str],
        additional_args: Optional[List[str]] = None,
        tmp_dir: Optional[str] = None,
        sha256: Optional[Mapping[str, str]] = None,
    ):
        super().__init__(identifier, expected_reward, description)
        self._urls = {"linux": linux_url, "darwin": darwin_url, "win": win_url}
        self._additional_args = list(additional_args or [])
        self._tmp_dir = tmp_dir
        self._sha256 = dict(sha256 or {})

    def make(self, **kwargs: Any) -> BaseEnv:
        """Start the executable, with the arguments of `UnityEnvironment`; fetch it first if that was never done.

        :raises UnityEnvironmentException: there is none for this platform, or it cannot be fetched or started.
        """
        platform = {"win32": "win"}.get(get_platform(), get_platform())
        url = self._urls.get(platform)
        if url is None:
            there_are = ", ".join(name for name, its_url in self._urls.items() if its_url) or "none"
            raise UnityEnvironmentException(
                f"The environment {self.identifier} has no archive for {platform}; there are: {there_are}."
            )
        path = get_local_binary_path(self.identifier, url, self._tmp_dir, self._sha256.get(platform))
        return make_unity_environment(path, self._additional_args, kwargs)
