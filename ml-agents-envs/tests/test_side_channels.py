"""Side channels: byte layouts worked by hand, round trips, malformed messages."""

import struct
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlagents_envs.exception import UnitySideChannelException
from mlagents_envs.side_channel import IncomingMessage, OutgoingMessage, SideChannel
from mlagents_envs.side_channel.engine_configuration_channel import EngineConfig, EngineConfigurationChannel
from mlagents_envs.side_channel.environment_parameters_channel import EnvironmentParametersChannel
from mlagents_envs.side_channel.float_properties_channel import FloatPropertiesChannel
from mlagents_envs.side_channel.raw_bytes_channel import RawBytesChannel
from mlagents_envs.side_channel.side_channel_manager import SideChannelManager
from mlagents_envs.side_channel.stats_side_channel import StatsAggregationMethod, StatsSideChannel

ID_A = uuid.UUID("00112233-4455-6677-8899-aabbccddeeff")
ID_A_ON_THE_WIRE = bytes.fromhex("33221100 5544 7766 8899 aabbccddeeff")
ID_B = uuid.UUID(int=1)

ONE, TWO, MINUS_HALF = bytes.fromhex("0000803f"), bytes.fromhex("00000040"), bytes.fromhex("000000bf")  # float32


class ReadsInt(SideChannel):
    """A channel as users write them."""

    def __init__(self, channel_id=ID_A):
        super().__init__(channel_id)
        self.received = []

    def on_message_received(self, msg):
        self.received.append((msg.read_int32(), msg.read_float32(default_value=9.0)))


# Fields


@pytest.mark.parametrize(
    ("write", "value", "wire"),
    [
        ("bool", True, b"\x01"),
        ("bool", False, b"\x00"),
        ("int32", 258, b"\x02\x01\x00\x00"),
        ("int32", -2, b"\xfe\xff\xff\xff"),
        ("float32", -0.5, MINUS_HALF),
        ("float32_list", [1.0, 2.0], b"\x02\x00\x00\x00" + ONE + TWO),
        ("float32_list", [], b"\x00\x00\x00\x00"),
        ("string", "mass", b"\x04\x00\x00\x00mass"),
        ("string", "", b"\x00\x00\x00\x00"),
    ],
)
def test_layout_of_a_field(write, value, wire):
    msg = OutgoingMessage()
    getattr(msg, f"write_{write}")(value)
    assert bytes(msg.buffer) == wire
    assert getattr(IncomingMessage(wire), f"read_{write}")() == value


FIELDS = st.one_of(
    st.tuples(st.just("bool"), st.booleans()),
    st.tuples(st.just("int32"), st.integers(-(2**31), 2**31 - 1)),
    st.tuples(st.just("float32"), st.floats(width=32, allow_nan=False)),
    st.tuples(st.just("float32_list"), st.lists(st.floats(width=32, allow_nan=False))),
    st.tuples(st.just("string"), st.text(st.characters(max_codepoint=127))),
)


@given(st.lists(FIELDS))
def test_what_is_written_is_read(fields):
    outgoing = OutgoingMessage()
    for kind, value in fields:
        getattr(outgoing, f"write_{kind}")(value)
    incoming = IncomingMessage(bytes(outgoing.buffer)).strict()
    assert [(kind, getattr(incoming, f"read_{kind}")()) for kind, _ in fields] == fields
    assert incoming.offset == len(incoming.buffer)


@given(FIELDS, st.data())
def test_a_field_cut_short_is_an_error(field, data):
    kind, value = field
    outgoing = OutgoingMessage()
    getattr(outgoing, f"write_{kind}")(value)
    cut = data.draw(st.integers(0, len(outgoing.buffer) - 1))
    with pytest.raises(UnitySideChannelException, match="ends too early"):
        getattr(IncomingMessage(bytes(outgoing.buffer[:cut])).strict(), f"read_{kind}")()


@pytest.mark.parametrize(
    ("read", "plain", "default"),
    [("bool", False, True), ("int32", 0, 5), ("float32", 0.0, 1.5), ("float32_list", [], [1.0]), ("string", "", "x")],
)
def test_defaults_at_the_end_of_a_message(read, plain, default):
    msg = IncomingMessage(b"\x07\x00\x00\x00")
    assert msg.read_int32() == 7
    assert getattr(msg, f"read_{read}")() == plain
    assert getattr(msg, f"read_{read}")(default) == default


