"""The environment's end of the wire in bytes: steps and messages written, trainers' answers read."""

import contextlib
import io
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from mlagents_envs.base_env import (
    ActionSpec,
    BehaviorSpec,
    DecisionSteps,
    DimensionProperty,
    ObservationSpec,
    ObservationType,
    TerminalSteps,
    vector_observation,
)
from mlagents_envs.communicator_objects import command_pb2
from mlagents_envs.communicator_objects.unity_message_pb2 import UnityMessageProto
from mlagents_envs.communicator_objects.unity_rl_output_pb2 import UnityRLOutputProto
from mlagents_envs.exception import UnityCommunicationException
from mlagents_envs.wire.steps_encoder import StepsEncoder
from mlagents_envs.wire.trainer_messages import read_trainer_message, write_environment_message, write_handshake

RECORDED = Path(__file__).parent / "data" / "wire"
ID = "Walker?team=0"
IMAGE_DIMENSIONS = (
    DimensionProperty.NONE,
    DimensionProperty.TRANSLATIONAL_EQUIVARIANCE,
    DimensionProperty.TRANSLATIONAL_EQUIVARIANCE,
)
INT32 = st.integers(-(2**31), 2**31 - 1) | st.integers(0, 300)
FLOAT32 = st.sampled_from([0.0, -0.0, 1.0, math.inf]) | st.floats(width=32, allow_nan=False)


def written_by_protobuf(behavior_id, spec, decisions, terminals):
    """The same message, built agent by agent."""
    output = UnityRLOutputProto()
    agents = output.agentInfos[behavior_id].value
    for steps in (terminals, decisions):
        for i in range(len(steps)):
            info = agents.add(
                reward=steps.reward[i],
                id=steps.agent_id[i],
                group_id=steps.group_id[i],
                group_reward=steps.group_reward[i],
            )
            if steps is terminals:
                info.done, info.max_step_reached = True, bool(steps.interrupted[i])
            elif steps.action_mask is not None:
                info.action_mask.extend(bool(value) for mask in steps.action_mask for value in mask[i])
            for observation, values in zip(spec.observation_specs, steps.obs):
                info.observations.add(
                    shape=observation.shape,
                    dimension_properties=observation.dimension_property,
                    observation_type=observation.observation_type.value,
                    name=observation.name,
                ).float_data.data.extend(values[i].ravel().tolist())
    return output.SerializeToString(deterministic=True)


@st.composite
def batches(draw):
    """A specification with decisions and terminals that fit it."""
    shapes = draw(st.lists(hnp.array_shapes(min_dims=1, max_dims=3, max_side=5), min_size=1, max_size=3))
    observation_specs = [
        ObservationSpec(
            shape,
            draw(st.sampled_from([(), (DimensionProperty.VARIABLE_SIZE,) * len(shape)])),
            draw(st.sampled_from(ObservationType)),
            draw(st.text(max_size=200)),
        )
        for shape in shapes
    ]
    spec = BehaviorSpec(
        observation_specs, ActionSpec.create_discrete(tuple(draw(st.lists(st.integers(1, 90), min_size=1))))
    )

    def column(n, elements, dtype):
        return draw(hnp.arrays(dtype, n, elements=elements))

    def columns(n):
        obs = [draw(hnp.arrays(np.float32, (n, *shape), elements=FLOAT32, fill=FLOAT32)) for shape in shapes]
        return {
            "obs": obs,
            "reward": column(n, FLOAT32, np.float32),
            "agent_id": column(n, INT32, np.int32),
            "group_id": column(n, INT32, np.int32),
            "group_reward": column(n, FLOAT32, np.float32),
        }

    n_decisions, n_terminals = draw(st.integers(0, 6)), draw(st.integers(0, 6))
    masks = None
    if draw(st.booleans()):
        masks = [draw(hnp.arrays(np.bool_, (n_decisions, size))) for size in spec.action_spec.discrete_branches]
    decisions = DecisionSteps(**columns(n_decisions), action_mask=masks)
    terminals = TerminalSteps(**columns(n_terminals), interrupted=column(n_terminals, st.booleans(), np.bool_))
    return spec, decisions, terminals


@settings(deadline=None, max_examples=100)
@given(batches())
def test_the_bytes_are_those_of_protobuf(batch):
    spec, decisions, terminals = batch
    encoder = StepsEncoder(ID, spec)
    wanted = written_by_protobuf(ID, spec, decisions, terminals)
    assert encoder.encode(decisions, terminals) == wanted
    assert encoder.encode(decisions, terminals) == wanted, "the second message differs from the first"


