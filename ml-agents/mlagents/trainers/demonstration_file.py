"""Reading demonstrations: what a ``.demo`` file says, which Unity records while somebody plays.

The file is a `DemonstrationMetaProto`, from byte 33 on a `BrainParametersProto`, then an `AgentInfoActionPairProto` for
each step. The length of each message, a varint, comes before it.
"""

from __future__ import annotations

import os
from typing import Any, Iterator, NamedTuple, Optional, Tuple, Type, TypeVar

import numpy as np
from google.protobuf.message import DecodeError, Message

from mlagents.trainers.exception import UnityTrainerException
from mlagents_envs.base_env import BehaviorSpec
from mlagents_envs.communicator_objects.agent_info_action_pair_pb2 import AgentInfoActionPairProto
from mlagents_envs.communicator_objects.agent_info_pb2 import AgentInfoProto
from mlagents_envs.communicator_objects.brain_parameters_pb2 import BrainParametersProto
from mlagents_envs.communicator_objects.demonstration_meta_pb2 import DemonstrationMetaProto
from mlagents_envs.exception import UnityException
from mlagents_envs.rpc_utils import behavior_spec_from_proto
from mlagents_envs.wire.fields import read_varint

KNOWN_VERSIONS = (0, 1)
BRAIN_PARAMETERS_AT = 33
"""The byte where what comes after the first message begins: Unity writes that one over when it knows the figures."""

M = TypeVar("M", bound=Message)


class DemonstrationError(UnityTrainerException):
    """A demonstration is missing, damaged, or none at all."""


class Demonstration(NamedTuple):
    """What a demonstration says.

    :param name: that its author gave it.
    :param mean_reward: mean return of its episodes.
    :param behavior_spec: without observations where it has no steps.
    :param first_not_finite: the first place with a value that is not finite, ``step 7, the reward``; None if all are.
    """

    name: str
    version: int
    behavior_name: str
    behavior_spec: BehaviorSpec
    n_steps: int
    n_episodes: int
    mean_reward: float
    first_not_finite: Optional[str]


def read_demonstration(path: str | os.PathLike[str]) -> Demonstration:
    """Read a demonstration, every step of it.

    :raises DemonstrationError: there is none, it is damaged, or it is of an unknown version.
    """
    data = _read(path)
    try:
        meta, end = _read_message(data, 0, DemonstrationMetaProto)
        if end > BRAIN_PARAMETERS_AT:
            raise DecodeError(f"its header ends at byte {end}")
        if meta.api_version not in KNOWN_VERSIONS:
            raise DemonstrationError(
                f"{path} is a demonstration of version {meta.api_version}, or none at all; versions that can be read: "
                f"{', '.join(map(str, KNOWN_VERSIONS))}."
            )
        brain, at = _read_message(data, BRAIN_PARAMETERS_AT, BrainParametersProto)
        first_info, not_finite = AgentInfoProto(), None
        for step, pair in enumerate(_read_pairs(data, at, meta.number_steps)):
            if step == 0:
                first_info.CopyFrom(pair.agent_info)
            not_finite = not_finite or _place_not_finite(step, pair)
        spec = behavior_spec_from_proto(brain, first_info)
    except (DecodeError, UnityException, ValueError) as error:
        raise DemonstrationError(f"{path} is damaged, or no demonstration: {error}") from error
    if not_finite is None and not np.isfinite(meta.mean_reward):
        not_finite = "the mean reward"
    return Demonstration(
        name=meta.demonstration_name,
        version=meta.api_version,
        behavior_name=brain.brain_name,
        behavior_spec=spec,
        n_steps=meta.number_steps,
        n_episodes=meta.number_episodes,
        mean_reward=meta.mean_reward,
        first_not_finite=not_finite,
    )


def _read(path: str | os.PathLike[str]) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        raise DemonstrationError(f"There is no demonstration at {path}.") from None
    except OSError as error:
        raise DemonstrationError(f"{path} could not be read as a demonstration: {error.strerror}.") from error


def _read_message(data: bytes, at: int, kind: Type[M]) -> Tuple[M, int]:
    """Return the message whose length stands at a byte, and where it ends.

    :raises DecodeError: there is none.
    """
    if at >= len(data):
        raise DecodeError(f"it ends at byte {len(data)}, where more should come")
    try:
        size, start = read_varint(data, at, len(data))
    except UnityException:  # whose text is of what environments send
        raise DecodeError(f"at byte {at} there is no length of a message") from None
    if start + size > len(data):
        raise DecodeError(f"it ends at byte {len(data)}, in the midst of a message of {size} bytes")
    message = kind()
    try:
        message.ParseFromString(data[start : start + size])
    except DecodeError:
        raise DecodeError(f"at byte {start} there is no {kind.__name__}") from None
    return message, start + size


def _read_pairs(data: bytes, at: int, n_steps: int) -> Iterator[AgentInfoActionPairProto]:
    for _ in range(n_steps):
        pair, at = _read_message(data, at, AgentInfoActionPairProto)
        yield pair


def _place_not_finite(step: int, pair: AgentInfoActionPairProto) -> Optional[str]:
    """Return the first place of a step with a value that is not finite; None if all are."""
    info, action = pair.agent_info, pair.action_info
    values: Iterator[Tuple[str, Any]] = iter(
        [
            ("the reward", info.reward),
            ("the group reward", info.group_reward),
            *((f"observation {index}", it.float_data.data) for index, it in enumerate(info.observations)),
            ("the action", action.continuous_actions),
            ("the action", action.vector_actions_deprecated),
        ]
    )
    return next((f"step {step}, {name}" for name, it in values if not np.isfinite(np.asarray(it)).all()), None)
