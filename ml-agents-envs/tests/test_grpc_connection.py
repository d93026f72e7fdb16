"""The server's end of a connection, against the client of h2, which is strict about every frame."""

import gzip
import zlib

import h2.config
import h2.connection
import h2.events
import h2.settings
import numpy as np
import pytest
from h2_peer import PIECES, Peer, framed, of_size
from hypothesis import given, settings

from mlagents_envs.wire import http2
from mlagents_envs.wire.grpc_connection import GrpcServerConnection, Status
from mlagents_envs.wire.http2 import ProtocolError

HEADERS = [
    (":method", "POST"),
    (":scheme", "http"),
    (":path", "/communicator_objects.UnityToExternalProto/Exchange"),
    (":authority", "localhost"),
    ("te", "trailers"),
    ("content-type", "application/grpc"),
]
HEAD_OF_ANSWER = b"\x00\x00\x14\x01\x04\x00\x00\x00\x01\x88\x0f\x10\x10application/grpc"
N_FUZZED = 20_000


class Client(Peer):
    """A client of h2's, and the server's end."""

    def __init__(self, chunk=10**9, **client_settings):
        self.server = GrpcServerConnection()
        self.takes_all = True  # and so gives room for more
        self.bodies, self.headers, self.ended, self.others = {}, {}, set(), []
        super().__init__(self.server, chunk, is_client=True, **client_settings)

    def request(self, body, end=True, headers=(), **how):
        stream = self.h2.get_next_available_stream_id()
        self.h2.send_headers(stream, HEADERS + list(headers))
        self.send(stream, body, end, **how)
        return stream

    def send(self, stream, body, end=True, **how):
        while True:
            size = min(len(body), self.h2.local_flow_control_window(stream) - 10, self.h2.max_outbound_frame_size - 10)
            last = size == len(body)
            self.h2.send_data(stream, body[:size], end_stream=last and end, **how)
            body = body[size:]
            self.talk()
            if last:
                return

    def note(self, event):
        if isinstance(event, h2.events.DataReceived):
            self.bodies[event.stream_id] = self.bodies.get(event.stream_id, b"") + event.data
            if self.takes_all:
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, (h2.events.ResponseReceived, h2.events.TrailersReceived)):
            self.headers.setdefault(event.stream_id, {}).update(event.headers)
        elif isinstance(event, h2.events.StreamEnded):
            self.ended.add(event.stream_id)
        else:
            self.others.append(event)

    def answered(self, stream, message):
        """Let the server answer, and return what the client got of it."""
        self.server.answer(stream, message)
        self.talk()
        return self.bodies[stream]


@settings(max_examples=200, deadline=None)
@given(**PIECES)
def test_messages_arrive_as_they_were_sent_whatever_the_pieces(sizes, chunk, window, frame_size):
    client = Client(chunk, INITIAL_WINDOW_SIZE=window, MAX_FRAME_SIZE=frame_size)
    for there, back in sizes:
        back = min(back, 500 * window)  # a frame for each window
        stream = client.request(framed(of_size(there)))
        assert client.server.requests.popleft() == (stream, of_size(there))
        assert client.server.is_open(stream)
        assert client.answered(stream, of_size(back, 1)) == framed(of_size(back, 1))
        assert not client.server.is_open(stream)
        assert stream in client.ended
        assert client.headers[stream] == {
            b":status": b"200",
            b"content-type": b"application/grpc",
            b"grpc-status": b"0",
        }
    assert not client.server.requests


def test_an_answer_waits_until_the_client_has_room():
    client = Client(INITIAL_WINDOW_SIZE=12)
    client.takes_all = False
    stream = client.request(framed(b"how much?"))
    assert client.answered(stream, b"0123456789") == framed(b"0123456789")[:12]
    assert client.server.is_sending
    assert client.server.is_open(stream)
    client.h2.increment_flow_control_window(2, stream)
    client.talk()
    assert client.bodies[stream] == framed(b"0123456789")[:14]
    assert stream not in client.ended
    client.h2.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 13})
    client.talk()
    assert client.bodies[stream] == framed(b"0123456789")
    assert stream in client.ended
    assert not client.server.is_sending


