"""What a checkpoint says of itself comes back as it was, through a file."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mlagents.trainers import __version__
from mlagents.trainers.exception import TrainerConfigError
from mlagents.trainers.model_saver.about import ABOUT, make_about, read_about
from mlagents.trainers.model_saver.checkpoint_file import CheckpointError, read_checkpoint, write_checkpoint
from mlagents.trainers.ppo.trainer import PPOSettings
from mlagents.trainers.sac.trainer import SACSettings
from mlagents.trainers.settings import (
    EncoderType,
    NetworkSettings,
    RewardSignalSettings,
    RewardSignalType,
    ScheduleType,
    TrainerSettings,
)
from mlagents_envs.base_env import (
    ActionSpec,
    BehaviorSpec,
    DimensionProperty,
    ObservationSpec,
    ObservationType,
    vector_observation,
)

SPEC = BehaviorSpec([vector_observation(8, "sensor")], ActionSpec(2, (3,)))


@st.composite
def observation_specs(draw):
    shape = draw(st.lists(st.integers(0, 100), max_size=4).map(tuple))
    properties = st.builds(DimensionProperty, st.integers(0, 7))  # flags may be joined
    return ObservationSpec(
        shape,
        tuple(draw(properties) for _ in shape),
        draw(st.sampled_from(ObservationType)),
        draw(st.text(max_size=20)),
    )


BEHAVIOR_SPECS = st.builds(
    BehaviorSpec,
    st.lists(observation_specs(), max_size=4),
    st.builds(ActionSpec, st.integers(0, 10), st.lists(st.integers(1, 9), max_size=3).map(tuple)),
)

TRAINER_SETTINGS = {
    "defaults": TrainerSettings(),
    "ppo": TrainerSettings(
        trainer_type="ppo",
        hyperparameters=PPOSettings(shared_critic=True, learning_rate_schedule=ScheduleType.CONSTANT, batch_size=7),
        network_settings=NetworkSettings(
            normalize=True,
            vis_encode_type=EncoderType.RESNET,
            memory=NetworkSettings.MemorySettings(sequence_length=5, memory_size=12),
            deterministic=True,
        ),
        reward_signals={RewardSignalType.EXTRINSIC: RewardSignalSettings(gamma=0.5, strength=0.25)},
        max_steps=1000,
        keep_checkpoints=4,
        even_checkpoints=True,
        init_path="somewhere/checkpoint.pt",
    ),
    "sac": TrainerSettings(trainer_type="sac", hyperparameters=SACSettings(tau=0.125, save_replay_buffer=True)),
}


def through_a_file(path, plain):
    write_checkpoint(path, {"Policy": {}, ABOUT: plain})
    return read_checkpoint(path)


@settings(max_examples=50, deadline=None)
@given(spec=BEHAVIOR_SPECS, name=st.text(min_size=1, max_size=20))
def test_specifications_come_back(tmp_path_factory, spec, name):
    path = tmp_path_factory.getbasetemp() / "specifications.pt"
    about = read_about(through_a_file(path, make_about(name, spec, TrainerSettings(), 1, None)), path)
    assert about.behavior_name == name
    assert about.behavior_spec == spec
    for observation in about.behavior_spec.observation_specs:
        assert isinstance(observation.shape, tuple)
        assert all(isinstance(value, DimensionProperty) for value in observation.dimension_property)
        assert isinstance(observation.observation_type, ObservationType)


@pytest.mark.parametrize("given_settings", TRAINER_SETTINGS.values(), ids=TRAINER_SETTINGS)
def test_settings_come_back(tmp_path, given_settings):
    path = tmp_path / "checkpoint.pt"
    about = read_about(through_a_file(path, make_about("Ball", SPEC, given_settings, 5, 1.5)), path)
    assert about.trainer_type == given_settings.trainer_type
    assert about.read_trainer_settings(path) == given_settings


def test_step_reward_and_version_come_back(tmp_path):
    path = tmp_path / "checkpoint.pt"
    plain = make_about("Ball", SPEC, TrainerSettings(), np.int64(123), np.float32(0.5))
    about = read_about(through_a_file(path, plain), path)
    assert (about.step, about.mean_reward, about.mlagents_version) == (123, 0.5, __version__)
    assert read_about({ABOUT: make_about("Ball", SPEC, TrainerSettings(), 0, None)}, path).mean_reward is None


def test_shapes_as_numpy_has_them_are_plain_in_the_file(tmp_path):
    shape = tuple(np.array([3, 4]))
    spec = BehaviorSpec(
        [ObservationSpec(shape, (DimensionProperty.NONE,) * 2, ObservationType.DEFAULT, "grid")],
        ActionSpec(np.int32(2), tuple(np.array([3]))),
    )
    path = tmp_path / "checkpoint.pt"
    about = read_about(through_a_file(path, make_about("Ball", spec, TrainerSettings(), 0, None)), path)
    assert about.behavior_spec == spec


def test_a_checkpoint_may_say_nothing():
    assert read_about({"Policy": {}}, "checkpoint.pt") is None


def test_a_later_version_is_told_apart_from_damage():
    plain = {"format": 2, "mlagents_version": "9.0.0"}
    with pytest.raises(CheckpointError, match=r"^old.pt was written by a later version \(mlagents 9\.0\.0\)"):
        read_about({ABOUT: plain}, "old.pt")


DAMAGE = {
    "not a mapping": lambda plain: [1, 2],
    "a key is missing": lambda plain: {key: value for key, value in plain.items() if key != "actions"},
    "observations of another kind": lambda plain: {**plain, "observations": [3]},
    "an unknown type": lambda plain: {**plain, "observations": [{**plain["observations"][0], "type": 7}]},
    "a shape of words": lambda plain: {**plain, "observations": [{**plain["observations"][0], "shape": ["wide"]}]},
    "settings that are none": lambda plain: {**plain, "trainer_settings": "ppo"},
    "settings without a type": lambda plain: {**plain, "trainer_settings": {}},
    "no step": lambda plain: {**plain, "step": None},
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_damage_is_one_message(damage):
    plain = make_about("Ball", SPEC, TrainerSettings(), 1, None)
    with pytest.raises(CheckpointError, match=r"^x\.pt is damaged: what it says of itself cannot be read"):
        read_about({ABOUT: damage(plain)}, "x.pt")


def test_settings_that_cannot_be_read_here_name_file_and_key():
    plain = make_about("Ball", SPEC, TrainerSettings(), 1, None)
    plain["trainer_settings"]["trainer_type"] = "gone"
    about = read_about({ABOUT: plain}, "x.pt")
    with pytest.raises(TrainerConfigError, match=r"^x\.pt: behaviors\.Ball\.trainer_type: Invalid trainer type gone"):
        about.read_trainer_settings("x.pt")
