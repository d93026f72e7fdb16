"""The trainer's end of the exchanges: reading what the environment says, and writing what it is told."""

from __future__ import annotations

from functools import lru_cache
from typing import Dict, List, Mapping, NamedTuple, Optional, Tuple

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from mlagents_envs.base_env import ActionTuple, BehaviorName
from mlagents_envs.communicator_objects.agent_action_pb2 import AgentActionProto
from mlagents_envs.communicator_objects.header_pb2 import HeaderProto
from mlagents_envs.communicator_objects.unity_input_pb2 import UnityInputProto
from mlagents_envs.communicator_objects.unity_rl_initialization_input_pb2 import UnityRLInitializationInputProto
from mlagents_envs.communicator_objects.unity_rl_initialization_output_pb2 import UnityRLInitializationOutputProto
from mlagents_envs.communicator_objects.unity_rl_input_pb2 import UnityRLInputProto
from mlagents_envs.wire.fields import DELIMITED, delimited, header, malformed, read_fields, read_repeated

OK, GOODBYE = 200, 400
"""Statuses: of every message but the last, and of the last."""

_OK_HEADER = delimited(1, HeaderProto(status=OK).SerializeToString())
_ONE_BYTE = 0x80
"""Numbers below are varints of one byte."""


class RawAgentInfos(NamedTuple):
    """Where in a message the `AgentInfoProto` of each agent of a behaviour lies.

    :param data: the whole message.
    :param starts: int64 (N,).
    :param ends: int64 (N,), exclusive.
    """

    data: bytes
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.starts)

    def entry(self, index: int) -> bytes:
        """Return the bytes of one agent."""
        return self.data[self.starts[index] : self.ends[index]]


class EnvironmentMessage(NamedTuple):
    """What an environment said.

    :param status: `OK`, or anything else at the end.
    :param initialization: name, versions and capabilities in the first message, the specification of new behaviours in
        later ones; None where there is neither.
    :param agent_infos: by behaviour id.
    :param side_channel: messages on the side channels, as they stand on the wire.
    """

    status: int
    initialization: Optional[UnityRLInitializationOutputProto]
    agent_infos: Dict[BehaviorName, RawAgentInfos]
    side_channel: bytes

    @property
    def is_goodbye(self) -> bool:
        """Whether the environment is about to end."""
        return self.status != OK


class MessageReader:
    """Reads the messages of an environment one after the other.

    Most differ from the one before only inside their agents' messages; then they need not be taken apart anew.
    """

    def __init__(self) -> None:
        self._data = b""
        self._last: Optional[EnvironmentMessage] = None  # that was taken apart; it is what `_data` says
        self._outside: Optional[NDArray[np.intp]] = None  # where its bytes are that are of no agent
        self._expected = np.zeros(0, dtype=np.uint8)  # these bytes

    def read(self, data: bytes) -> EnvironmentMessage:
        """See `read_environment_message`."""
        if self._last is not None and len(data) == len(self._data) and self._is_framed_alike(data, self._last):
            if self._outside is None:
                self._outside = _outside_of_agents(self._last, len(data))
                self._expected = np.frombuffer(self._data, np.uint8)[self._outside]
            if (np.frombuffer(data, np.uint8)[self._outside] == self._expected).all():
                agent_infos = {
                    name: RawAgentInfos(data, infos.starts, infos.ends)
                    for name, infos in self._last.agent_infos.items()
                }
                return self._last._replace(agent_infos=agent_infos)
        self._last, self._data, self._outside = read_environment_message(data), data, None
        return self._last

    def _is_framed_alike(self, data: bytes, last: EnvironmentMessage) -> bool:
        """Return whether what stands before and behind all agents is the same: soon told, where it is not."""
        if self._outside is not None:
            return True  # it is going to be compared anyway
        filled = [infos for infos in last.agent_infos.values() if len(infos)]
        start = min((int(infos.starts[0]) for infos in filled), default=0)
        end = max((int(infos.ends[-1]) for infos in filled), default=0)
        return data[:start] == self._data[:start] and data[end:] == self._data[end:]


def _outside_of_agents(message: EnvironmentMessage, length: int) -> NDArray[np.intp]:
    """Return where in a message the bytes lie that are not in an agent's own message."""
    is_outside = np.ones(length, dtype=np.bool_)
    for infos in message.agent_infos.values():
        for start, end in zip(infos.starts.tolist(), infos.ends.tolist()):
            is_outside[start:end] = False
    return np.flatnonzero(is_outside)


def read_environment_message(data: bytes) -> EnvironmentMessage:
    """Read what an environment sent, all but the agents' own messages, which are only found.

    :raises UnityCommunicationException: the bytes are no message.
    """
    head = HeaderProto()
    outputs: List[Tuple[int, int]] = []
    for field in read_fields(data, 0, len(data)):
        if field.wire_type != DELIMITED:
            continue
        if field.number == 1:
            _merge(head, data[field.start : field.end])
        elif field.number == 2:
            outputs.append((field.start, field.end))
    initialization: Optional[UnityRLInitializationOutputProto] = None
    agent_infos: Dict[BehaviorName, RawAgentInfos] = {}
    side_channel = b""
    for span in outputs:
        for field in read_fields(data, *span):
            if field.wire_type != DELIMITED:
                continue
            if field.number == 2:
                initialization = initialization or UnityRLInitializationOutputProto()
                _merge(initialization, data[field.start : field.end])
            elif field.number == 1:
                for part in read_fields(data, field.start, field.end):
                    if (part.number, part.wire_type) == (2, DELIMITED):
                        behavior_id, infos = _read_agents(data, part.start, part.end)
                        agent_infos[behavior_id] = infos
                    elif (part.number, part.wire_type) == (3, DELIMITED):
                        side_channel = data[part.start : part.end]
    return EnvironmentMessage(head.status, initialization, agent_infos, side_channel)


