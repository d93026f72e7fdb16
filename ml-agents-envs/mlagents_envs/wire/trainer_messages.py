"""The environment's end of the exchanges: reading what the trainer answers, and writing what it is told."""

from __future__ import annotations

from itertools import chain
from typing import Any, Dict, Iterable, List, Mapping, NamedTuple, Optional, Sequence

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import DTypeLike, NDArray

from mlagents_envs.base_env import ActionTuple, BehaviorName, BehaviorSpec
from mlagents_envs.communicator_objects import command_pb2
from mlagents_envs.communicator_objects.agent_action_pb2 import AgentActionProto
from mlagents_envs.communicator_objects.brain_parameters_pb2 import ActionSpecProto, BrainParametersProto
from mlagents_envs.communicator_objects.capabilities_pb2 import UnityRLCapabilitiesProto
from mlagents_envs.communicator_objects.header_pb2 import HeaderProto
from mlagents_envs.communicator_objects.unity_message_pb2 import UnityMessageProto
from mlagents_envs.communicator_objects.unity_output_pb2 import UnityOutputProto
from mlagents_envs.communicator_objects.unity_rl_initialization_input_pb2 import UnityRLInitializationInputProto
from mlagents_envs.communicator_objects.unity_rl_initialization_output_pb2 import UnityRLInitializationOutputProto
from mlagents_envs.communicator_objects.unity_rl_output_pb2 import UnityRLOutputProto
from mlagents_envs.exception import UnityCommunicationException
from mlagents_envs.wire.fields import delimited, read_fields
from mlagents_envs.wire.messages import OK

COMMUNICATION_VERSION = "1.5.0"
PACKAGE_VERSION = "3.0.0"
"""Of Unity's package that this end speaks like: images are channel first."""

_CONTINUOUS, _DISCRETE = 6, 7
"""Fields of `AgentActionProto`."""

_HEADER = delimited(1, HeaderProto(status=OK).SerializeToString())


class TrainerMessage(NamedTuple):
    """What the trainer wants.

    :param is_goodbye: that the environment ends.
    :param initialization: seed, versions and the number of areas; only in the first message.
    :param command: `command_pb2.STEP` or `command_pb2.RESET`.
    :param actions: by behaviour id, of all agents that were sent as waiting for one, in their order.
    :param side_channel: messages on the side channels, as they stand on the wire.
    """

    is_goodbye: bool
    initialization: Optional[UnityRLInitializationInputProto]
    command: int
    actions: Dict[BehaviorName, ActionTuple]
    side_channel: bytes


def read_trainer_message(data: bytes) -> TrainerMessage:
    """Read a trainer's answer.

    :raises UnityCommunicationException: the bytes are no message, or the agents of a behaviour differ in the number of
        their actions.
    """
    try:
        message = UnityMessageProto.FromString(data)
    except DecodeError as error:
        raise UnityCommunicationException(f"The trainer's answer of {len(data)} bytes is no message: {error}") from None
    unity_input = message.unity_input
    rl_input = unity_input.rl_input
    return TrainerMessage(
        is_goodbye=message.header.status != OK or rl_input.command == command_pb2.QUIT,
        initialization=(
            unity_input.rl_initialization_input if unity_input.HasField("rl_initialization_input") else None
        ),
        command=rl_input.command,
        actions={behavior_id: _actions(behavior_id, of) for behavior_id, of in rl_input.agent_actions.items()},
        side_channel=rl_input.side_channel,
    )


def write_handshake(name: str) -> bytes:
    """Return the first message: who speaks, in which version.

    :param name: of the environment.
    """
    capabilities = UnityRLCapabilitiesProto(
        baseRLCapabilities=True,
        concatenatedPngObservations=True,
        compressedChannelMapping=True,
        hybridActions=True,
        trainingAnalytics=True,
        variableLengthObservation=True,
        multiAgentGroups=True,
    )
    initialization = UnityRLInitializationOutputProto(
        name=name,
        communication_version=COMMUNICATION_VERSION,
        package_version=PACKAGE_VERSION,
        capabilities=capabilities,
    )
    output = UnityOutputProto(rl_initialization_output=initialization)
    return _HEADER + delimited(2, output.SerializeToString())


