"""Faults on purpose: how they are written, when they happen, and what they make of a message."""

import math
import signal

import numpy as np
import pytest

from mlagents_envs.base_env import ActionSpec, BehaviorSpec, DecisionSteps, TerminalSteps, vector_observation
from mlagents_envs.communicator_objects.unity_message_pb2 import UnityMessageProto
from mlagents_envs.exception import UnitySideChannelException
from mlagents_envs.server.faults import LATE_BEHAVIOR, START, STRANGER_ID, Fault, FaultyLink, describe_faults
from mlagents_envs.side_channel.side_channel_manager import split_messages
from mlagents_envs.wire.steps_encoder import StepsEncoder
from mlagents_envs.wire.trainer_messages import write_environment_message, write_handshake

ID = "Walker?team=0"
SPEC = BehaviorSpec([vector_observation(2, "eye")], ActionSpec.create_continuous(1))


def step_message(first=False):
    """A message with the agents 3 and 4."""
    zeros = np.zeros(2, dtype=np.float32)
    decisions = DecisionSteps(
        [np.array([[1, 2], [3, 4]], dtype=np.float32)],
        zeros,
        np.array([3, 4]),
        None,
        np.zeros(2, dtype=np.int32),
        zeros,
    )
    entry = StepsEncoder(ID, SPEC).encode(decisions, TerminalSteps.empty(SPEC))
    return write_environment_message([entry], {ID: SPEC} if first else {})


class Wire:
    """A link that keeps what is sent; in it `steps` messages with agents follow the handshake."""

    def __init__(self, *faults, once_file=None):
        self.is_connected = False
        self.sent = []
        self._faulty = FaultyLink(self, [Fault.parse(fault) for fault in faults], once_file)

    def connect(self):
        self.is_connected = True

    def exchange(self, request):
        self.sent.append(request)
        return b"answer"

    def close(self):
        self.is_connected = False

    def run(self, steps):
        """Send everything; return what arrived, and what would have without faults."""
        meant = [write_handshake("name"), write_environment_message(), step_message(first=True)]
        meant += [step_message()] * (steps - 1)
        self._faulty.connect()
        assert all(self._faulty.exchange(message) == b"answer" for message in meant)
        return self.sent, meant

    def changed(self, steps=5):
        """Return the steps whose messages were changed, each with the message; -2 is the handshake."""
        sent, meant = self.run(steps)
        pairs = enumerate(zip(sent, meant), START)
        return {step: UnityMessageProto.FromString(have) for step, (have, want) in pairs if have != want}


def agents_of(message, behavior_id=ID):
    return message.unity_output.rl_output.agentInfos[behavior_id].value


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("exit", Fault("exit", 1, START)),
        ("exit=3@7", Fault("exit", 3, 7)),
        ("kill=term@start", Fault("kill", signal.SIGTERM, START)),
        ("kill=SIGSEGV@1", Fault("kill", signal.SIGSEGV, 1)),
        ("kill@1", Fault("kill", signal.SIGKILL, 1)),
        ("hang@0", Fault("hang", math.inf, 0)),
        ("hang=0.25", Fault("hang", 0.25, START)),
        ("version=0.9.0", Fault("version", "0.9.0", START)),
        ("nan", Fault("nan", "obs", 0)),
        ("nan=reward@100", Fault("nan", "reward", 100)),
        ("vanish@12", Fault("vanish", None, 12)),
    ],
)
def test_how_faults_are_written(text, fault):
    assert Fault.parse(text) == fault


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nann@3", r"no fault 'nann'\. Did you mean 'nan'\?.*vanish"),
        ("vanish=3", "vanish takes no value"),
        ("exit=soon", "exit takes as its value CODE, not 'soon'"),
        ("kill=9", "SIGNAL"),
        ("nan=mask", r"obs\|reward"),
        ("nan@start", "happens at a number of steps, not at 'start'"),
        ("nan@-1", "not at '-1'"),
        ("exit@", "'start' or a number of steps, not at ''"),
    ],
)
def test_a_fault_that_is_written_wrongly(text, message):
    with pytest.raises(ValueError, match=message):
        Fault.parse(text)