def test_reading_can_start_at_an_offset():
    assert IncomingMessage(b"xx" + TWO, 2).read_float32() == 2.0


@pytest.mark.parametrize("read", ["string", "float32_list"])
def test_a_negative_length_is_an_error(read):
    with pytest.raises(UnitySideChannelException, match="negative length -1"):
        getattr(IncomingMessage(b"\xff\xff\xff\xffabcd"), f"read_{read}")()


def test_a_string_that_is_no_text_is_an_error():
    with pytest.raises(UnitySideChannelException, match="not text"):
        IncomingMessage(b"\x01\x00\x00\x00\xff").read_string()


@pytest.mark.parametrize(
    ("write", "value", "shown"),
    [
        ("int32", 2**31, "2147483648"),
        ("int32", 1.5, "1.5"),
        ("float32", 1e39, r"1e\+39"),
        ("float32", "much", "'much'"),
        ("float32_list", [1.0, None], "None"),
        ("string", "größe", "ASCII.*'größe'"),
    ],
)
def test_a_value_that_does_not_fit_is_named(write, value, shown):
    with pytest.raises(UnitySideChannelException, match=shown):
        getattr(OutgoingMessage(), f"write_{write}")(value)


def test_raw_bytes_of_a_message():
    msg = OutgoingMessage()
    msg.set_raw_bytes(bytearray(b"abc"))
    assert bytes(msg.buffer) == b"abc"
    with pytest.raises(UnitySideChannelException, match="nothing is written"):
        msg.set_raw_bytes(b"d")
    incoming = IncomingMessage(b"\x01rest")
    incoming.read_bool()
    assert incoming.get_raw_bytes() == b"\x01rest"


# Channels


def test_engine_configuration_sends_one_message_per_setting():
    channel = EngineConfigurationChannel()
    assert channel.channel_id == uuid.UUID("e951342c-4f7e-11ea-b238-784f4387d1f7")
    channel.set_configuration(EngineConfig(80, 60, 3, 2.0, -1, 60))
    assert channel.message_queue == [
        b"\x00\x00\x00\x00" + b"\x50\x00\x00\x00" + b"\x3c\x00\x00\x00",
        b"\x01\x00\x00\x00" + b"\x03\x00\x00\x00",
        b"\x02\x00\x00\x00" + TWO,
        b"\x03\x00\x00\x00" + b"\xff\xff\xff\xff",
        b"\x04\x00\x00\x00" + b"\x3c\x00\x00\x00",
    ]


def test_engine_configuration_sends_only_what_is_given():
    channel = EngineConfigurationChannel()
    channel.set_configuration_parameters()
    assert channel.message_queue == []
    channel.set_configuration_parameters(quality_level=0, time_scale=1)
    assert channel.message_queue == [b"\x01" + bytes(7), b"\x02\x00\x00\x00" + ONE]


def test_engine_configuration_default_sets_everything():
    channel = EngineConfigurationChannel()
    channel.set_configuration(EngineConfig.default_config())
    assert [message[0] for message in channel.message_queue] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("half", [{"width": 80}, {"height": 80}])
def test_half_a_resolution_is_refused(half):
    channel = EngineConfigurationChannel()
    with pytest.raises(UnitySideChannelException, match=r"width=.* with height="):
        channel.set_configuration_parameters(**half, time_scale=2.0)
    assert channel.message_queue == []


def test_environment_parameters_layout():
    channel = EnvironmentParametersChannel()
    assert channel.channel_id == uuid.UUID("534c891e-810f-11ea-a9d0-822485860400")
    channel.set_float_parameter("g", 2.0)
    channel.set_uniform_sampler_parameters("g", -0.5, 1.0, seed=5)
    channel.set_gaussian_sampler_parameters("g", 1.0, 2.0, seed=-1)
    channel.set_multirangeuniform_sampler_parameters("g", [(1.0, 2.0), (-0.5, 1.0)], seed=5)
    key, seed = b"\x01\x00\x00\x00g", b"\x05\x00\x00\x00"
    as_float, as_sampler = b"\x00\x00\x00\x00", b"\x01\x00\x00\x00"
    assert channel.message_queue == [
        key + as_float + TWO,
        key + as_sampler + seed + b"\x00\x00\x00\x00" + MINUS_HALF + ONE,
        key + as_sampler + b"\xff\xff\xff\xff" + b"\x01\x00\x00\x00" + ONE + TWO,
        key + as_sampler + seed + b"\x02\x00\x00\x00" + b"\x04\x00\x00\x00" + ONE + TWO + MINUS_HALF + ONE,
    ]