def test_only_the_first_answer_counts():
    client = Client(INITIAL_WINDOW_SIZE=12)
    client.takes_all = False
    stream = client.request(framed(b"well?"))
    client.answered(stream, b"0123456789")
    client.server.answer(stream, b"no, wait")
    client.h2.increment_flow_control_window(100, stream)
    client.talk()
    assert client.bodies[stream] == framed(b"0123456789")
    client.server.answer(stream, b"too late")
    assert not client.server.outgoing


def test_frames_are_no_larger_than_a_frame_can_be():
    settings = b"\x00\x00\x0c\x04\x00\x00\x00\x00\x00" + b"\x00\x05\xff\xff\xff\xff" + b"\x00\x04\x7f\xff\xff\xff"
    room = b"\x00\x00\x04\x08\x00\x00\x00\x00\x00\x7f\x00\x00\x00"
    headers, body = b"\x00\x00\x00\x01\x04\x00\x00\x00\x01", b"\x00\x00\x05\x00\x01\x00\x00\x00\x01" + framed(b"")
    server = GrpcServerConnection()
    server.receive(http2.PREFACE + settings + room + headers + body)
    server.outgoing.clear()
    server.answer(1, bytes(2**24))
    head_of_first = server.outgoing[len(HEAD_OF_ANSWER) :][:9]
    assert head_of_first == b"\xff\xff\xff\x00\x00\x00\x00\x00\x01"


@pytest.mark.parametrize("size", [0, 100])
def test_a_table_of_headers_that_is_smaller_than_usual_is_confirmed(size):
    client = Client(HEADER_TABLE_SIZE=size)
    for _ in range(2):
        stream = client.request(framed(b"ask"))
        assert client.answered(stream, b"answer") == framed(b"answer")
        assert client.headers[stream][b"grpc-status"] == b"0"


def test_the_connection_has_a_window_of_its_own():
    client = Client(INITIAL_WINDOW_SIZE=2**20)
    client.takes_all = False
    stream = client.request(framed(b""))
    assert client.answered(stream, bytes(70_000)) == framed(bytes(70_000))[: 2**16 - 1]
    client.h2.increment_flow_control_window(2**20)
    client.talk()
    assert client.bodies[stream] == framed(bytes(70_000))


def test_the_clients_own_window_is_refilled(monkeypatch):
    monkeypatch.setattr(http2, "_WINDOW_REFILL", 50_000)
    client = Client()
    assert client.h2.outbound_flow_control_window == 2**31 - 1
    for _ in range(10):
        client.request(framed(bytes(20_000)))
        assert client.h2.outbound_flow_control_window > 2**31 - 1 - 50_000 - 20_010


def test_padding_and_headers_in_several_frames_are_left_out():
    client = Client()
    stream = client.request(framed(b"padded"), headers=[("long", "x" * 40_000)], pad_length=9)
    client.request(b"", pad_length=0)
    assert client.server.requests.popleft() == (stream, b"padded")


def test_trailers_may_end_a_request():
    client = Client()
    stream = client.request(framed(b"asked"), end=False)
    assert not client.server.requests
    client.h2.send_headers(stream, [("checksum", "1")], end_stream=True)
    client.talk()
    assert client.server.requests.popleft() == (stream, b"asked")


@pytest.mark.parametrize("compress", [gzip.compress, zlib.compress])
def test_a_compressed_message_is_decompressed(compress):
    client = Client()
    client.request(framed(compress(b"abc" * 100), compressed=1))
    assert client.server.requests.popleft().message == b"abc" * 100


