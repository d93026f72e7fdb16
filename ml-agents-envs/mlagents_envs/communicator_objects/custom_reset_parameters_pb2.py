"""The messages of `custom_reset_parameters.proto`."""

from typing import Any

from mlagents_envs.communicator_objects.builder import names_of

globals().update(names_of("custom_reset_parameters"))


def __getattr__(name: str) -> Any:
    raise AttributeError(f"{__name__} has no {name}")
