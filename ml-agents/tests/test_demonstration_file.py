"""Demonstrations, written here byte by byte as the format says."""

import numpy as np
import pytest

from mlagents.trainers.demonstration_file import DemonstrationError, read_demonstration
from mlagents_envs.base_env import ActionSpec, DimensionProperty, ObservationSpec, ObservationType
from mlagents_envs.communicator_objects.agent_info_action_pair_pb2 import AgentInfoActionPairProto
from mlagents_envs.communicator_objects.brain_parameters_pb2 import BrainParametersProto
from mlagents_envs.communicator_objects.demonstration_meta_pb2 import DemonstrationMetaProto
from mlagents_envs.communicator_objects.space_type_pb2 import discrete

VECTOR = ObservationSpec((3,), (DimensionProperty.NONE,), ObservationType.DEFAULT, "vector")


def sized(message):
    """A message with its length before it; a varint of 7 bits a byte, the lowest first."""
    content = message.SerializeToString()
    size, length = len(content), b""
    while size >= 128:
        length += bytes([size % 128 + 128])
        size //= 128
    return length + bytes([size]) + content


def pair(reward=1.0, observation=(1.0, 2.0, 3.0), action=(0.5, -0.5)):
    message = AgentInfoActionPairProto()
    message.agent_info.reward = reward
    vector = message.agent_info.observations.add(shape=[3], dimension_properties=[1], name="vector")
    vector.float_data.data.extend(observation)
    message.action_info.continuous_actions.extend(action)
    return message


def brain_parameters():
    brain = BrainParametersProto(brain_name="Ball")
    brain.action_spec.num_continuous_actions = 2
    brain.action_spec.discrete_branch_sizes.extend([3, 4])
    return brain


def meta(**fields):
    return DemonstrationMetaProto(
        **{
            "api_version": 1,
            "demonstration_name": "mine",
            "number_steps": 2,
            "number_episodes": 1,
            "mean_reward": 1.5,
            **fields,
        }
    )


def content(pairs=None, brain=None, **fields):
    """Return the bytes of a demonstration, by default of two steps."""
    pairs = [pair(), pair()] if pairs is None else pairs
    head = sized(meta(**fields)).ljust(33, b"\0")
    return head + sized(brain or brain_parameters()) + b"".join(map(sized, pairs))


@pytest.fixture
def write(tmp_path):
    """Return a function that writes a demonstration and gives its path."""

    def write(data):
        path = tmp_path / "mine.demo"
        path.write_bytes(data)
        return path

    return write


def test_what_it_says(write):
    demonstration = read_demonstration(write(content()))
    assert demonstration.name == "mine"
    assert demonstration.version == 1
    assert demonstration.behavior_name == "Ball"
    assert demonstration.behavior_spec.observation_specs == [VECTOR]
    assert demonstration.behavior_spec.action_spec == ActionSpec(2, (3, 4))
    assert (demonstration.n_steps, demonstration.n_episodes, demonstration.mean_reward) == (2, 1, 1.5)
    assert demonstration.first_not_finite is None


def test_steps_longer_than_a_byte_can_say(write):
    long = pair()
    long.agent_info.observations.add(shape=[100], dimension_properties=[1]).float_data.data.extend([0.5] * 100)
    shapes = [it.shape for it in read_demonstration(write(content([long, long]))).behavior_spec.observation_specs]
    assert shapes == [(3,), (100,)]


def test_actions_of_version_0(write):
    brain = BrainParametersProto(brain_name="Old", vector_action_size_deprecated=[2, 5])
    brain.vector_action_space_type_deprecated = discrete
    demonstration = read_demonstration(write(content(brain=brain, api_version=0)))
    assert demonstration.behavior_spec.action_spec == ActionSpec(0, (2, 5))


def test_no_steps(write):
    demonstration = read_demonstration(write(content([], number_steps=0, number_episodes=0)))
    assert demonstration.n_steps == 0
    assert demonstration.behavior_spec.observation_specs == []


def test_what_comes_after_the_last_step_is_no_matter(write):
    assert read_demonstration(write(content() + b"\xff\xff\xff")).n_steps == 2


@pytest.mark.parametrize(
    ("broken", "place"),
    [
        (pair(reward=np.nan), "step 1, the reward"),
        (pair(observation=(0.0, np.inf, 0.0)), "step 1, observation 0"),
        (pair(action=(np.nan, 0.0)), "step 1, the action"),
    ],
)
def test_values_that_are_not_finite(write, broken, place):
    assert read_demonstration(write(content([pair(), broken]))).first_not_finite == place


def test_mean_reward_that_is_not_finite(write):
    assert read_demonstration(write(content(mean_reward=np.nan))).first_not_finite == "the mean reward"


def test_cut_at_any_byte_it_is_damaged(write):
    whole = content()
    for size in range(len(whole)):
        with pytest.raises(DemonstrationError, match=r"^\S+mine\.demo is damaged, or no demonstration: "):
            read_demonstration(write(whole[:size]))


def test_a_flipped_byte_is_damage_or_another_value_and_never_a_traceback(write):
    whole = bytearray(content())
    refusals = []
    for at in range(len(whole)):
        flipped = bytearray(whole)
        flipped[at] ^= 0xFF
        try:
            read_demonstration(write(bytes(flipped)))
        except DemonstrationError as error:
            refusals.append(str(error))
    assert len(refusals) > len(whole) // 4  # every length, most tags
    assert not any("\n" in message for message in refusals)


def test_other_files_are_refused(write, tmp_path):
    with pytest.raises(DemonstrationError, match="of version 7, or none at all; versions that can be read: 0, 1"):
        read_demonstration(write(content(api_version=7)))
    with pytest.raises(DemonstrationError, match=r"its header ends at byte 6\d"):
        read_demonstration(write(content(demonstration_name="x" * 50)))
    with pytest.raises(DemonstrationError, match=r"There is no demonstration at nowhere\.demo"):
        read_demonstration("nowhere.demo")
    with pytest.raises(DemonstrationError, match="could not be read as a demonstration: Is a directory"):
        read_demonstration(tmp_path)
