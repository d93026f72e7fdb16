"""Faults on purpose: what can go wrong with an environment, so that a trainer's answer to it can be tested.

A fault is written ``KIND[=VALUE][@WHEN]``. It is a change of the messages that leave, or something that happens to the
process before one does, so the server knows nothing of it.
"""

from __future__ import annotations

import math
import os
import signal
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, NamedTuple, NoReturn, Optional, Sequence

from mlagents_envs.communicator_objects.agent_info_pb2 import AgentInfoProto
from mlagents_envs.communicator_objects.observation_pb2 import NONE, ObservationProto
from mlagents_envs.communicator_objects.unity_message_pb2 import UnityMessageProto
from mlagents_envs.communicator_objects.unity_rl_output_pb2 import UnityRLOutputProto
from mlagents_envs.server.link import Link
from mlagents_envs.side_channel.side_channel_manager import join_message
from mlagents_envs.side_channel.stats_side_channel import StatsSideChannel
from mlagents_envs.spelling import did_you_mean
from mlagents_envs.wire.messages import write_goodbye

START = -2
"""When the environment starts, as a step: two messages go before the one that answers the first reset."""

STRANGER_ID = 999_999
"""The id of an agent that no environment has."""
LATE_BEHAVIOR = "Late?team=0"
"""A behaviour that appears late: one agent, one observation, one continuous action."""

_KILL = getattr(signal, "SIGKILL", signal.SIGTERM)  # Windows has no SIGKILL

Effect = Callable[[bytes, Any, bool], bytes]
"""From a message, the fault's value and whether this is the first time to the message that is sent in its place."""


class _Kind(NamedTuple):
    """A kind of fault.

    :param effect: what happens.
    :param description: for the help.
    :param value: how the value is written, for the help; empty where there is none.
    :param read_value: reads it, and raises ValueError or KeyError.
    :param default: the value where none is given.
    :param earliest: the first step at which it can happen, and the default.
    :param is_of_process: whether, at the start, it happens before there is a connection.
    :param is_lasting: whether it goes on from its step, rather than happening once.
    """

    effect: Effect
    description: str
    value: str = ""
    read_value: Callable[[str], Any] = str
    default: Any = None
    earliest: int = 0
    is_of_process: bool = False
    is_lasting: bool = False


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong at a certain step."""

    kind: str
    value: Any
    step: int

    @classmethod
    def parse(cls, text: str) -> Fault:
        """Read ``KIND[=VALUE][@WHEN]``.

        :raises ValueError: it is not of that form; the message is meant for the user.
        """
        rest, at, when = text.partition("@")
        name, equals, value = rest.partition("=")
        kind = _KINDS.get(name)
        if kind is None:
            raise ValueError(f"there is no fault {name!r}.{did_you_mean(name, _KINDS)} There are: {', '.join(_KINDS)}.")
        if equals and not kind.value:
            raise ValueError(f"the fault {name} takes no value, and {value!r} was given.")
        try:
            read = kind.read_value(value) if equals else kind.default
        except (ValueError, KeyError):
            raise ValueError(f"the fault {name} takes as its value {kind.value}, not {value!r}.") from None
        step = kind.earliest if not at else START if when == "start" else int(when) if when.isdecimal() else None
        if step is None or step < kind.earliest:
            start = "'start' or " if kind.earliest == START else ""
            raise ValueError(f"the fault {name} happens at {start}a number of steps, not at {when!r}.")
        return cls(name, read, step)

    def is_due(self, step: int) -> bool:
        """Return whether it happens at this step."""
        return step >= self.step if _KINDS[self.kind].is_lasting else step == self.step


class FaultyLink:
    """A `Link` on which things go wrong.

    :param link: the way to the trainer.
    :param faults: what goes wrong, in this order.
    :param once_file: the process that reaches a fault first creates this file; the others have no faults. Without a
        file, every process has them.
    """

    def __init__(self, link: Link, faults: Sequence[Fault], once_file: Optional[Path] = None):
        self._link = link
        self._faults = faults
        self._once_file = once_file
        self._step = START

    def connect(self) -> None:
        """See `Link`."""
        for fault in self._faults:
            if _KINDS[fault.kind].is_of_process:
                self._apply(fault, b"")
        self._link.connect()

    def exchange(self, request: bytes) -> bytes:
        """See `Link`."""
        for fault in self._faults:
            if not (_KINDS[fault.kind].is_of_process and self._step == START):
                request = self._apply(fault, request)
        self._step += 1
        return self._link.exchange(request)

    def close(self) -> None:
        """See `Link`."""
        self._link.close()

    def _apply(self, fault: Fault, message: bytes) -> bytes:
        """Return what is sent in the place of a message."""
        if not fault.is_due(self._step) or not self._may_fail():
            return message
        return _KINDS[fault.kind].effect(message, fault.value, self._step == fault.step)

    def _may_fail(self) -> bool:
        """Return whether this is the process that has the faults."""
        if self._once_file is not None:
            try:
                self._once_file.touch(exist_ok=False)
            except FileExistsError:
                self._faults = ()
                return False
            self._once_file = None
        return True


def describe_faults() -> str:
    """Return a line of help for each kind of fault."""
    rows = [(f"{name}={kind.value}" if kind.value else name, kind.description) for name, kind in _KINDS.items()]
    return "\n".join(f"  {syntax:<32} {description}" for syntax, description in rows)


def _exit(_: bytes, code: int, is_first: bool) -> NoReturn:
    os._exit(code)


def _kill(message: bytes, signal_number: signal.Signals, is_first: bool) -> bytes:
    os.kill(os.getpid(), signal_number)
    return message


def _hang(message: bytes, seconds: float, is_first: bool) -> bytes:
    """Do nothing, but not beyond the life of the process that started this one."""
    parent, never = os.getppid(), threading.Event()
    while seconds > 0 and os.getppid() == parent:
        never.wait(min(seconds, 0.5))
        seconds -= 0.5
    return message


def _garbage(message: bytes, value: None, is_first: bool) -> bytes:
    return b"\xff" * 40


def _goodbye(message: bytes, value: None, is_first: bool) -> bytes:
    return write_goodbye()


def _edit(change: Callable[[UnityMessageProto, Any, bool], None]) -> Effect:
    """Return the effect that consists of a change of the message's content."""

    def effect(message: bytes, value: Any, is_first: bool) -> bytes:
        parsed = UnityMessageProto.FromString(message)
        change(parsed, value, is_first)
        return bytes(parsed.SerializeToString())

    return effect


