"""Broken messages: whatever the bytes, the reader gives a result or one of its errors, soon, and in little memory."""

import io
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mlagents_envs.base_env import ActionSpec, BehaviorSpec, DimensionProperty, ObservationSpec, ObservationType
from mlagents_envs.communicator_objects.agent_info_pb2 import AgentInfoProto
from mlagents_envs.communicator_objects.unity_message_pb2 import UnityMessageProto
from mlagents_envs.communicator_objects.unity_rl_output_pb2 import UnityRLOutputProto
from mlagents_envs.exception import UnityException
from mlagents_envs.wire.fields import delimited, varint
from mlagents_envs.wire.messages import read_environment_message
from mlagents_envs.wire.steps_decoder import StepsDecoder, read_behavior_spec

ListAgentInfoProto = UnityRLOutputProto.ListAgentInfoProto
RECORDED = Path(__file__).parent / "data" / "wire"
N_MESSAGES = 100_000
SPEC = BehaviorSpec(
    [ObservationSpec((8,), (DimensionProperty.NONE,), ObservationType.DEFAULT, "")], ActionSpec.create_continuous(2)
)


def read_everything(data, decoders):
    """Read a message as an environment does, and return the number of agents in it."""
    message = read_environment_message(data)
    n_agents = 0
    for brain in message.initialization.brain_parameters if message.initialization else ():
        infos = message.agent_infos.get(brain.brain_name)
        if infos is not None:
            StepsDecoder(brain.brain_name, read_behavior_spec(brain, infos)).decode(infos)
    for behavior_id, infos in message.agent_infos.items():
        decoder = decoders.get(behavior_id) or StepsDecoder(behavior_id, SPEC)
        decisions, terminals = decoder.decode(infos)
        n_agents += len(decisions) + len(terminals)
    return n_agents


def is_readable(data, decoders):
    """Return whether there is a result; all that is not refused as it should be comes through."""
    try:
        read_everything(data, decoders)
    except UnityException:
        return False
    return True


def mutated(data, rng):
    """Return a message with a few bytes changed, cut out, doubled, or put elsewhere."""
    broken = bytearray(data)
    for _ in range(rng.integers(1, 5)):
        kind, at, to = rng.integers(6), *np.sort(rng.integers(len(broken) + 1, size=2))
        if kind == 0 and at < len(broken):
            broken[at] ^= 1 << rng.integers(8)
        elif kind == 1 and at < len(broken):
            broken[at] = rng.choice([0, 1, 0x7F, 0x80, 0xFF])
        elif kind == 2:
            del broken[at : min(to, at + 40)]
        elif kind == 3:
            broken[at:at] = broken[at : min(to, at + 40)]
        elif kind == 4:
            broken[at:at] = rng.bytes(rng.integers(1, 12))
        elif kind == 5:
            broken[at:at] = varint(int(rng.integers(2**62)))
    return bytes(broken)


def introducing():
    """Return a message that introduces a behaviour of which all is written: images, masks, groups, ends of episodes."""
    file = io.BytesIO()
    Image.fromarray(np.zeros((3, 4, 3), dtype=np.uint8)).save(file, format="PNG")
    image = {"dimension_properties": [1, 2, 2], "shape": [3, 3, 4], "name": "camera"}
    png = {"compression_type": 1, "compressed_data": file.getvalue(), "compressed_channel_mapping": [2, 1, 0]}
    floats = {"shape": [2], "float_data": {"data": [1.0, 2.0]}, "name": "goal", "observation_type": 1}
    agents = [
        AgentInfoProto(id=7, done=True, max_step_reached=True, observations=[{**image, **png}, floats]),
        AgentInfoProto(id=-7, action_mask=[True, False], observations=[{**image, **png}, floats], group_id=300),
        AgentInfoProto(
            id=8, reward=0.5, observations=[{**image, "float_data": {"data": [0.25] * 36}}, floats], group_reward=1.0
        ),
    ]
    actions = {"num_continuous_actions": 1, "num_discrete_actions": 2, "discrete_branch_sizes": [2, 3]}
    brain = {"brain_name": "Hybrid?team=1", "action_spec": actions}
    output = {
        "rl_output": {"agentInfos": {"Hybrid?team=1": ListAgentInfoProto(value=agents)}, "side_channel": b"abc"},
        "rl_initialization_output": {"brain_parameters": [brain]},
    }
    return UnityMessageProto(header={"status": 200}, unity_output=output).SerializeToString()


