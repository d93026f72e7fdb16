"""The analytics channel of the low-level API, against bytes recorded from ML-Agents 1.1.0 and worked by hand."""

import platform
from pathlib import Path

import pytest

import mlagents_envs
from mlagents_envs.communicator_objects.unity_message_pb2 import UnityMessageProto
from mlagents_envs.exception import UnitySideChannelException
from mlagents_envs.side_channel import DefaultTrainingAnalyticsSideChannel
from mlagents_envs.side_channel.side_channel_manager import SideChannelManager, join_message, split_messages

RECORDED = Path(__file__).parent / "data" / "wire" / "3DBall-01-trainer.bin"
TYPE_URL = b"type.googleapis.com/communicator_objects.TrainingEnvironmentInitialized"
ID_ON_THE_WIRE = bytes.fromhex("a9a464b6 6fd8 5f5a 95cb e8353a7e8356")


@pytest.fixture
def message(monkeypatch):
    """What is queued where the versions are 7.8.9 and 3.10.13."""
    monkeypatch.setattr(mlagents_envs, "__version__", "7.8.9")
    monkeypatch.setattr(platform, "python_version", lambda: "3.10.13")
    channel = DefaultTrainingAnalyticsSideChannel()
    channel.environment_initialized()
    (queued,) = channel.message_queue
    return queued


def test_an_environment_is_announced_with_versions_only(message):
    value = b"\x12\x057.8.9" + b"\x1a\x073.10.13"  # fields 2 and 3: tag, length, text
    assert message == b"\x0a\x47" + TYPE_URL + b"\x12\x10" + value


def test_the_envelope_is_that_of_the_recorded_message(message):
    side_channel = UnityMessageProto.FromString(RECORDED.read_bytes()).unity_input.rl_input.side_channel
    payloads = dict(split_messages(side_channel))  # the last one of each channel
    recorded = payloads[DefaultTrainingAnalyticsSideChannel.CHANNEL_ID]
    envelope = 2 + len(TYPE_URL) + 1
    assert recorded[:envelope] == message[:envelope]


def test_it_goes_out_under_the_channel_s_id(message):
    channel = DefaultTrainingAnalyticsSideChannel()
    channel.environment_initialized()
    run = SideChannelManager([channel]).generate_side_channel_messages()
    assert run == ID_ON_THE_WIRE + len(message).to_bytes(4, "little") + message
    assert channel.message_queue == []


def test_nothing_is_sent_unasked():
    assert DefaultTrainingAnalyticsSideChannel().message_queue == []


def test_a_message_from_the_environment_is_an_error_that_names_the_channel():
    manager = SideChannelManager([DefaultTrainingAnalyticsSideChannel()])
    message = join_message(DefaultTrainingAnalyticsSideChannel.CHANNEL_ID, b"hello")
    with pytest.raises(UnitySideChannelException, match=r"DefaultTrainingAnalytics.*only sends"):
        manager.process_side_channel_message(message)