@pytest.mark.parametrize("channel", [EngineConfigurationChannel(), EnvironmentParametersChannel()])
def test_channels_that_only_send_refuse_messages(channel):
    with pytest.raises(UnitySideChannelException, match="only sends"):
        channel.on_message_received(IncomingMessage(b""))


def test_stats_are_collected_until_taken():
    channel = StatsSideChannel()
    assert channel.channel_id == uuid.UUID("a1d8f7b7-cec8-50f9-b78b-d3e165a78520")
    for key, value, aggregation in ((b"hits", ONE, 2), (b"hits", TWO, 2), (b"time", MINUS_HALF, 0)):
        channel.on_message_received(IncomingMessage(b"\x04\x00\x00\x00" + key + value + bytes([aggregation, 0, 0, 0])))
    assert channel.get_and_reset_stats() == {
        "hits": [(1.0, StatsAggregationMethod.SUM), (2.0, StatsAggregationMethod.SUM)],
        "time": [(-0.5, StatsAggregationMethod.AVERAGE)],
    }
    assert channel.get_and_reset_stats() == {}


def test_aggregation_methods_on_the_wire():
    assert {m.name: m.value for m in StatsAggregationMethod} == {
        "AVERAGE": 0,
        "MOST_RECENT": 1,
        "SUM": 2,
        "HISTOGRAM": 3,
    }


def test_unknown_aggregation_lists_what_there_is():
    with pytest.raises(UnitySideChannelException, match=r"'a'.*unknown aggregation 9.*3 \(HISTOGRAM\)"):
        StatsSideChannel().on_message_received(IncomingMessage(b"\x01\x00\x00\x00a" + ONE + b"\x09\x00\x00\x00"))


def test_float_properties():
    channel = FloatPropertiesChannel()
    assert channel.channel_id == uuid.UUID("60ccf7d0-4f7e-11ea-b238-784f4387d1f7")
    assert FloatPropertiesChannel(ID_A).channel_id == ID_A
    channel.set_property("a", 2.0)
    assert channel.message_queue == [b"\x01\x00\x00\x00a" + TWO]
    channel.on_message_received(IncomingMessage(b"\x01\x00\x00\x00b" + ONE))
    assert (channel.get_property("a"), channel.get_property("b"), channel.get_property("c")) == (2.0, 1.0, None)
    assert channel.list_properties() == ["a", "b"]
    copy = channel.get_property_dict_copy()
    copy["a"] = 0.0
    assert channel.get_property("a") == 2.0


def test_raw_bytes_channel():
    channel = RawBytesChannel(ID_A)
    channel.send_raw_data(b"ping")
    assert channel.message_queue == [b"ping"]
    for payload in (b"one", b""):
        channel.on_message_received(IncomingMessage(payload))
    assert channel.get_and_clear_received_messages() == [b"one", b""]
    assert channel.get_and_clear_received_messages() == []


def test_a_queued_message_is_not_changed_afterwards():
    channel, msg = ReadsInt(), OutgoingMessage()
    msg.write_int32(1)
    channel.queue_message_to_send(msg)
    msg.write_int32(2)
    assert channel.message_queue == [b"\x01\x00\x00\x00"]


# The manager


def test_messages_are_framed_and_sent_once():
    first, second = RawBytesChannel(ID_A), RawBytesChannel(ID_B)
    second.send_raw_data(b"xyz")
    first.send_raw_data(b"a")
    first.send_raw_data(b"")
    manager = SideChannelManager([first, second])
    assert bytes(manager.generate_side_channel_messages()) == (
        ID_A_ON_THE_WIRE
        + b"\x01\x00\x00\x00a"
        + ID_A_ON_THE_WIRE
        + b"\x00\x00\x00\x00"
        + b"\x00" * 15
        + b"\x01"
        + b"\x03\x00\x00\x00xyz"
    )
    assert manager.generate_side_channel_messages() == b""


def test_engine_settings_as_ml_agents_1_1_0_sent_them():
    """Bytes recorded from its trainer: 84 x 84, quality 5, time scale 20, no target frame rate, capture at 60."""
    channel = EngineConfigurationChannel()
    channel.set_configuration_parameters(84, 84, 5, 20.0, -1, 60)
    assert SideChannelManager([channel]).generate_side_channel_messages() == bytes.fromhex(
        "2c3451e97e4fea11b238784f4387d1f7 0c000000 000000005400000054000000"
        "2c3451e97e4fea11b238784f4387d1f7 08000000 0100000005000000"
        "2c3451e97e4fea11b238784f4387d1f7 08000000 020000000000a041"
        "2c3451e97e4fea11b238784f4387d1f7 08000000 03000000ffffffff"
        "2c3451e97e4fea11b238784f4387d1f7 08000000 040000003c000000"
    )