def test_a_hundred_thousand_broken_messages():
    rng = np.random.default_rng(11)
    messages = [path.read_bytes() for path in sorted(RECORDED.glob("*-0[2-5]-env.bin"))] + [introducing()] * 4
    decoders = {}
    for data in messages:
        message = read_environment_message(data)
        for brain in message.initialization.brain_parameters if message.initialization else ():
            spec = read_behavior_spec(brain, message.agent_infos[brain.brain_name])
            decoders[brain.brain_name] = StepsDecoder(brain.brain_name, spec)
    n_read = sum(is_readable(mutated(messages[index % len(messages)], rng), decoders) for index in range(N_MESSAGES))
    assert 0.05 < n_read / N_MESSAGES < 0.95  # else the mutations are too wild, or too mild
    for data in messages:  # and nothing of it has stuck
        assert read_everything(data, decoders) in (2, 3)


def wrapped(agents, behavior_id=b"B?team=0", brain=b""):
    """Return a whole message of one behaviour from its ``ListAgentInfoProto``, and what introduces another."""
    entry = delimited(1, behavior_id) + delimited(2, agents)
    output = delimited(1, delimited(2, entry)) + brain
    return delimited(1, b"\x08\xc8\x01") + delimited(2, output)


def introduced(observation, action_spec=b""):
    """Return a message that introduces a behaviour, with one agent."""
    brain = delimited(2, delimited(5, delimited(7, b"new") + delimited(9, action_spec)))
    return wrapped(delimited(1, delimited(13, observation)), b"new", brain)


GIGABYTES = 2**40
HUGE = {
    "a length of terabytes": wrapped(b"\x0a" + varint(GIGABYTES) + b"x" * 100),
    "floats of terabytes": wrapped(delimited(1, b"\x6a" + varint(GIGABYTES) + b"x" * 100)),
    "a shape of terabytes": wrapped(
        delimited(1, delimited(13, delimited(1, varint(2**31 - 1) * 3) + delimited(4, delimited(1, b"1234")))),
    ),
    "a PNG image of terabytes": wrapped(
        delimited(1, delimited(13, delimited(1, varint(2**20) * 3) + b"\x10\x01" + delimited(3, b"\x89PNG\r\n\x1a\n"))),
    ),
    "a specification of terabytes": introduced(delimited(1, varint(2**31 - 1) * 3)),
    "a specification of a gigabyte": introduced(delimited(1, varint(2**28))),
    "a specification larger than its observation": introduced(delimited(1, varint(2**26))),
    "a specification of terabytes of choices": introduced(
        delimited(1, b"\x00") + delimited(11, b"\x01"), delimited(3, varint(2**31 - 1) * 3)
    ),
    "a thousand agents with nothing in them": wrapped(b"\x0a\x00" * 1000),
    "a mask of a hundred thousand": wrapped(
        delimited(
            1,
            delimited(13, delimited(1, b"\x08") + delimited(4, delimited(1, bytes(32)))) + delimited(11, bytes(10**5)),
        )
    ),
    "ten thousand unknown fields": wrapped(
        delimited(
            1, delimited(13, delimited(1, b"\x08") + delimited(4, delimited(1, bytes(32)))) + b"\x98\x06\x01" * 10**4
        )
    ),
    "a thousand agents, each written in its own way": wrapped(
        b"".join(
            delimited(
                1,
                AgentInfoProto(
                    id=index + 1, observations=[{"shape": [8], "float_data": {"data": [1.0] * 8}}]
                ).SerializeToString()
                + b"".join(b"\xa0\x06" + varint(128 if index >> bit & 1 else 1) for bit in range(10)),
            )
            for index in range(1000)
        )
    ),
}


@pytest.mark.parametrize("data", list(HUGE.values()), ids=list(HUGE))
def test_memory_stays_within_a_small_multiple_of_the_message(data):
    decoders = {"B?team=0": StepsDecoder("B?team=0", SPEC)}
    tracemalloc.start()
    try:
        is_readable(data, decoders)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 40 * len(data) + 200_000
