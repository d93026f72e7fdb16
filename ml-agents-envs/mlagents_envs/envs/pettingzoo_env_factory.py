"""Environments of the registry as PettingZoo's modules make theirs: by ``env()``."""

from __future__ import annotations

from typing import Any, Optional

from mlagents_envs.envs.unity_aec_env import UnityAECEnv
from mlagents_envs.registry import default_registry


class PettingZooEnvFactory:
    """Makes an environment of `default_registry`.

    :param env_id: its name there.
    """

    def __init__(self, env_id: str) -> None:
        self.env_id = env_id

    def env(self, seed: Optional[int] = None, **kwargs: Any) -> UnityAECEnv:
        """Make the environment.

        :param seed: of the environment and of its first reset.
        :param kwargs: what `UnityEnvironment` takes.
        """
        if seed is not None:
            kwargs.setdefault("seed", seed)
        return UnityAECEnv(default_registry[self.env_id].make(**kwargs), seed)
