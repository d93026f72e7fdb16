"""Whole messages: read and written against recorded bytes, against bytes put together by hand, and against protobuf."""

import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlagents_envs.base_env import ActionTuple
from mlagents_envs.communicator_objects import command_pb2
from mlagents_envs.communicator_objects.agent_action_pb2 import AgentActionProto
from mlagents_envs.communicator_objects.unity_message_pb2 import UnityMessageProto
from mlagents_envs.communicator_objects.unity_rl_initialization_input_pb2 import UnityRLInitializationInputProto
from mlagents_envs.communicator_objects.unity_rl_input_pb2 import UnityRLInputProto
from mlagents_envs.exception import UnityCommunicationException
from mlagents_envs.wire import messages
from mlagents_envs.wire.fields import read_varint, varint
from mlagents_envs.wire.messages import (
    MessageReader,
    read_environment_message,
    write_goodbye,
    write_initialization,
    write_input,
)

RECORDED = Path(__file__).parent / "data" / "wire"
EXCHANGES = sorted(path.name.removesuffix("-env.bin") for path in RECORDED.glob("*-env.bin"))


def recorded(exchange, side):
    return (RECORDED / f"{exchange}-{side}.bin").read_bytes()


def rows(lists, dtype):
    return np.array([list(values) for values in lists], dtype=dtype).reshape(len(lists), -1)


def test_there_are_recorded_exchanges():
    assert len(EXCHANGES) == 32


@pytest.mark.parametrize("exchange", EXCHANGES)
def test_a_recorded_request_holds_what_protobuf_finds_in_it(exchange):
    data = recorded(exchange, "env")
    expected, message = UnityMessageProto.FromString(data), read_environment_message(data)
    output = expected.unity_output
    assert message.status == expected.header.status == 200
    assert not message.is_goodbye
    assert message.side_channel == output.rl_output.side_channel
    if output.HasField("rl_initialization_output"):
        assert message.initialization == output.rl_initialization_output
    else:
        assert message.initialization is None
    found = {
        behavior_id: [infos.entry(index) for index in range(len(infos))]
        for behavior_id, infos in message.agent_infos.items()
    }
    assert found == {
        behavior_id: [info.SerializeToString() for info in infos.value]
        for behavior_id, infos in output.rl_output.agentInfos.items()
    }


@pytest.mark.parametrize("exchange", EXCHANGES)
def test_an_answer_has_the_bytes_of_the_recorded_one(exchange):
    data = recorded(exchange, "trainer")
    said = UnityMessageProto.FromString(data).unity_input
    if said.HasField("rl_initialization_input"):
        assert write_initialization(said.rl_initialization_input) == data
        return
    actions = {
        behavior_id: ActionTuple(
            rows([agent.continuous_actions for agent in agents.value], np.float32),
            rows([agent.discrete_actions for agent in agents.value], np.int32),
        )
        for behavior_id, agents in said.rl_input.agent_actions.items()
    }
    assert write_input(said.rl_input.command, actions, said.rl_input.side_channel) == data


def test_an_answer_by_hand():
    continuous, discrete = np.array([[1.0], [-2.0]], dtype=np.float32), np.array([[3, 0], [0, 127]], dtype=np.int32)
    one, minus_two = struct.pack("<f", 1.0), struct.pack("<f", -2.0)
    # All as floats (field 1, 12 bytes), then the continuous one (6), then the discrete ones (7): 14 + 6 + 4 bytes.
    first = b"\x0a\x18" + b"\x0a\x0c" + one + struct.pack("<2f", 3, 0) + b"\x32\x04" + one + b"\x3a\x02\x03\x00"
    second = b"\x0a\x18" + b"\x0a\x0c" + minus_two + struct.pack("<2f", 0, 127)
    second += b"\x32\x04" + minus_two + b"\x3a\x02\x00\x7f"
    # The entry of the map: the key (field 1), then the list (2) of two times 26 bytes.
    entry = b"\x0a\x02AB" + b"\x12\x34" + first + second
    rl_input = b"\x0a" + bytes([len(entry)]) + entry + b"\x2a\x01!"
    unity_input = b"\x0a" + bytes([len(rl_input)]) + rl_input
    expected = b"\x0a\x03\x08\xc8\x01" + b"\x1a" + bytes([len(unity_input)]) + unity_input
    assert write_input(command_pb2.STEP, {"AB": ActionTuple(continuous, discrete)}, b"!") == expected


