"""What the Editor learns of a training: the fields that ML-Agents 1.1.0 sent, and nothing that a user named."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Dict

import attr
import numpy as np
import pytest
from google.protobuf import any_pb2

import mlagents.trainers
from mlagents.torch_utils import torch
from mlagents.trainers.settings import (
    BehavioralCloningSettings,
    CheckpointSettings,
    CompletionCriteriaSettings,
    ConstantSettings,
    EnvironmentParameterSettings,
    EnvironmentSettings,
    GAILSettings,
    HyperparamSettings,
    Lesson,
    NetworkSettings,
    RewardSignalSettings,
    RewardSignalType,
    RunOptions,
    SelfPlaySettings,
    TorchSettings,
    TrainerSettings,
)
from mlagents.trainers.training_analytics_side_channel import TrainingAnalyticsSideChannel
from mlagents_envs.communicator_objects import training_analytics_pb2
from mlagents_envs.communicator_objects.unity_message_pb2 import UnityMessageProto
from mlagents_envs.exception import UnitySideChannelException
from mlagents_envs.side_channel.incoming_message import IncomingMessage
from mlagents_envs.side_channel.side_channel_manager import split_messages

PREFIX = "type.googleapis.com/communicator_objects."


def unwrap(payload):
    """Return the message in a `google.protobuf.Any`."""
    wrapped = any_pb2.Any.FromString(payload)
    assert wrapped.type_url.startswith(PREFIX)
    return getattr(training_analytics_pb2, wrapped.type_url[len(PREFIX) :]).FromString(wrapped.value)


def sent_by(channel):
    """Return the one message that a channel has queued, and forget it."""
    (payload,) = channel.message_queue
    channel.message_queue.clear()
    return unwrap(payload)


def environment_message(options):
    channel = TrainingAnalyticsSideChannel()
    channel.environment_initialized(options)
    return sent_by(channel)


def behavior_message(config=None, behavior_name="Some", options=None):
    channel = TrainingAnalyticsSideChannel()
    channel.run_options = options
    channel.training_started(behavior_name, config or TrainerSettings())
    return sent_by(channel)


@pytest.fixture
def recorded(data_path):
    """Return a function that gives the analytics message in a recorded exchange, by the exchange's number."""

    def read(number):
        data = (data_path / "analytics" / f"3DBall-{number:02d}-trainer.bin").read_bytes()
        side_channel = UnityMessageProto.FromString(data).unity_input.rl_input.side_channel
        return unwrap(dict(split_messages(side_channel))[TrainingAnalyticsSideChannel.CHANNEL_ID])

    return read


@pytest.fixture
def recorded_options(recorded):
    """The options of the recorded run, with the names and paths that the record does not tell."""
    options = json.loads(recorded(1).run_options)
    (options["behaviors"]["3DBall"],) = (options["behaviors"].pop(name) for name in list(options["behaviors"]))
    options["checkpoint_settings"]["results_dir"] = "results"
    return options


def is_hash(text):
    return isinstance(text, str) and len(text) == 64 and set(text) <= set("0123456789abcdef")


def names_of_set_fields(message):
    return {field.name for field, _ in message.ListFields()}


# Against what ML-Agents 1.1.0 sent


def test_a_run_is_described_as_in_the_record_but_for_names_and_paths(recorded, recorded_options):
    message = environment_message(RunOptions.from_dict(recorded_options))
    assert names_of_set_fields(message) == names_of_set_fields(recorded(1))
    assert message.mlagents_version == mlagents.trainers.__version__
    assert message.torch_version == torch.__version__
    assert message.num_envs == 1

    sent = json.loads(message.run_options)
    (behavior_name,) = sent["behaviors"]
    assert is_hash(behavior_name)
    named_by_the_user = [("env_settings", "env_path"), ("checkpoint_settings", "run_id")]
    for section, key in [*named_by_the_user, ("checkpoint_settings", "results_dir")]:
        assert is_hash(sent[section][key])
        sent[section][key] = recorded_options[section][key]
    sent["behaviors"] = {"3DBall": sent["behaviors"][behavior_name]}
    for key in ("checkpoint_interval_s", "allow_partial_load"):  # which ML-Agents 1.1.0 does not have
        del sent["checkpoint_settings"][key]
    for behavior in (*sent["behaviors"].values(), *filter(None, [sent["default_settings"]])):
        del behavior["evaluation"]
    assert sent == recorded_options


def test_a_behavior_is_described_as_in_the_record_but_for_its_name(recorded, recorded_options):
    options = RunOptions.from_dict(recorded_options)
    channel = TrainingAnalyticsSideChannel()
    channel.environment_initialized(options)
    channel.message_queue.clear()
    channel.training_started("3DBall", options.behaviors["3DBall"])
    message, expected = sent_by(channel), recorded(2)
    sent = json.loads(message.config)
    assert sent.pop("evaluation") is None  # which ML-Agents 1.1.0 does not have
    assert sent == json.loads(expected.config)
    assert is_hash(message.behavior_name)
    message.behavior_name, message.config = expected.behavior_name, expected.config
    assert message == expected


# What each field says