def _version(message: UnityMessageProto, version: str, is_first: bool) -> None:
    message.unity_output.rl_initialization_output.communication_version = version


def _nan(message: UnityMessageProto, where: str, is_first: bool) -> None:
    for info in _first_agent(message):
        if where == "reward":
            info.reward = math.nan
        else:
            observation: ObservationProto = info.observations[0]
            observation.compression_type = NONE
            observation.float_data.data[:] = [math.nan] * math.prod(observation.shape)


def _wrong_shape(message: UnityMessageProto, value: None, is_first: bool) -> None:
    for info in _first_agent(message):
        info.observations[0].shape[0] += 1


def _unknown_agent(message: UnityMessageProto, value: None, is_first: bool) -> None:
    for agents in _output(message).agentInfos.values():
        stranger = agents.value.add()
        stranger.CopyFrom(agents.value[0])
        stranger.id, stranger.done = STRANGER_ID, True


def _vanish(message: UnityMessageProto, value: None, is_first: bool) -> None:
    _output(message).agentInfos.clear()


def _late_behavior(message: UnityMessageProto, value: None, is_first: bool) -> None:
    agent = _output(message).agentInfos[LATE_BEHAVIOR].value.add(id=STRANGER_ID)
    agent.observations.add(shape=[1], dimension_properties=[1], name="LateSensor").float_data.data.append(0.5)
    if is_first:
        brain = message.unity_output.rl_initialization_output.brain_parameters.add(brain_name=LATE_BEHAVIOR)
        brain.is_training = True
        brain.action_spec.num_continuous_actions = 1


def _short_side_channel(message: UnityMessageProto, value: None, is_first: bool) -> None:
    _output(message).side_channel += join_message(StatsSideChannel.CHANNEL_ID, b"a statistic")[:-4]


def _output(message: UnityMessageProto) -> UnityRLOutputProto:
    return message.unity_output.rl_output


def _first_agent(message: UnityMessageProto) -> Sequence[AgentInfoProto]:
    """Return the first agent of the message, if there is one."""
    return [info for agents in _output(message).agentInfos.values() for info in agents.value][:1]


def _signal(name: str) -> signal.Signals:
    return signal.Signals[f"SIG{name.upper().removeprefix('SIG')}"]


def _place(name: str) -> str:
    if name not in ("obs", "reward"):
        raise ValueError(name)
    return name


_KINDS: Dict[str, _Kind] = {
    "exit": _Kind(_exit, "the process ends (1)", "CODE", int, 1, START, is_of_process=True),
    "kill": _Kind(_kill, "a signal ends the process (KILL)", "SIGNAL", _signal, _KILL, START, is_of_process=True),
    "hang": _Kind(_hang, "no answer for so long (for ever)", "SECONDS", float, math.inf, START, is_of_process=True),
    "garbage": _Kind(_garbage, "bytes that are no message", earliest=START),
    "goodbye": _Kind(_goodbye, "the environment takes its leave, as the Editor does on Stop", earliest=START),
    "version": _Kind(
        _edit(_version), "another version of the protocol (2.0.0)", "X.Y.Z", default="2.0.0", earliest=START
    ),
    "nan": _Kind(_edit(_nan), "NaN in an observation (obs) or a reward", "obs|reward", _place, "obs"),
    "wrong-shape": _Kind(_edit(_wrong_shape), "an observation whose shape is not that of its data"),
    "unknown-agent": _Kind(_edit(_unknown_agent), "the end of an agent that was never there"),
    "short-side-channel": _Kind(_edit(_short_side_channel), "a side channel message that is cut short"),
    "vanish": _Kind(_edit(_vanish), "no agents any more, from then on", is_lasting=True),
    "late-behavior": _Kind(_edit(_late_behavior), f"another behavior, {LATE_BEHAVIOR}, from then on", is_lasting=True),
}
