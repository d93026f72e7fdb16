"""The messages of `training_analytics.proto`."""

from typing import Any

from mlagents_envs.communicator_objects.builder import names_of

globals().update(names_of("training_analytics"))


def __getattr__(name: str) -> Any:
    raise AttributeError(f"{__name__} has no {name}")
