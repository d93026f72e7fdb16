"""The server's end of a gRPC connection with unary calls, as bytes in and bytes out.

It is what a unary call needs of HTTP/2 (RFC 9113) and of gRPC's protocol on it ("gRPC over HTTP2" in the documentation
of gRPC), and no more. Only one method is served, and nothing in the headers of a call changes the answer; so header
blocks are skipped, and of HPACK (RFC 7541) a few constant blocks are left.
"""

from __future__ import annotations

import struct
import zlib
from collections import deque
from typing import Deque, Dict, NamedTuple
from urllib.parse import quote

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
"""What a client of HTTP/2 begins with."""

_DATA, _HEADERS, _RST_STREAM, _SETTINGS, _PING, _WINDOW_UPDATE, _CONTINUATION = 0, 1, 3, 4, 6, 8, 9
_END_STREAM, _ACK, _END_HEADERS, _PADDED = 0x1, 0x1, 0x4, 0x8
_INITIAL_WINDOW_SIZE, _MAX_FRAME_SIZE = 4, 5  # settings
_FRAME = struct.Struct(">BHBBI")  # the length in two parts, type, flags, stream
_MESSAGE = struct.Struct(">BI")  # gRPC's: whether it is compressed, and the length

_LARGEST_WINDOW = 2**31 - 1
_DEFAULT_WINDOW = 2**16 - 1
_DEFAULT_FRAME_SIZE = 2**14
_LARGEST_FRAME_SIZE = 2**24 - 1
_OUR_FRAME_SIZE = 2**20
_WINDOW_REFILL = 2**30

_RESPONSE = b"\x88\x0f\x10\x10application/grpc"  # `:status: 200`, `content-type`
_STATUS = b"\x00\x0bgrpc-status"
_TRAILERS = _STATUS + b"\x010"
INTERNAL, FAILED_PRECONDITION = 13, 9
"""Statuses of gRPC."""


class ProtocolError(Exception):
    """What came is not HTTP/2, or not as gRPC uses it: the connection is of no use any more."""


class Request(NamedTuple):
    """A client's message.

    :param call: to be named in the answer.
    """

    call: int
    message: bytes


