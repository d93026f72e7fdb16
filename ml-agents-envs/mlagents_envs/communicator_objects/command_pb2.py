"""The messages of `command.proto`."""

from typing import Any

from mlagents_envs.communicator_objects.builder import names_of

globals().update(names_of("command"))


def __getattr__(name: str) -> Any:
    raise AttributeError(f"{__name__} has no {name}")