def _merge(message: HeaderProto | UnityRLInitializationOutputProto, data: bytes) -> None:
    try:
        message.MergeFromString(data)
    except DecodeError as error:
        raise malformed(str(error)) from None


def _read_agents(data: bytes, start: int, end: int) -> Tuple[BehaviorName, RawAgentInfos]:
    """Read an entry of ``agentInfos``."""
    key = b""
    starts: List[int] = []
    ends: List[int] = []
    for field in read_fields(data, start, end):
        if (field.number, field.wire_type) == (1, DELIMITED):
            key = data[field.start : field.end]
        elif (field.number, field.wire_type) == (2, DELIMITED):
            more_starts, more_ends = read_repeated(data, field.start, field.end, 1)
            starts += more_starts
            ends += more_ends
    try:
        behavior_id = key.decode("utf-8")
    except UnicodeDecodeError:
        raise malformed(f"the name of a behavior is not text: {key[:80]!r}") from None
    return behavior_id, RawAgentInfos(data, np.array(starts, dtype=np.int64), np.array(ends, dtype=np.int64))


def write_initialization(initialization: UnityRLInitializationInputProto) -> bytes:
    """Return the answer to the first message."""
    unity_input = UnityInputProto(rl_initialization_input=initialization)
    return _OK_HEADER + delimited(3, unity_input.SerializeToString())


def write_input(command: int, actions: Mapping[BehaviorName, ActionTuple] = {}, side_channel: bytes = b"") -> bytes:
    """Return an answer that tells the environment what to do next.

    :param command: `command_pb2.STEP`, `RESET` or `QUIT`.
    :param actions: by behaviour id, of all agents that wait for one, in their order.
    :param side_channel: messages on the side channels, as they stand on the wire.
    """
    entries = b"".join(
        delimited(1, delimited(1, behavior_id.encode()) + delimited(2, _write_actions(of)))
        for behavior_id, of in actions.items()
        if len(of.continuous)
    )
    rest = UnityRLInputProto(command=command, side_channel=side_channel).SerializeToString()
    return _OK_HEADER + delimited(3, delimited(1, entries + rest))


def write_goodbye() -> bytes:
    """Return the answer after which there are no more exchanges."""
    return delimited(1, HeaderProto(status=GOODBYE).SerializeToString())


def _write_actions(actions: ActionTuple) -> bytes:
    """Return a ``ListAgentActionProto``.

    Old packages read the actions from one list of floats, which is why all stand there once more.
    """
    continuous = np.ascontiguousarray(actions.continuous, dtype="<f4")
    discrete = actions.discrete
    discrete_as_floats = np.ascontiguousarray(discrete, dtype="<f4")
    if discrete.size and (discrete.min() < 0 or discrete.max() >= _ONE_BYTE):
        return _write_wide_actions(continuous, discrete, np.hstack([continuous, discrete_as_floats]))
    empty, starts = _empty_actions(continuous.shape[1], discrete.shape[1])
    rows = np.empty((len(continuous), len(empty)), dtype=np.uint8)
    rows[:] = empty
    values = [continuous.view(np.uint8), discrete_as_floats.view(np.uint8), continuous.view(np.uint8), discrete]
    for start, columns in zip(starts, values):
        rows[:, start : start + columns.shape[1]] = columns
    return rows.tobytes()


@lru_cache(maxsize=64)
def _empty_actions(n_continuous: int, n_discrete: int) -> Tuple[NDArray[np.uint8], List[int]]:
    """Return an agent's part of a ``ListAgentActionProto`` without values, discrete ones of one byte.

    :returns: with it, where there go: the floats of the continuous actions, then of the discrete ones; the continuous
        actions once more; and the discrete ones as integers.
    """
    n_floats = 4 * n_continuous
    content, starts = b"", []
    for number, sizes in ((1, (n_floats, 4 * n_discrete)), (6, (n_floats,)), (7, (n_discrete,))):
        content += header(number, sum(sizes)) if sum(sizes) else b""
        for size in sizes:
            starts.append(len(content))
            content += bytes(size)
    framed = delimited(1, content)
    at = len(framed) - len(content)
    return np.frombuffer(framed, dtype=np.uint8), [at + start for start in starts]


def _write_wide_actions(
    continuous: NDArray[np.float32], discrete: NDArray[np.int32], everything: NDArray[np.float32]
) -> bytes:
    """Return a ``ListAgentActionProto`` of discrete actions that differ in their number of bytes."""
    return b"".join(
        delimited(
            1,
            AgentActionProto(
                vector_actions_deprecated=everything[row].tolist(),
                continuous_actions=continuous[row].tolist(),
                discrete_actions=discrete[row].tolist(),
            ).SerializeToString(),
        )
        for row in range(len(continuous))
    )