def test_a_message_worked_by_hand():
    spec = BehaviorSpec([vector_observation(2, "eye")], ActionSpec.create_discrete((2,)))
    decisions = DecisionSteps(
        obs=[np.array([[1.0, 0.0]], dtype=np.float32)],
        reward=np.array([-2.0], dtype=np.float32),
        agent_id=np.array([300], dtype=np.int32),
        action_mask=[np.array([[False, True]])],
        group_id=np.array([5], dtype=np.int32),
        group_reward=np.array([0.5], dtype=np.float32),
    )
    reward = "3d 000000c0"
    agent_id = "50 ac02"  # 300 = 0b10_0101100
    mask = "5a 02 0001"
    shape, floats, dimensions, name = "0a 01 02", "22 0a 0a 08 0000803f 00000000", "32 01 01", "42 03 657965"
    observation = f"6a 17 {shape} {floats} {dimensions} {name}"  # 3 + 12 + 3 + 5 = 23 bytes
    group = "70 05 7d 0000003f"
    info = f"0a 2c {reward} {agent_id} {mask} {observation} {group}"  # 5 + 3 + 4 + 25 + 7 = 44 bytes
    entry = f"12 33 0a 01 57 12 2e {info}"  # 3 + 2 + 46 = 51 bytes
    assert StepsEncoder("W", spec).encode(decisions, TerminalSteps.empty(spec)) == bytes.fromhex(entry)


def test_columns_of_other_types_and_layouts_are_written_as_what_they_hold():
    spec = BehaviorSpec([ObservationSpec((3, 2), (), ObservationType.DEFAULT, "grid")], ActionSpec.create_continuous(1))
    values = np.arange(12, dtype=np.float32).reshape(2, 3, 2)
    columns = {
        "reward": np.array([0.5, 0.25], dtype=np.float32),
        "agent_id": np.array([4, 9], dtype=np.int32),
        "action_mask": None,
        "group_id": np.zeros(2, dtype=np.int32),
        "group_reward": np.zeros(2, dtype=np.float32),
    }
    wanted = StepsEncoder(ID, spec).encode(DecisionSteps([values], **columns), TerminalSteps.empty(spec))
    columns |= {"reward": columns["reward"].astype(np.float64), "agent_id": columns["agent_id"].astype(np.int64)}
    fortran = np.asfortranarray(values.astype(np.float64))
    assert StepsEncoder(ID, spec).encode(DecisionSteps([fortran], **columns), TerminalSteps.empty(spec)) == wanted


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 7])
def test_images_as_png_files(channels):
    spec = BehaviorSpec(
        [
            ObservationSpec((channels, 5, 4), IMAGE_DIMENSIONS, ObservationType.DEFAULT, "camera"),
            vector_observation(1, "speed"),
        ],
        ActionSpec.create_continuous(1),
    )
    pixels = np.random.default_rng(channels).integers(0, 256, (2, channels, 5, 4), dtype=np.uint8)
    zeros = np.zeros(2, dtype=np.float32)
    decisions = DecisionSteps(
        [(pixels / 255).astype(np.float32), zeros[:, None]], zeros, np.arange(2), None, np.zeros(2, np.int32), zeros
    )
    entry = StepsEncoder(ID, spec, png=True).encode(decisions, TerminalSteps.empty(spec))
    agents = UnityRLOutputProto.FromString(entry).agentInfos[ID].value
    assert [agent.id for agent in agents] == [0, 1]
    for agent, wanted in zip(agents, pixels):
        image, speed = agent.observations
        assert list(image.shape) == [channels, 5, 4]
        assert (image.compression_type, image.name, list(image.dimension_properties)) == (1, "camera", [1, 2, 2])
        header = b"\x89PNG\r\n\x1a\n"
        files = [header + rest for rest in image.compressed_data.split(header)[1:]]
        decoded = np.concatenate([np.asarray(Image.open(io.BytesIO(file))).transpose(2, 0, 1) for file in files])
        mapping = list(image.compressed_channel_mapping)
        assert len(mapping) == len(decoded) == 3 * math.ceil(channels / 3)
        np.testing.assert_array_equal(decoded[[mapping.index(channel) for channel in range(channels)]], wanted)
        assert all(target == -1 for target in mapping[channels:])
        assert list(speed.float_data.data) == [0.0]


def steps_of(agents, shapes):
    """Columns of recorded agents, of which none has ended or has a group."""
    return DecisionSteps(
        obs=[
            np.array([agent.observations[i].float_data.data for agent in agents], dtype=np.float32).reshape(-1, *shape)
            for i, shape in enumerate(shapes)
        ],
        reward=np.array([agent.reward for agent in agents], dtype=np.float32),
        agent_id=np.array([agent.id for agent in agents], dtype=np.int32),
        action_mask=None,
        group_id=np.zeros(len(agents), dtype=np.int32),
        group_reward=np.zeros(len(agents), dtype=np.float32),
    )


@pytest.mark.parametrize(
    ("name", "spec"),
    [
        ("3DBall", BehaviorSpec([vector_observation(8, "VectorSensor_size8")], ActionSpec.create_continuous(2))),
        ("Basic", BehaviorSpec([vector_observation(20, "BasicSensor")], ActionSpec.create_discrete((3,)))),
    ],
)
def test_recorded_messages_of_an_environment_are_written_byte_for_byte(name, spec):
    first, second = ((RECORDED / f"{name}-{i:02}-env.bin").read_bytes() for i in (2, 3))
    behavior_id = f"{name}?team=0"
    encoder = StepsEncoder(behavior_id, spec)
    for recorded, new_behaviors in ((first, {behavior_id: spec}), (second, {})):
        agents = UnityMessageProto.FromString(recorded).unity_output.rl_output.agentInfos[behavior_id].value
        assert agents
        entry = encoder.encode(steps_of(agents, [spec.observation_specs[0].shape]), TerminalSteps.empty(spec))
        assert write_environment_message([entry], new_behaviors) == recorded


