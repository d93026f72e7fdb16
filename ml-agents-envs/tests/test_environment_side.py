"""The environment's end of the side channels: parameters, statistics, channels of one's own."""

import struct
import uuid

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlagents_envs.exception import UnitySideChannelException
from mlagents_envs.side_channel import OutgoingMessage
from mlagents_envs.side_channel.engine_configuration_channel import EngineConfigurationChannel
from mlagents_envs.side_channel.environment_parameters_channel import EnvironmentParametersChannel
from mlagents_envs.side_channel.environment_side import EnvironmentSideChannels, SideChannelRelay
from mlagents_envs.side_channel.raw_bytes_channel import RawBytesChannel
from mlagents_envs.side_channel.side_channel_manager import SideChannelManager
from mlagents_envs.side_channel.stats_side_channel import StatsAggregationMethod, StatsSideChannel

OWN_ID = uuid.UUID(int=77)
N = 4_000


@pytest.fixture
def trainer():
    return EnvironmentParametersChannel()


@pytest.fixture
def sides(trainer):
    return EnvironmentSideChannels([trainer])


def test_a_parameter_that_is_not_set_has_the_default(sides):
    assert sides.parameters.get_with_default("mass", 1.5) == 1.5
    values = sides.parameters.sample("mass", 1.5, 3)
    assert values.dtype == np.float32
    assert values.tolist() == [1.5, 1.5, 1.5]
    assert list(sides.parameters.keys()) == []


def test_a_number_reaches_the_environment_at_the_exchange(trainer, sides):
    trainer.set_float_parameter("mass", 2.5)
    assert sides.parameters.get_with_default("mass", 1.0) == 1.0
    sides.exchange()
    assert sides.parameters.get_with_default("mass", 1.0) == 2.5
    assert sides.parameters.sample("mass", 1.0, 2).tolist() == [2.5, 2.5]
    assert list(sides.parameters.keys()) == ["mass"]
    trainer.set_float_parameter("mass", -0.5)
    sides.exchange()
    assert sides.parameters.get_with_default("mass", 1.0) == -0.5


def test_uniform_draws(trainer, sides):
    trainer.set_uniform_sampler_parameters("mass", 2.0, 6.0, seed=3)
    sides.exchange()
    values = sides.parameters.sample("mass", 1.0, N)
    assert values.shape == (N,)
    assert values.dtype == np.float32
    assert 2.0 <= values.min() < 2.1
    assert 5.9 < values.max() <= 6.0
    assert np.mean(values < 3.0) == pytest.approx(0.25, abs=0.03)


def test_gaussian_draws(trainer, sides):
    trainer.set_gaussian_sampler_parameters("mass", 10.0, 2.0, seed=3)
    sides.exchange()
    values = sides.parameters.sample("mass", 1.0, N)
    assert values.mean() == pytest.approx(10.0, abs=0.15)
    assert values.std() == pytest.approx(2.0, abs=0.1)
    assert np.mean(values > 12.0) == pytest.approx(0.159, abs=0.025)


def test_intervals_are_as_likely_as_they_are_long(trainer, sides):
    trainer.set_multirangeuniform_sampler_parameters("mass", [(0.0, 1.0), (5.0, 8.0)], seed=3)
    sides.exchange()
    values = sides.parameters.sample("mass", 1.0, N)
    in_first, in_second = values <= 1.0, (values >= 5.0) & (values <= 8.0)
    assert (in_first | in_second).all()
    assert in_first.mean() == pytest.approx(0.25, abs=0.03)
    assert values[in_second].mean() == pytest.approx(6.5, abs=0.1)


def test_intervals_that_are_points(trainer, sides):
    trainer.set_multirangeuniform_sampler_parameters("mass", [(1.0, 1.0), (2.0, 2.0)], seed=3)
    sides.exchange()
    assert set(sides.parameters.sample("mass", 0.0, 100).tolist()) == {1.0, 2.0}


SAMPLERS = {
    "uniform": lambda channel, seed: channel.set_uniform_sampler_parameters("k", 0.0, 1.0, seed),
    "gaussian": lambda channel, seed: channel.set_gaussian_sampler_parameters("k", 0.0, 1.0, seed),
    "multirangeuniform": lambda channel, seed: channel.set_multirangeuniform_sampler_parameters(
        "k", [(0.0, 1.0), (2.0, 3.0)], seed
    ),
}


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_message_seeds_the_draws(trainer, sides, sampler):
    def draws(seed):
        SAMPLERS[sampler](trainer, seed)
        sides.exchange()
        return [sides.parameters.get_with_default("k", 0.0) for _ in range(4)]

    first = draws(seed=-8)
    assert len(set(first)) == 4  # one after the other, not the same again
    assert draws(seed=-8) == first
    assert draws(seed=9) != first


@given(st.integers(-(2**31), 2**31 - 1), st.floats(-1e3, 1e3, width=32), st.floats(-1e3, 1e3, width=32))
def test_uniform_draws_stay_between_their_ends_in_either_order(seed, one, other):
    trainer = EnvironmentParametersChannel()
    sides = EnvironmentSideChannels([trainer])
    trainer.set_uniform_sampler_parameters("k", one, other, seed)
    sides.exchange()
    values = sides.parameters.sample("k", 0.0, 50)
    assert (values >= min(one, other)).all()
    assert (values <= max(one, other)).all()