def test_messages_reach_their_channel():
    channel, other = ReadsInt(), RawBytesChannel(ID_B)
    data = ID_A_ON_THE_WIRE + b"\x08\x00\x00\x00" + b"\x05\x00\x00\x00" + ONE
    data += ID_A_ON_THE_WIRE + b"\x04\x00\x00\x00" + b"\x06\x00\x00\x00"
    SideChannelManager([other, channel]).process_side_channel_message(data)
    assert channel.received == [(5, 1.0), (6, 9.0)]
    assert other.get_and_clear_received_messages() == []


@given(st.lists(st.tuples(st.sampled_from([ID_A, ID_B]), st.binary(max_size=40)), max_size=8))
def test_one_manager_reads_what_the_other_wrote(messages):
    senders = {channel_id: RawBytesChannel(channel_id) for channel_id in (ID_A, ID_B)}
    receivers = {channel_id: RawBytesChannel(channel_id) for channel_id in (ID_A, ID_B)}
    for channel_id, payload in messages:
        senders[channel_id].send_raw_data(payload)
    data = SideChannelManager(list(senders.values())).generate_side_channel_messages()
    SideChannelManager(list(receivers.values())).process_side_channel_message(bytes(data))
    for channel_id, receiver in receivers.items():
        sent = [payload for to, payload in messages if to == channel_id]
        assert receiver.get_and_clear_received_messages() == sent


def test_an_unknown_channel_is_warned_about_once_and_skipped(capsys):
    channel = RawBytesChannel(ID_B)
    manager = SideChannelManager([channel])
    known = b"\x00" * 15 + b"\x01" + b"\x01\x00\x00\x00k"
    for _ in range(2):
        manager.process_side_channel_message(ID_A_ON_THE_WIRE + b"\x02\x00\x00\x00??" + known)
    assert channel.get_and_clear_received_messages() == [b"k", b"k"]
    out = capsys.readouterr().out
    assert out.count("[WARNING]") == 1
    assert str(ID_A) in out


@pytest.mark.parametrize("cut", [1, 15, 16, 19, 20, 23])
def test_data_that_break_off_are_an_error(cut):
    data = ID_A_ON_THE_WIRE + b"\x04\x00\x00\x00" + b"\x05\x00\x00\x00"
    with pytest.raises(UnitySideChannelException, match="break off inside a") as error:
        SideChannelManager([ReadsInt()]).process_side_channel_message(data[:cut])
    if cut >= 20:  # the id is known by then
        assert f"ReadsInt ({ID_A})" in str(error.value)


def test_a_negative_frame_length_is_an_error():
    with pytest.raises(UnitySideChannelException, match=rf"ReadsInt \({ID_A}\).*-1"):
        SideChannelManager([ReadsInt()]).process_side_channel_message(ID_A_ON_THE_WIRE + struct.pack("<i", -1))


@pytest.mark.parametrize(
    "payload",
    [b"", b"\x01\x00\x00\x00", b"\x01\x00\x00\x00a", b"\x01\x00\x00\x00a" + ONE, b"\x01\x00\x00\x00a" + ONE + b"\x00"],
)
def test_a_short_payload_is_an_error_that_names_the_channel(payload):
    data = StatsSideChannel.CHANNEL_ID.bytes_le + struct.pack("<i", len(payload)) + payload
    channel = StatsSideChannel()
    with pytest.raises(UnitySideChannelException, match=r"StatsSideChannel \(a1d8f7b7-.*ends too early"):
        SideChannelManager([channel]).process_side_channel_message(data)
    assert channel.get_and_reset_stats() == {}


def test_two_channels_with_one_id_are_refused():
    with pytest.raises(UnitySideChannelException, match=rf"ReadsInt \({ID_A}\) and RawBytesChannel have the same"):
        SideChannelManager([ReadsInt(), RawBytesChannel(ID_A)])


def test_no_channels_at_all():
    manager = SideChannelManager()
    manager.process_side_channel_message(b"")
    assert manager.generate_side_channel_messages() == b""