@pytest.mark.parametrize(
    "body",
    [b"", b"\x00\x00", framed(b"short")[:-1], framed(b"long") + b"!", framed(b"not compressed", 1), framed(b"", 1)],
)
def test_a_request_that_is_not_one_message_is_refused(body):
    client = Client()
    stream = client.request(body)
    assert not client.server.requests
    assert not client.server.is_open(stream)
    assert client.headers[stream][b"grpc-status"] == b"13"
    assert client.headers[stream][b"grpc-message"] == b"The request is not one whole message."
    assert client.request(framed(b"better")) == client.server.requests.popleft().call


def test_a_refusal_carries_its_reason():
    client = Client()
    stream = client.request(framed(b"me too"))
    client.server.refuse(stream, Status.FAILED_PRECONDITION, "50% of 'ü', no more.\n")
    client.server.refuse(stream, Status.INTERNAL, "again")
    client.talk()
    assert client.headers[stream][b"grpc-status"] == b"9"
    assert client.headers[stream][b"grpc-message"] == b"50%25 of '%C3%BC', no more.%0A"
    assert stream in client.ended


def test_a_call_that_the_client_ends_is_over():
    client = Client(INITIAL_WINDOW_SIZE=2)
    client.takes_all = False
    stream = client.request(framed(b"never mind"))
    client.answered(stream, b"too long")
    client.h2.reset_stream(stream)
    begun = client.request(framed(b"never")[:3], end=False)
    client.h2.reset_stream(begun)
    client.talk()
    client.server.answer(stream, b"nobody listens")
    assert not client.server.is_sending
    assert not client.server.outgoing
    assert not client.server.is_open(begun)


def test_a_ping_is_answered():
    client = Client()
    client.h2.ping(b"12345678")
    client.talk()
    assert [event.ping_data for event in client.others if isinstance(event, h2.events.PingAckReceived)] == [b"12345678"]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"GET / HTTP/1.1\r\n", "HTTP/2"),
        (http2.PREFACE + b"\xff\xff\xff\x00\x00\x00\x00\x00\x01", "frame of 16777215 bytes"),
        (http2.PREFACE + b"\x00\x00\x02\x04\x00\x00\x00\x00\x00ab", "half a setting"),
        (http2.PREFACE + b"\x00\x00\x02\x08\x00\x00\x00\x00\x01ab", "half a window update"),
        (http2.PREFACE + 2 * b"\x00\x00\x00\x01\x00\x00\x00\x00\x01", "headers are not in one piece"),
        (http2.PREFACE + b"\x00\x00\x00\x09\x04\x00\x00\x00\x01", "headers are not in one piece"),
        (http2.PREFACE + b"\x00\x00\x00\x01\x04\x00\x00\x00\x00", "headers of no call"),
        (
            http2.PREFACE + b"\x00\x00\x00\x01\x04\x00\x00\x00\x01\x00\x00\x01\x00\x08\x00\x00\x00\x01\x01",
            "padding",
        ),
    ],
)
def test_nonsense_is_an_error_that_says_what_it_is(data, reason):
    with pytest.raises(ProtocolError, match=reason):
        GrpcServerConnection().receive(data)


def test_whatever_the_bytes_there_is_a_result_or_an_error():
    recorded = bytearray()
    client = Client()
    client.server.receive = lambda data: recorded.extend(data)
    client.h2.ping(b"12345678")
    client.request(framed(b"one message"), pad_length=3)
    client.h2.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 7})
    stream = client.request(framed(b"another"), end=False)
    client.h2.increment_flow_control_window(100, stream)
    client.h2.reset_stream(stream)
    client.talk()
    rng, n_understood = np.random.default_rng(0), 0
    for _ in range(N_FUZZED):
        broken, server = bytearray(recorded), GrpcServerConnection()
        for at in rng.integers(len(broken), size=rng.integers(1, 4)):
            broken[at] = rng.integers(256)
        try:
            server.receive(http2.PREFACE + broken)
        except ProtocolError:
            continue
        n_understood += 1
        for call, message in server.requests:
            server.answer(call, message)
    assert N_FUZZED / 10 < n_understood < N_FUZZED
