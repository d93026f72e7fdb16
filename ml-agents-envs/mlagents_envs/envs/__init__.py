"""What Unity runs, or any `BaseEnv`, used from the side of Gymnasium and PettingZoo."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlagents_envs.logging_util import get_logger
from mlagents_envs.registry import default_registry

if TYPE_CHECKING:
    from mlagents_envs.envs.pettingzoo_env_factory import PettingZooEnvFactory

logger = get_logger(__name__)

__all__ = ["PettingZooEnvFactory", "default_registry", "logger"]


def __getattr__(name: str) -> Any:
    """Return `PettingZooEnvFactory`, or that of an environment by its name in the registry: ``Basic.env()``."""
    if name == "PettingZooEnvFactory" or name in default_registry:
        from mlagents_envs.envs.pettingzoo_env_factory import PettingZooEnvFactory  # loads PettingZoo

        return PettingZooEnvFactory if name == "PettingZooEnvFactory" else PettingZooEnvFactory(name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