def test_every_fault_is_described():
    text = describe_faults()
    for name in ("exit=CODE", "hang=SECONDS", "garbage", "nan=obs|reward", "late-behavior"):
        assert f"\n  {name} " in f"\n{text}"


def test_nan_in_an_observation():
    changed = Wire("nan@2").changed()
    assert list(changed) == [2]
    first, second = agents_of(changed[2])
    assert all(math.isnan(value) for value in first.observations[0].float_data.data)
    assert list(second.observations[0].float_data.data) == [3, 4]


def test_nan_in_a_reward():
    first, second = agents_of(Wire("nan=reward").changed()[0])
    assert math.isnan(first.reward)
    assert second.reward == 0


def test_a_shape_that_is_not_that_of_the_data():
    observation = agents_of(Wire("wrong-shape@1").changed()[1])[0].observations[0]
    assert list(observation.shape) == [3]
    assert list(observation.float_data.data) == [1, 2]


def test_an_agent_that_was_never_there():
    agents = agents_of(Wire("unknown-agent@1").changed()[1])
    assert [(agent.id, agent.done) for agent in agents] == [(3, False), (4, False), (STRANGER_ID, True)]


def test_a_short_side_channel_message():
    data = Wire("short-side-channel@1").changed()[1].unity_output.rl_output.side_channel
    with pytest.raises(UnitySideChannelException, match="break off"):
        list(split_messages(data))


def test_agents_that_vanish():
    changed = Wire("vanish@3").changed(steps=6)
    assert list(changed) == [3, 4, 5]
    assert not any(message.unity_output.rl_output.agentInfos for message in changed.values())


def test_a_behavior_that_appears_late():
    changed = Wire("late-behavior@3").changed(steps=6)
    assert list(changed) == [3, 4, 5]
    for step, message in changed.items():
        (agent,) = agents_of(message, LATE_BEHAVIOR)
        assert list(agent.observations[0].float_data.data) == [0.5]
        assert len(agents_of(message)) == 2
        brains = message.unity_output.rl_initialization_output.brain_parameters
        assert [brain.brain_name for brain in brains] == ([LATE_BEHAVIOR] if step == 3 else [])


def test_another_version():
    changed = Wire("version").changed()
    assert list(changed) == [START]
    assert changed[START].unity_output.rl_initialization_output.communication_version == "2.0.0"


@pytest.mark.parametrize(("when", "step"), [("@start", START), ("@3", 3)])
def test_goodbye(when, step):
    changed = Wire(f"goodbye{when}").changed()
    assert {step: message.header.status for step, message in changed.items()} == {step: 400}


def test_garbage_is_no_message():
    sent, meant = Wire("garbage@2").run(steps=4)
    assert [have == want for have, want in zip(sent, meant)] == [True, True, True, True, False, True]
    with pytest.raises(Exception, match="parsing message"):
        UnityMessageProto.FromString(sent[4])


def test_several_faults():
    changed = Wire("nan@1", "nan=reward@1", "wrong-shape@2").changed()
    assert list(changed) == [1, 2]
    assert math.isnan(agents_of(changed[1])[0].reward)
    assert math.isnan(agents_of(changed[1])[0].observations[0].float_data.data[0])


def test_a_short_hang_ends():
    assert Wire("hang=0.01@1").changed() == {}


def test_only_the_first_process_has_the_faults(tmp_path):
    file = tmp_path / "once"
    faults = ("nan@2", "vanish@4")
    first, second = Wire(*faults, once_file=file), Wire(*faults, once_file=file)
    sent, meant = first.run(steps=2)
    assert sent == meant
    assert not file.exists(), "no fault has happened yet"
    assert list(Wire(*faults, once_file=file).changed(steps=6)) == [2, 4, 5]
    assert file.exists()
    assert second.changed(steps=6) == {}


def test_the_link_beneath_is_connected_and_closed():
    wire = Wire("nan@2")
    wire._faulty.connect()
    assert wire.is_connected
    wire._faulty.close()
    assert not wire.is_connected
