"""The messages of `unity_message.proto`."""

from typing import Any

from mlagents_envs.communicator_objects.builder import names_of

globals().update(names_of("unity_message"))


def __getattr__(name: str) -> Any:
    raise AttributeError(f"{__name__} has no {name}")