def test_recorded_handshake():
    assert write_handshake("fake") == (RECORDED / "3DBall-00-env.bin").read_bytes()
    assert write_environment_message() == (RECORDED / "3DBall-01-env.bin").read_bytes()


def test_side_channel_bytes_go_along():
    message = UnityMessageProto.FromString(write_environment_message(side_channel=b"\0\1\2"))
    assert message.unity_output.rl_output.side_channel == b"\0\1\2"
    assert message.header.status == 200


def test_reading_recorded_answers():
    hello, reset, _, step = (
        read_trainer_message((RECORDED / f"3DBall-{i:02}-trainer.bin").read_bytes()) for i in range(4)
    )
    assert hello.initialization.seed == 7877
    assert hello.initialization.num_areas == 1
    assert reset.command == command_pb2.RESET
    assert reset.initialization is None
    assert len(reset.side_channel) == 2054
    assert reset.actions == {}
    assert step.command == command_pb2.STEP
    assert not step.is_goodbye
    actions = step.actions["3DBall?team=0"]
    assert actions.continuous.shape == (3, 2)
    assert actions.discrete.shape == (3, 0)
    basic = read_trainer_message((RECORDED / "Basic-02-trainer.bin").read_bytes()).actions["Basic?team=0"]
    assert basic.discrete.tolist() == [[1], [2]]
    assert basic.discrete.dtype == np.int32
    assert basic.continuous.shape == (2, 0)


def test_an_answer_worked_by_hand():
    action = "32 04 0000c03f 3a 03 01 ac02"  # 1.5; then 1 and 300: 6 + 5 = 11 bytes
    entry = f"0a 13 0a 02 5734 12 0d 0a 0b {action}"  # 4 + 2 + 2 + 11 = 19 bytes
    rl_input = f"0a 18 {entry} 2a 01 07"  # 2 + 19 + 3 = 24 bytes
    message = read_trainer_message(bytes.fromhex(f"0a 03 08 c801 1a 1a {rl_input}"))
    actions = message.actions["W4"]
    assert actions.continuous.tolist() == [[1.5]]
    assert actions.discrete.tolist() == [[1, 300]]
    assert message.side_channel == b"\7"
    assert (message.is_goodbye, message.initialization, message.command) == (False, None, command_pb2.STEP)


@pytest.mark.parametrize("goodbye", ["0a 03 08 9003", "0a 03 08 c801 1a 04 0a 02 20 02", ""])
def test_goodbyes(goodbye):
    assert read_trainer_message(bytes.fromhex(goodbye)).is_goodbye


@settings(deadline=None)
@given(
    hnp.arrays(np.float32, st.tuples(st.integers(1, 6), st.integers(0, 3)), elements=st.floats(width=32)),
    st.integers(0, 3),
    st.sampled_from([3, 128, 2**31]),
    st.data(),
)
def test_actions_come_back_as_they_were_sent(continuous, n_discrete, n_choices, data):
    discrete = data.draw(hnp.arrays(np.int32, (len(continuous), n_discrete), elements=st.integers(0, n_choices - 1)))
    message = UnityMessageProto()
    message.header.status = 200
    agents = message.unity_input.rl_input.agent_actions[ID].value
    for floats, choices in zip(continuous.tolist(), discrete.tolist()):
        agents.add(vector_actions_deprecated=floats + choices, continuous_actions=floats, discrete_actions=choices)
    actions = read_trainer_message(message.SerializeToString()).actions[ID]
    assert actions.continuous.dtype == np.float32
    assert actions.discrete.dtype == np.int32
    np.testing.assert_array_equal(actions.continuous, continuous)
    np.testing.assert_array_equal(actions.discrete, discrete)


def test_agents_with_different_numbers_of_actions_are_refused():
    message = UnityMessageProto()
    message.header.status = 200
    agents = message.unity_input.rl_input.agent_actions[ID].value
    agents.add(continuous_actions=[1, 2])
    agents.add(continuous_actions=[1, 2, 3, 4])
    agents.add(continuous_actions=[1, 2])
    with pytest.raises(UnityCommunicationException, match=r"2 and 4 continuous actions in the behavior Walker\?team=0"):
        read_trainer_message(message.SerializeToString())


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_damaged_answers_are_read_or_refused(data):
    recorded = bytearray((RECORDED / f"3DBall-{data.draw(st.integers(0, 5)):02}-trainer.bin").read_bytes())
    for position in data.draw(st.lists(st.integers(0, len(recorded) - 1), min_size=1, max_size=5)):
        recorded[position] = data.draw(st.integers(0, 255))
    damaged = bytes(recorded[: data.draw(st.integers(0, len(recorded)))])
    with contextlib.suppress(UnityCommunicationException):
        message = read_trainer_message(damaged)
        assert all(actions.continuous.dtype == np.float32 for actions in message.actions.values())