class GrpcConnection:
    """Takes in what a client sends, and gives out its requests and what is to be sent to it.

    Neither end is ever held up by flow control on the client's side: its window is kept as large as can be. What the
    client has no room for waits here.

    :ivar outgoing: to be sent, and then cleared by whoever has sent it.
    :ivar requests: the messages that have come, in order; to be taken away.
    """

    def __init__(self) -> None:
        settings = struct.pack(">HIHI", _INITIAL_WINDOW_SIZE, _LARGEST_WINDOW, _MAX_FRAME_SIZE, _OUR_FRAME_SIZE)
        self.outgoing = bytearray(_frame(_SETTINGS, 0, 0, settings) + _refill(_LARGEST_WINDOW - _DEFAULT_WINDOW))
        self.requests: Deque[Request] = deque()
        self._incoming = bytearray()
        self._has_preface = False
        self._in_header_block = False
        self._bodies: Dict[int, bytearray] = {}  # by call: of requests that have begun
        self._open: Dict[int, int] = {}  # by call that is not over: how much of an answer the client takes
        self._answers: Dict[int, memoryview] = {}  # by call: what is still to be sent of it
        self._window = _DEFAULT_WINDOW
        self._initial_window = _DEFAULT_WINDOW
        self._frame_size = _DEFAULT_FRAME_SIZE
        self._consumed = 0

    def is_open(self, call: int) -> bool:
        """Return whether a call waits for its answer, as far as is known."""
        return call in self._open

    @property
    def is_sending(self) -> bool:
        """Whether an answer waits for the client to have room."""
        return bool(self._answers)

    def answer(self, call: int, message: bytes) -> None:
        """End a call with a message; one that is over, or has an answer on its way, stays so."""
        if call not in self._open or call in self._answers:
            return
        self.outgoing += _frame(_HEADERS, _END_HEADERS, call, _RESPONSE)
        self._answers[call] = memoryview(_MESSAGE.pack(0, len(message)) + message)
        self._send_answers()

    def refuse(self, call: int, status: int, reason: str) -> None:
        """End a call with an error.

        :param status: gRPC's number, not 0.
        """
        if self._open.pop(call, None) is None:
            return
        code, text = str(status).encode(), quote(reason, safe=" ,:;()'!").encode()[:100]
        trailers = _RESPONSE + _STATUS + bytes([len(code)]) + code
        trailers += b"\x00\x0cgrpc-message" + bytes([len(text)]) + text
        self.outgoing += _frame(_HEADERS, _END_HEADERS | _END_STREAM, call, trailers)

    def receive(self, data: bytes | memoryview) -> None:
        """Take in what has come, whatever part of whatever it is.

        :raises ProtocolError: it makes no sense.
        """
        incoming = self._incoming
        incoming += data
        if not self._has_preface:
            if incoming[: len(PREFACE)] != PREFACE[: len(incoming)]:
                raise ProtocolError("it does not speak HTTP/2")
            if len(incoming) < len(PREFACE):
                return
            del incoming[: len(PREFACE)]
            self._has_preface = True
        start = 0
        while len(incoming) - start >= _FRAME.size:
            high, low, kind, flags, stream = _FRAME.unpack_from(incoming, start)
            length = high << 16 | low
            if length > _OUR_FRAME_SIZE:
                raise ProtocolError(f"it sent a frame of {length} bytes")
            end = start + _FRAME.size + length
            if end > len(incoming):
                break
            self._take(kind, flags, stream & _LARGEST_WINDOW, bytes(memoryview(incoming)[start + _FRAME.size : end]))
            start = end
        del incoming[:start]

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        """Take in a frame. Kinds that are not named here say nothing that matters."""
        if self._in_header_block != (kind == _CONTINUATION):
            raise ProtocolError("its headers are not in one piece")
        if kind == _DATA:
            self._take_data(flags, stream, payload)
        elif kind in (_HEADERS, _CONTINUATION):
            self._in_header_block = not flags & _END_HEADERS
            if kind == _HEADERS:
                self._take_headers(flags, stream)
        elif kind == _RST_STREAM:
            for calls in (self._bodies, self._open, self._answers):
                calls.pop(stream, None)
        elif kind == _SETTINGS and not flags & _ACK:
            self._take_settings(payload)
        elif kind == _PING and not flags & _ACK:
            self.outgoing += _frame(_PING, _ACK, 0, payload)
        elif kind == _WINDOW_UPDATE:
            self._take_window_update(stream, payload)

    def _take_headers(self, flags: int, stream: int) -> None:
        if not stream:
            raise ProtocolError("it sent headers of no call")
        if stream not in self._open:  # else they are trailers
            self._bodies[stream], self._open[stream] = bytearray(), self._initial_window
        if flags & _END_STREAM:
            self._end_request(stream)

    def _take_data(self, flags: int, stream: int, payload: bytes) -> None:
        self._consumed += len(payload)
        if self._consumed >= _WINDOW_REFILL:
            self.outgoing += _refill(self._consumed)
            self._consumed = 0
        body = self._bodies.get(stream)
        if body is None:  # of a call that is over
            return
        if flags & _PADDED:
            if not payload or payload[0] >= len(payload):
                raise ProtocolError("it sent more padding than there is room for")
            payload = payload[1 : len(payload) - payload[0]]
        body += payload
        if flags & _END_STREAM:
            self._end_request(stream)

    def _end_request(self, stream: int) -> None:
        body = self._bodies.pop(stream, None)
        if body is None:
            return
        try:
            is_compressed, length = _MESSAGE.unpack_from(body)
            message = bytes(memoryview(body)[_MESSAGE.size :])
            if length != len(message):
                raise ValueError
            if is_compressed:
                message = zlib.decompress(message, wbits=32 + zlib.MAX_WBITS)  # gzip or deflate, as it says itself
        except (struct.error, ValueError, zlib.error):
            self.refuse(stream, INTERNAL, "The request is not one whole message.")
            return
        self.requests.append(Request(stream, message))

    def _take_settings(self, payload: bytes) -> None:
        if len(payload) % 6:
            raise ProtocolError("it sent half a setting")
        for setting, value in struct.iter_unpack(">HI", payload):
            if setting == _MAX_FRAME_SIZE:
                self._frame_size = min(max(value, 1), _LARGEST_FRAME_SIZE)
            elif setting == _INITIAL_WINDOW_SIZE:
                for call in self._open:
                    self._open[call] += value - self._initial_window
                self._initial_window = value
        self.outgoing += _frame(_SETTINGS, _ACK, 0)
        self._send_answers()

    def _take_window_update(self, stream: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise ProtocolError("it sent half a window update")
        increment = int.from_bytes(payload, "big") & _LARGEST_WINDOW
        if stream == 0:
            self._window += increment
        elif stream in self._open:
            self._open[stream] += increment
        self._send_answers()

    def _send_answers(self) -> None:
        """Send as much of the answers as the client has room for."""
        for call, rest in [*self._answers.items()]:
            while rest and (size := min(len(rest), self._frame_size, self._window, self._open[call])) > 0:
                self.outgoing += _frame_head(_DATA, 0, call, size)
                self.outgoing += rest[:size]
                rest = rest[size:]
                self._window -= size
                self._open[call] -= size
            self._answers[call] = rest
            if not rest:
                self.outgoing += _frame(_HEADERS, _END_HEADERS | _END_STREAM, call, _TRAILERS)
                del self._answers[call], self._open[call]


def _frame_head(kind: int, flags: int, stream: int, length: int) -> bytes:
    return _FRAME.pack(length >> 16, length & 0xFFFF, kind, flags, stream)


def _frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return _frame_head(kind, flags, stream, len(payload)) + payload


def _refill(size: int) -> bytes:
    """Return the frame that lets the client send so much more."""
    return _frame(_WINDOW_UPDATE, 0, 0, struct.pack(">I", size))
