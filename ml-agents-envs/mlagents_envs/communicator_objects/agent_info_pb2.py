"""The messages of `agent_info.proto`."""

from typing import Any

from mlagents_envs.communicator_objects.builder import names_of

globals().update(names_of("agent_info"))


def __getattr__(name: str) -> Any:
    raise AttributeError(f"{__name__} has no {name}")
