"""The client's end of a connection, against the server of h2, which is strict about every frame."""

import gzip
from functools import partial

import h2.config
import h2.connection
import h2.events
import h2.settings
import numpy as np
import pytest
from h2_peer import PIECES, Peer, framed, of_size
from hypothesis import given, settings, strategies

from mlagents_envs.wire import http2
from mlagents_envs.wire.grpc_connection import GrpcClientConnection, Response, Status
from mlagents_envs.wire.http2 import ProtocolError

RESPONSE = [(":status", "200"), ("content-type", "application/grpc")]
N_FUZZED = 20_000


class Server(Peer):
    """A server of h2's, and the client's end."""

    def __init__(self, chunk=10**9, huffman=False, **server_settings):
        self.client = GrpcClientConnection("127.0.0.1:5005", "/service/method")
        self.headers, self.bodies, self.ended = {}, {}, []
        super().__init__(self.client, chunk, is_client=False, **server_settings)
        self.h2.encoder.encode = partial(self.h2.encoder.encode, huffman=huffman)

    def note(self, event):
        if isinstance(event, h2.events.RequestReceived):
            self.headers[event.stream_id] = event.headers
        elif isinstance(event, h2.events.DataReceived):
            self.bodies[event.stream_id] = self.bodies.get(event.stream_id, b"") + event.data
            self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, h2.events.StreamEnded):
            self.ended.append(event.stream_id)

    def get(self, message=b""):
        """Let the client call; return the call's number."""
        self.client.call(message)
        self.talk()
        return self.ended.pop()

    def answer(self, call, body, trailers=(("grpc-status", "0"),)):
        self.h2.send_headers(call, RESPONSE)
        while body:
            size = min(len(body), self.h2.local_flow_control_window(call), self.h2.max_outbound_frame_size)
            self.h2.send_data(call, body[:size])
            body = body[size:]
            self.talk()
        self.h2.send_headers(call, trailers, end_stream=True)
        self.talk()
        return self.client.response


@settings(max_examples=200, deadline=None)
@given(**PIECES, huffman=strategies.booleans())
def test_messages_arrive_as_they_were_sent_whatever_the_pieces(sizes, chunk, window, frame_size, huffman):
    server = Server(chunk, huffman, INITIAL_WINDOW_SIZE=window, MAX_FRAME_SIZE=frame_size)
    for there, back in sizes:
        there = min(there, 500 * window)  # a frame for each window
        call = server.get(of_size(there))
        assert server.bodies[call] == framed(of_size(there))
        assert server.client.response is None
        assert server.answer(call, framed(of_size(back, 1))) == Response(Status.OK, of_size(back, 1))


def test_a_call_names_its_method_and_speaks_grpc():
    server = Server()
    assert dict(server.headers[server.get()]) == {
        b":method": b"POST",
        b":scheme": b"http",
        b":path": b"/service/method",
        b":authority": b"127.0.0.1:5005",
        b"te": b"trailers",
        b"content-type": b"application/grpc",
    }


@pytest.mark.parametrize("size", [0, 100])
def test_a_table_of_headers_that_is_smaller_than_usual_is_confirmed(size):
    server = Server(HEADER_TABLE_SIZE=size)
    for _ in range(2):
        assert server.answer(server.get(), framed(b"answer")) == Response(Status.OK, b"answer")


def test_a_server_has_shown_itself_with_its_settings():
    client = GrpcClientConnection("a", "/b/c")
    assert not client.has_server
    client.receive(b"\x00\x00\x00\x04\x01\x00\x00\x00\x00")  # which only confirms the client's
    assert not client.has_server
    client.receive(b"\x00\x00\x00\x04\x00\x00\x00\x00\x00")
    assert client.has_server


def test_a_compressed_answer_is_decompressed():
    server = Server()
    answer = server.answer(server.get(), framed(gzip.compress(b"abc" * 100), compressed=1))
    assert answer == Response(Status.OK, b"abc" * 100)


@pytest.mark.parametrize("body", [b"", framed(b"short")[:-1], framed(b"long") + b"!", framed(b"not compressed", 1)])
def test_an_answer_that_is_not_one_message_is_an_error(body):
    server = Server()
    assert server.answer(server.get(), body).status is Status.INTERNAL
    assert server.answer(server.get(), framed(b"better")).message == b"better"


REFUSAL = [*RESPONSE, ("grpc-status", "9"), ("grpc-message", "50%25 of '%C3%BC'")]


@pytest.mark.parametrize(
    ("headers", "huffman", "response"),
    [
        (REFUSAL, False, Response(Status.FAILED_PRECONDITION, reason="50% of 'ü'")),
        (REFUSAL, True, Response(Status.UNKNOWN)),
        ([*REFUSAL[:3], ("long", "x" * 40_000), *REFUSAL[3:]], False, Response(Status(9), reason="50% of 'ü'")),
        ([*RESPONSE, ("grpc-status", "99")], False, Response(Status.UNKNOWN)),
        ([*RESPONSE, ("grpc-status", "zero")], False, Response(Status.UNKNOWN)),
        ([(":status", "502")], False, Response(Status.UNKNOWN)),
    ],
)
def test_a_refusal_says_why(headers, huffman, response):
    server = Server(huffman=huffman)
    for _ in range(2):
        call = server.get(b"please")
        server.h2.send_headers(call, headers, end_stream=True)
        server.talk()
        assert server.client.response == response
    assert server.answer(server.get(), framed(b"yes")) == Response(Status.OK, b"yes")