def write_environment_message(
    agent_infos: Iterable[bytes] = (),
    new_behaviors: Mapping[BehaviorName, BehaviorSpec] = {},
    side_channel: bytes = b"",
) -> bytes:
    """Return a message with the steps of all behaviours.

    :param agent_infos: per behaviour with agents, from `StepsEncoder.encode`.
    :param new_behaviors: by behaviour id, those among them that the trainer has not met yet.
    :param side_channel: messages on the side channels.
    """
    rest = UnityRLOutputProto(side_channel=side_channel).SerializeToString()
    output = delimited(1, b"".join(agent_infos) + rest)
    if new_behaviors:
        brains = [_brain_parameters(behavior_id, spec) for behavior_id, spec in new_behaviors.items()]
        output += delimited(2, UnityRLInitializationOutputProto(brain_parameters=brains).SerializeToString())
    return _HEADER + delimited(2, output)


def _brain_parameters(behavior_id: BehaviorName, spec: BehaviorSpec) -> BrainParametersProto:
    action_spec = ActionSpecProto(
        num_continuous_actions=spec.action_spec.continuous_size,
        num_discrete_actions=spec.action_spec.discrete_size,
        discrete_branch_sizes=spec.action_spec.discrete_branches,
    )
    return BrainParametersProto(brain_name=behavior_id, is_training=True, action_spec=action_spec)


def _actions(behavior_id: BehaviorName, message: Any) -> ActionTuple:
    """Return the actions of a `ListAgentActionProto` in columns."""
    agents: Sequence[AgentActionProto] = message.value
    return _actions_of_one_layout(message.SerializeToString(), len(agents)) or ActionTuple(
        continuous=_column(behavior_id, "continuous", [agent.continuous_actions for agent in agents], np.float32),
        discrete=_column(behavior_id, "discrete", [agent.discrete_actions for agent in agents], np.int32),
    )


def _actions_of_one_layout(data: bytes, n: int) -> Optional[ActionTuple]:
    """Return the actions of n agents at once where their messages differ in nothing but the actions, otherwise None.

    That is nearly always so: all floats have four bytes, and choices below 128 have one.

    :param data: a `ListAgentActionProto`, as protobuf writes it.
    """
    if n == 0 or len(data) % n:
        return None
    rows = np.frombuffer(data, dtype=np.uint8).reshape(n, -1)
    agent = next(read_fields(data, 0, len(data)))
    if agent.end != rows.shape[1]:
        return None
    spans = {field.number: slice(field.start, field.end) for field in read_fields(data, agent.start, agent.end)}
    is_structure = np.ones(agent.end, dtype=np.bool_)
    for span in spans.values():
        is_structure[span] = False
    structure, choices = rows[:, is_structure], rows[:, spans.get(_DISCRETE, slice(0))]
    if (structure != structure[0]).any() or (choices >= 0x80).any():
        return None
    floats = np.ascontiguousarray(rows[:, spans.get(_CONTINUOUS, slice(0))])
    return ActionTuple(floats.view("<f4"), choices)


def _column(
    behavior_id: BehaviorName, kind: str, rows: List[Sequence[float]], dtype: DTypeLike
) -> NDArray[np.float32] | NDArray[np.int32]:
    """Return rows of equal length as an array (N, length)."""
    lengths = {len(row) for row in rows}
    if len(lengths) > 1:
        raise UnityCommunicationException(
            f"The trainer's answer has agents with {' and '.join(map(str, sorted(lengths)))} {kind} actions in the "
            f"behavior {behavior_id}; all agents of a behavior need the same number."
        )
    width = max(lengths, default=0)
    return np.fromiter(chain.from_iterable(rows), dtype, count=len(rows) * width).reshape(len(rows), width)