def test_goodbye_is_status_400():
    assert write_goodbye() == b"\x0a\x03\x08\x90\x03"
    assert read_environment_message(b"\x0a\x03\x08\x90\x03").is_goodbye


def test_nothing_is_said_of_a_behavior_without_agents():
    nobody = ActionTuple(np.zeros((0, 2), dtype=np.float32))
    assert write_input(command_pb2.STEP, {"A": nobody}) == write_input(command_pb2.STEP)


def test_a_request_by_hand():
    # Two agents, of 2 and of 300 bytes; what is in them is not looked at. 300 is the varint ac 02.
    agents = b"\x0a\x02xy" + b"\x0a\xac\x02" + b"z" * 300
    entry = b"\x0a\x03B?a" + b"\x12" + varint(len(agents)) + agents
    rl_output = b"\x12" + varint(len(entry)) + entry + b"\x1a\x02sc"
    output = b"\x0a" + varint(len(rl_output)) + rl_output
    message = read_environment_message(b"\x0a\x03\x08\xc8\x01\x12" + varint(len(output)) + output)
    assert (message.status, message.initialization, message.side_channel) == (200, None, b"sc")
    infos = message.agent_infos["B?a"]
    assert [infos.entry(0), infos.entry(1)] == [b"xy", b"z" * 300]


@pytest.mark.parametrize(
    ("number", "encoded"),
    [(0, "00"), (1, "01"), (127, "7f"), (128, "8001"), (300, "ac02"), (16384, "808001"), (-1, "ff" * 9 + "01")],
)
def test_varints_by_hand(number, encoded):
    data = bytes.fromhex(encoded)
    assert varint(number) == data
    assert read_varint(data, 0, len(data)) == (number % 2**64, len(data))


@pytest.mark.parametrize(
    "data",
    [
        b"\x0a",  # a tag alone
        b"\x0a\x05\x08",  # longer than there are bytes
        b"\x12\x02\x0a\x05",  # the same inside
        b"\xff" * 11,  # a varint without end
        b"\x00\x00",  # field 0
        b"\x0b",  # wire type 3
        b"\x0a\x02\x08\x80",  # a header that breaks off
        b"\x12\x06\x0a\x04\x12\x02\x0a\x09",  # a behaviour's name that breaks off
        b"\x12\x07\x0a\x05\x12\x03\x0a\x01\xff",  # a name that is no text
    ],
)
def test_bytes_that_are_no_message_are_refused(data):
    with pytest.raises(UnityCommunicationException, match="no message of the protocol"):
        read_environment_message(data)


def test_a_message_in_parts_is_the_sum_of_its_parts():
    parts = [
        UnityMessageProto(header={"status": 200}),
        UnityMessageProto(unity_output={"rl_initialization_output": {"name": "a"}}),
        UnityMessageProto(unity_output={"rl_initialization_output": {"communication_version": "1.5.0"}}),
        UnityMessageProto(unity_output={"rl_output": {"side_channel": b"x"}}),
        UnityMessageProto(unity_output={"rl_output": {"side_channel": b"yz"}}),
    ]
    data = b"".join(part.SerializeToString() for part in parts)
    whole, message = UnityMessageProto.FromString(data), read_environment_message(data)
    assert message.initialization == whole.unity_output.rl_initialization_output
    assert message.side_channel == whole.unity_output.rl_output.side_channel == b"yz"