@pytest.mark.parametrize(
    ("field", "change"),
    [
        ("gail_reward_enabled", {"reward_signals": {RewardSignalType.GAIL: RewardSignalSettings()}}),
        ("curiosity_reward_enabled", {"reward_signals": {RewardSignalType.CURIOSITY: RewardSignalSettings()}}),
        ("rnd_reward_enabled", {"reward_signals": {RewardSignalType.RND: RewardSignalSettings()}}),
        ("extrinsic_reward_enabled", {"reward_signals": {RewardSignalType.EXTRINSIC: RewardSignalSettings()}}),
        ("recurrent_enabled", {"network_settings": NetworkSettings(memory=NetworkSettings.MemorySettings())}),
        ("trainer_threaded", {"threaded": True}),
        ("self_play_enabled", {"self_play": SelfPlaySettings()}),
        ("behavioral_cloning_enabled", {"behavioral_cloning": BehavioralCloningSettings(demo_path="d.demo")}),
    ],
)
def test_a_setting_that_is_on_sets_its_field_and_no_other(field, change):
    plain = behavior_message(TrainerSettings(reward_signals={}))
    changed = behavior_message(TrainerSettings(**{"reward_signals": {}, **change}))
    assert names_of_set_fields(changed) - names_of_set_fields(plain) == {field}


def test_the_network_is_described():
    message = behavior_message(TrainerSettings(network_settings=NetworkSettings(hidden_units=24, num_layers=3)))
    assert (message.num_network_hidden_units, message.num_network_layers, message.visual_encoder) == (24, 3, "simple")


@pytest.mark.parametrize(("n_lessons", "is_curriculum"), [(1, False), (2, True)])
def test_a_curriculum_has_more_than_one_lesson(n_lessons, is_curriculum):
    lessons = [Lesson(ConstantSettings(value=1.0), name, CompletionCriteriaSettings("Some")) for name in "ab"]
    options = RunOptions(environment_parameters={"mass": EnvironmentParameterSettings(lessons[:n_lessons])})
    assert behavior_message(options=options).curriculum_enabled is is_curriculum
    assert environment_message(options).num_environment_parameters == 1


# What must not be said


@attr.s(auto_attribs=True)
class PluginSettings(HyperparamSettings):
    """Settings of a plug-in, with text wherever it can be."""

    weights_file: str = "SECRET-file"
    other: Any = attr.Factory(lambda: [Path("SECRET-path"), np.array(["SECRET-array"])])
    files: Dict[str, list] = attr.Factory(lambda: {"SECRET-key": ["SECRET-item", ("SECRET-nested",), {"SECRET-set"}]})


def test_nothing_that_the_user_named_can_be_read():
    config = TrainerSettings(
        trainer_type="SECRET_module:Trainer",
        hyperparameters=PluginSettings(),
        init_path="/home/SECRET/model.pt",
        reward_signals={RewardSignalType.GAIL: GAILSettings(demo_path="/home/SECRET/gail.demo")},
        behavioral_cloning=BehavioralCloningSettings(demo_path="/home/SECRET/cloning.demo"),
    )
    lesson = Lesson(ConstantSettings(value=1.0), "SECRET-lesson", CompletionCriteriaSettings("SECRET-behavior"))
    options = RunOptions(
        default_settings=config,
        behaviors={"SECRET-behavior": config},
        env_settings=EnvironmentSettings(env_path="/home/SECRET/game", env_args=["--SECRET-flag", "SECRET-value"]),
        environment_parameters={"SECRET-parameter": EnvironmentParameterSettings([lesson])},
        checkpoint_settings=CheckpointSettings("SECRET-id", "SECRET-other", results_dir="/home/SECRET"),
    )
    channel = TrainingAnalyticsSideChannel()
    channel.environment_initialized(options)
    channel.training_started("SECRET-behavior", config)
    assert len(channel.message_queue) == 2
    for payload in channel.message_queue:
        assert b"SECRET" not in payload
    assert config.init_path == "/home/SECRET/model.pt"  # the settings themselves are as they were


def test_the_names_of_trainers_and_devices_are_nobody_s_own():
    options = RunOptions(torch_settings=TorchSettings(device="cuda:1"))
    assert json.loads(environment_message(options).run_options)["torch_settings"] == {"device": "cuda:1"}
    assert behavior_message(TrainerSettings(trainer_type="ppo")).trainer_type == "ppo"


def test_a_name_has_one_hash_in_all_messages():
    options = RunOptions.from_dict({"behaviors": {"Some": {}}})
    (name,) = json.loads(environment_message(options).run_options)["behaviors"]
    assert behavior_message(behavior_name="Some").behavior_name == name
    assert behavior_message(behavior_name="Other").behavior_name != name


def test_a_hash_stays_the_same_from_run_to_run_but_is_each_user_s_own(tmp_path):
    script = (
        "import uuid; uuid.getnode = lambda: 1;"  # a machine without a network card has none that stays
        "from mlagents.trainers.settings import TrainerSettings;"
        "from mlagents.trainers.training_analytics_side_channel import TrainingAnalyticsSideChannel as Channel;"
        "channel = Channel(); channel.training_started('3DBall', TrainerSettings());"
        "print(channel.message_queue[0].hex())"
    )

    def hash_of_user(home):
        env = {**os.environ, "HOME": str(home), "USERPROFILE": str(home)}
        run = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, check=True)
        return unwrap(bytes.fromhex(run.stdout)).behavior_name

    first = hash_of_user(tmp_path / "a")
    assert first == hash_of_user(tmp_path / "a")
    assert first != hash_of_user(tmp_path / "b")
    assert first != hashlib.sha256(b"3DBall").hexdigest()


def test_a_message_from_the_environment_is_an_error():
    with pytest.raises(UnitySideChannelException, match="only sends"):
        TrainingAnalyticsSideChannel().on_message_received(IncomingMessage(b"hello"))