def _parameter_message(*fields):
    """The payload of key "k", then int32 or float32 fields."""
    layout = "".join("i" if isinstance(field, int) else "f" for field in fields)
    return b"\x01\x00\x00\x00k" + struct.pack(f"<{layout}", *fields)


@pytest.mark.parametrize(
    ("payload", "message"),
    [
        (_parameter_message(), "ends too early"),
        (_parameter_message(0), "ends too early"),
        (_parameter_message(7), "'k'.*unknown data type 7"),
        (_parameter_message(1, 5, 0, 1.0), "ends too early"),
        (_parameter_message(1, 5, 8), "'k'.*unknown type 8"),
        (_parameter_message(1, 5, 2, 3, 1.0, 2.0, 3.0), "'k'.*pairs.*3 numbers"),
        (_parameter_message(1, 5, 2, 0), "'k'.*pairs.*0 numbers"),
    ],
)
def test_a_malformed_parameter_is_an_error_that_names_the_channel(trainer, sides, payload, message):
    trainer.message_queue.append(payload)
    with pytest.raises(UnitySideChannelException, match=f"{trainer.channel_id}.*{message}"):
        sides.exchange()
    assert sides.parameters.get_with_default("k", 0.25) == 0.25


def test_statistics_reach_the_trainer_at_the_exchange():
    stats = StatsSideChannel()
    sides = EnvironmentSideChannels([stats])
    sides.add_stat("hits", 2.0, StatsAggregationMethod.SUM)
    sides.add_stat("time", 0.5)
    assert stats.get_and_reset_stats() == {}
    sides.exchange()
    assert stats.get_and_reset_stats() == {
        "hits": [(2.0, StatsAggregationMethod.SUM)],
        "time": [(0.5, StatsAggregationMethod.AVERAGE)],
    }
    sides.exchange()
    assert stats.get_and_reset_stats() == {}


def test_an_environment_may_talk_on_a_channel_of_its_own():
    trainer = RawBytesChannel(OWN_ID)
    sides = EnvironmentSideChannels([trainer])

    def answer(msg):
        reply = OutgoingMessage()
        reply.set_raw_bytes(msg.get_raw_bytes().upper())
        sides.send(OWN_ID, reply)

    sides.on_message(OWN_ID, answer)
    trainer.send_raw_data(b"ping")
    trainer.send_raw_data(b"pong")
    sides.exchange()
    assert trainer.get_and_clear_received_messages() == [b"PING", b"PONG"]


def test_what_nobody_listens_to_is_dropped_without_a_word(capsys):
    engine, own = EngineConfigurationChannel(), RawBytesChannel(OWN_ID)
    sides = EnvironmentSideChannels([engine, own])
    engine.set_configuration_parameters(time_scale=20.0)
    own.send_raw_data(b"hello")
    sides.add_stat("hits", 1.0)
    sides.exchange()
    assert engine.message_queue == own.message_queue == []
    assert capsys.readouterr() == ("", "")


def test_without_channels_an_exchange_does_nothing():
    sides = EnvironmentSideChannels()
    sides.add_stat("hits", 1.0)
    sides.exchange()
    assert sides.parameters.get_with_default("mass", 1.0) == 1.0


def test_channels_with_one_id_are_refused():
    with pytest.raises(UnitySideChannelException, match="same channel id"):
        EnvironmentSideChannels([RawBytesChannel(OWN_ID), RawBytesChannel(OWN_ID)])


def test_a_relay_carries_runs_of_messages_as_they_are():
    parameters, own, stats = EnvironmentParametersChannel(), RawBytesChannel(OWN_ID), StatsSideChannel()
    trainer, relay = SideChannelManager([parameters, own, stats]), SideChannelRelay()
    sides = EnvironmentSideChannels([relay])
    heard = []
    sides.on_message(OWN_ID, lambda msg: heard.append(msg.get_raw_bytes()))
    parameters.set_float_parameter("mass", 2.5)
    own.send_raw_data(b"ping")
    relay.receive_from_trainer(bytes(trainer.generate_side_channel_messages()))
    sides.add_stat("hits", 2.0, StatsAggregationMethod.SUM)
    reply = OutgoingMessage()
    reply.set_raw_bytes(b"pong")
    sides.send(OWN_ID, reply)
    assert relay.take_for_trainer() == b""
    sides.exchange()
    assert sides.parameters.get_with_default("mass", 1.0) == 2.5
    assert heard == [b"ping"]
    trainer.process_side_channel_message(relay.take_for_trainer())
    assert stats.get_and_reset_stats() == {"hits": [(2.0, StatsAggregationMethod.SUM)]}
    assert own.get_and_clear_received_messages() == [b"pong"]
    sides.exchange()
    assert (heard, relay.take_for_trainer()) == ([b"ping"], b"")


def test_a_relay_does_not_pile_up_what_an_environment_without_side_channels_leaves():
    relay = SideChannelRelay()
    for run in (b"one", b"two", b""):
        relay.receive_from_trainer(run)
        assert len(relay.message_queue) <= 1
    assert relay.generate_side_channel_messages() == b""


def test_a_malformed_run_through_a_relay_is_an_error():
    relay = SideChannelRelay()
    sides = EnvironmentSideChannels([relay])
    relay.receive_from_trainer(b"too short")
    with pytest.raises(UnitySideChannelException, match="break off"):
        sides.exchange()