def test_fields_that_nobody_knows_are_passed_over():
    unknown = b"\xa2\x06\x03abc" + b"\xa8\x06\x05" + b"\xb5\x06abcd" + b"\xb9\x06abcdefgh"
    message = read_environment_message(unknown + recorded("Basic-03", "env") + unknown)
    assert len(message.agent_infos["Basic?team=0"]) == 2


ACTIONS = st.tuples(st.integers(1, 5), st.integers(0, 3), st.integers(0, 3)).flatmap(
    lambda size: st.tuples(
        st.lists(
            st.lists(st.floats(width=32, allow_nan=False), min_size=size[1], max_size=size[1]),
            min_size=size[0],
            max_size=size[0],
        ),
        st.lists(
            st.lists(st.sampled_from([0, 1, 127, 128, 70000, -1]), min_size=size[2], max_size=size[2]),
            min_size=size[0],
            max_size=size[0],
        ),
    )
)


@given(ACTIONS, st.sampled_from(["A", "Ball?team=0", "Gehäuse?team=12"]), st.binary(max_size=300))
@settings(max_examples=200, deadline=None)
def test_an_answer_is_what_protobuf_writes(actions, behavior_id, side_channel):
    continuous, discrete = rows(actions[0], np.float32), rows(actions[1], np.int32)
    expected = UnityRLInputProto(command=command_pb2.RESET, side_channel=side_channel)
    for row in range(len(continuous)):
        floats = [*continuous[row].tolist(), *map(float, discrete[row])]
        agent = AgentActionProto(
            vector_actions_deprecated=floats,
            continuous_actions=continuous[row].tolist(),
            discrete_actions=discrete[row].tolist(),
        )
        expected.agent_actions[behavior_id].value.append(agent)
    written = write_input(command_pb2.RESET, {behavior_id: ActionTuple(continuous, discrete)}, side_channel)
    assert written == UnityMessageProto(header={"status": 200}, unity_input={"rl_input": expected}).SerializeToString()


def test_how_actions_lie_in_memory_makes_no_difference():
    continuous = np.arange(6, dtype=np.float32).reshape(3, 2)
    discrete = np.arange(6, dtype=np.int32).reshape(3, 2)
    usual = write_input(command_pb2.STEP, {"B": ActionTuple(continuous, discrete)})
    strange = write_input(
        command_pb2.STEP, {"B": ActionTuple(np.asfortranarray(continuous), np.asfortranarray(discrete))}
    )
    assert strange == usual


def test_the_handshake_is_what_protobuf_writes():
    initialization = UnityRLInitializationInputProto(seed=-5, communication_version="1.5.0", num_areas=3)
    message = UnityMessageProto(header={"status": 200}, unity_input={"rl_initialization_input": initialization})
    assert write_initialization(initialization) == message.SerializeToString()


# One after the other


def _outcome(read, data):
    try:
        message = read(data)
    except UnityCommunicationException:
        return "refused"
    agents = {name: [infos.entry(i) for i in range(len(infos))] for name, infos in message.agent_infos.items()}
    return message.status, message.initialization, message.side_channel, agents


def test_a_reader_that_remembers_reads_what_one_that_does_not_reads(monkeypatch):
    taken_apart = []
    monkeypatch.setattr(
        messages, "read_environment_message", lambda data: taken_apart.append(1) or read_environment_message(data)
    )
    rng, reader = np.random.default_rng(2), MessageReader()
    for _ in range(2_000):
        message = recorded(EXCHANGES[rng.integers(len(EXCHANGES))], "env")
        for _ in range(4):
            data = bytearray(message)
            if rng.random() < 0.8:
                data[rng.integers(len(data))] = rng.integers(256)
            assert _outcome(reader.read, bytes(data)) == _outcome(read_environment_message, bytes(data))
    assert 2_000 < len(taken_apart) < 6_000
