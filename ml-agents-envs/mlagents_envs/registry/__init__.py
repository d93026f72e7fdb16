"""Environments by name: ``default_registry["3DBall"].make()``."""

from mlagents_envs.registry.unity_env_registry import UnityEnvRegistry, default_registry

__all__ = ["UnityEnvRegistry", "default_registry"]