def test_what_is_refused_after_all_is_not_answered():
    server = Server()
    trailers = [("grpc-status", "13"), ("grpc-message", "changed my mind")]
    assert server.answer(server.get(), framed(b"yes"), trailers) == Response(Status.INTERNAL, reason="changed my mind")


def test_a_call_that_is_refused_before_it_is_sent_stops_there():
    server = Server(INITIAL_WINDOW_SIZE=10)
    server.h2.acknowledge_received_data = lambda *_: None  # so that there never is more room
    server.client.call(b"0123456789")
    server.talk()
    assert server.client.is_sending
    (call,) = server.headers
    server.h2.send_headers(call, REFUSAL, end_stream=True)
    server.talk()
    assert server.client.response.status is Status.FAILED_PRECONDITION
    assert not server.client.is_sending


def test_a_call_that_the_server_breaks_off_is_cancelled():
    server = Server()
    server.h2.reset_stream(server.get())
    server.talk()
    assert server.client.response == Response(Status.CANCELLED)
    assert server.answer(server.get(), framed(b"again")) == Response(Status.OK, b"again")


def test_what_comes_of_a_call_that_is_over_is_passed_over():
    server = Server()
    first = server.get()
    server.client.receive(b"\x00\x00\x04\x03\x00\x00\x00\x00\x01\x00\x00\x00\x08")  # the first is broken off
    second = server.get()
    server.answer(first, framed(b"late"))
    assert server.client.response is None
    assert server.answer(second, framed(b"in time")) == Response(Status.OK, b"in time")


def test_a_server_may_announce_that_it_goes():
    server = Server()
    assert not server.client.is_ending
    server.h2.close_connection()
    server.talk()
    assert server.client.is_ending


def test_numbers_of_calls_come_to_an_end():
    client = GrpcClientConnection("a", "/b/c")
    client._call = 2**31 - 5
    client.call(b"")
    assert not client.is_ending
    client.call(b"")
    assert client.is_ending


def test_padding_and_priorities_of_headers_are_left_out():
    server = Server()
    server.get()
    trailers = b"\x00\x0bgrpc-status\x019\x40\x0cgrpc-message\x02no" + b"\x20" + b"\x0f\x10\x01x" + b"\x00\x00\x00"
    payload = b"\x02" + b"\x80\x00\x00\x00\x07" + trailers + b"\x00\x00"
    server.client.receive(bytes([0, 0, len(payload), 1, 0x4 | 0x1 | 0x8 | 0x20, 0, 0, 0, 1]) + payload)
    assert server.client.response == Response(Status.FAILED_PRECONDITION, reason="no")


def _headers(block):
    return bytes([0, 0, len(block), 1, 5, 0, 0, 0, 1]) + block


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n", "frame of 4740180 bytes"),
        (_headers(b"\x00\x05ab"), "half a header"),
        (_headers(b"\x00"), "half a header"),
        (_headers(b"\x00\x01a\x7f\x80"), "half a header"),
        (_headers(b"\x00\x01a\x7f" + b"\xff" * 20), "half a header"),
        (b"\x00\x00\x01\x01\x0c\x00\x00\x00\x01\x01", "padding"),
        (b"\x00\x00\x00\x01\x04\x00\x00\x00\x00", "headers of no call"),
    ],
)
def test_nonsense_is_an_error_that_says_what_it_is(data, reason):
    server = Server()
    server.get()
    with pytest.raises(ProtocolError, match=reason):
        server.client.receive(data)


def test_a_window_that_is_used_up_is_refilled(monkeypatch):
    monkeypatch.setattr(http2, "_WINDOW_REFILL", 50_000)
    server = Server()
    assert server.h2.outbound_flow_control_window == 2**31 - 1
    for _ in range(10):
        server.answer(server.get(), framed(bytes(20_000)))
        assert server.h2.outbound_flow_control_window > 2**31 - 1 - 50_000 - 20_010


def test_whatever_the_bytes_there_is_a_result_or_an_error():
    server = Server()
    server.answer(server.get(), framed(b"one message"))
    server.h2.send_headers(server.get(), [*REFUSAL, ("long", "x" * 200)], end_stream=True)
    server.h2.ping(b"12345678")
    server.h2.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 7})
    server.talk()
    rng, statuses, n_understood = np.random.default_rng(0), set(), 0
    for _ in range(N_FUZZED):
        broken, client = bytearray(server.sent), GrpcClientConnection("a", "/b/c")
        client.call(b"one")
        for at in rng.integers(len(broken), size=rng.integers(1, 4)):
            broken[at] = rng.integers(256)
        try:
            client.receive(broken)
        except ProtocolError:
            continue
        n_understood += 1
        if client.response is not None:
            statuses.add(client.response.status)
    assert N_FUZZED / 10 < n_understood < N_FUZZED
    assert {Status.OK, Status.INTERNAL, Status.UNKNOWN} <= statuses
