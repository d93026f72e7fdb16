"""Both ends of a gRPC connection with unary calls of one method, as bytes in and bytes out.

It is what a unary call needs of gRPC's protocol on HTTP/2 ("gRPC over HTTP2" in the documentation of gRPC), and no
more. What is said in headers is always the same, so that of HPACK (RFC 7541) a few constant blocks are left; the server
skips those of its clients, and the client reads its server's to see why a call failed.
"""

from __future__ import annotations

import struct
import zlib
from collections import deque
from enum import IntEnum
from typing import Deque, Dict, NamedTuple, Optional, Tuple
from urllib.parse import quote, unquote

from mlagents_envs.wire.http2 import (
    CONTINUATION,
    DATA,
    ENABLE_PUSH,
    END_HEADERS,
    END_STREAM,
    HEADER_TABLE_SIZE,
    HEADERS,
    LARGEST_STREAM,
    PADDED,
    PREFACE,
    PRIORITY,
    Http2Connection,
    ProtocolError,
    frame,
    without_padding,
)

_MESSAGE = struct.Struct(">BI")  # whether it is compressed, and the length

_RESPONSE = b"\x88\x0f\x10\x10application/grpc"  # `:status: 200`, `content-type`
_STATUS, _REASON = b"grpc-status", b"grpc-message"

Status = IntEnum(
    "Status",
    "OK CANCELLED UNKNOWN INVALID_ARGUMENT DEADLINE_EXCEEDED NOT_FOUND ALREADY_EXISTS PERMISSION_DENIED "
    "RESOURCE_EXHAUSTED FAILED_PRECONDITION ABORTED OUT_OF_RANGE UNIMPLEMENTED INTERNAL UNAVAILABLE DATA_LOSS "
    "UNAUTHENTICATED",
    start=0,
)
"""How a call ended."""


class Request(NamedTuple):
    """A client's message.

    :param call: to be named in the answer.
    """

    call: int
    message: bytes


class Response(NamedTuple):
    """How a server ended a call.

    :param message: its answer, if the status is OK.
    :param reason: why it is another.
    """

    status: Status
    message: bytes = b""
    reason: str = ""


class GrpcServerConnection(Http2Connection):
    """The server's end: gives out the requests of one client.

    :ivar requests: that have come, in order; to be taken away.
    """

    def __init__(self) -> None:
        super().__init__(preface=PREFACE)
        self.requests: Deque[Request] = deque()

    def is_open(self, call: int) -> bool:
        """Return whether a call waits for its answer, as far as is known."""
        return call in self._open

    def answer(self, call: int, message: bytes) -> None:
        """End a call with a message; one that is over, or has an answer on its way, stays so."""
        if call not in self._open or call in self._unsent:
            return
        self.outgoing += self._header_frame(0, call, _RESPONSE)
        self._send(call, _framed(message))

    def refuse(self, call: int, status: Status, reason: str) -> None:
        """End a call with a status that is not OK."""
        if self._open.pop(call, None) is None:
            return
        text = quote(reason, safe=" ,:;()'!").encode()[:100]
        trailers = _RESPONSE + _literal(_STATUS, b"%d" % status) + _literal(_REASON, text)
        self.outgoing += self._header_frame(END_STREAM, call, trailers)

    def _take_headers(self, kind: int, flags: int, call: int, payload: bytes) -> None:
        if kind == CONTINUATION:
            return
        if call not in self._open:  # else they are trailers
            self._bodies[call], self._open[call] = bytearray(), self._initial_window
        if flags & END_STREAM:
            self._end_message(call)

    def _end_message(self, call: int) -> None:
        body = self._bodies.pop(call, None)
        if body is None:
            return
        message = _unframed(body)
        if message is None:
            self.refuse(call, Status.INTERNAL, "The request is not one whole message.")
        else:
            self.requests.append(Request(call, message))

    def _ending(self, call: int) -> bytes:
        return self._header_frame(END_STREAM, call, _TRAILERS)


class GrpcClientConnection(Http2Connection):
    """The client's end: makes one call after the other.

    :param host: of the server.
    :param method: with its service: "/service/method".
    :ivar response: to the last call; None until it has come.
    :ivar has_server: whether the other end speaks HTTP/2.
    :ivar is_ending: whether it is about to hang up, or there are no more numbers for calls.
    """

    def __init__(self, host: str, method: str):
        # Without a table of headers, what a block says does not depend on those before.
        super().__init__(opening=PREFACE, own_settings={HEADER_TABLE_SIZE: 0, ENABLE_PUSH: 0})
        self.response: Optional[Response] = None
        self.has_server = False
        self.is_ending = False
        self._head = b"\x83\x86" + _literal(b":path", method.encode()) + _literal(b":authority", host.encode())
        self._head += _literal(b"te", b"trailers") + _literal(b"content-type", b"application/grpc")
        self._call = -1
        self._headers: Dict[bytes, bytes] = {}  # of the response
        self._header_block = bytearray()
        self._headers_end_call = False

    def call(self, message: bytes) -> None:
        """Begin a call, the last one having ended."""
        self._call += 2
        self.is_ending |= self._call >= LARGEST_STREAM
        self.response, self._headers = None, {}
        self._bodies[self._call], self._open[self._call] = bytearray(), self._initial_window
        self.outgoing += self._header_frame(0, self._call, self._head)
        self._send(self._call, _framed(message))

    def _ending(self, call: int) -> bytes:
        return frame(DATA, END_STREAM, call)

    def _take_headers(self, kind: int, flags: int, call: int, payload: bytes) -> None:
        if kind == HEADERS:
            payload = without_padding(payload) if flags & PADDED else payload
            payload = payload[5:] if flags & PRIORITY else payload
            self._headers_end_call = bool(flags & END_STREAM)
        self._header_block += payload
        if flags & END_HEADERS:
            block = bytes(self._header_block)
            self._header_block.clear()
            if call in self._bodies:
                self._headers.update({_STATUS: b"0"} if block == _TRAILERS else _read_literals(block))
                if self._headers_end_call:
                    self._end_message(call)

    def _end_message(self, call: int) -> None:
        message = _unframed(self._bodies.pop(call))
        self._open.pop(call, None)  # if it has ended before all was sent
        self._unsent.pop(call, None)
        status = self._status()
        if status is None and message is not None:
            status = Status.OK  # a call that failed has no answer
        if status is not Status.OK:
            reason = unquote(self._headers.get(_REASON, b"").decode("latin-1"))
            self.response = Response(status or Status.UNKNOWN, reason=reason)
        elif message is None:
            self.response = Response(Status.INTERNAL, reason="The answer is not one whole message.")
        else:
            self.response = Response(status, message)

    def _status(self) -> Optional[Status]:
        """Return what the server says of the call; None where it cannot be read."""
        try:
            return Status(int(self._headers.get(_STATUS, b"")))
        except ValueError:
            return None

    def _take_reset(self, stream: int) -> None:
        super()._take_reset(stream)
        if stream == self._call and self.response is None:
            self.response = Response(Status.CANCELLED)

    def _take_settings(self, payload: bytes) -> None:
        super()._take_settings(payload)
        self.has_server = True

    def _take_goodbye(self) -> None:
        self.is_ending = True


def _framed(message: bytes) -> bytes:
    return _MESSAGE.pack(0, len(message)) + message


def _unframed(body: bytearray) -> Optional[bytes]:
    """Return the message in what was sent on a call; None where it is not one whole message."""
    try:
        is_compressed, length = _MESSAGE.unpack_from(body)
        message = bytes(memoryview(body)[_MESSAGE.size :])
        if length != len(message):
            return None
        # gzip or deflate, as it says itself
        return zlib.decompress(message, wbits=32 + zlib.MAX_WBITS) if is_compressed else message
    except (struct.error, zlib.error):
        return None


def _literal(name: bytes, value: bytes) -> bytes:
    """Return a header as HPACK's "literal header field without indexing"; both have less than 127 bytes."""
    return b"\x00" + bytes([len(name)]) + name + bytes([len(value)]) + value


_TRAILERS = _literal(_STATUS, b"0")


def _read_literals(block: bytes) -> Dict[bytes, bytes]:
    """Return the headers of a block that are written out: name and value, neither in a table nor in Huffman's code.

    That is how servers of gRPC write its status and message, which are in no table.
    """
    found, at = {}, 0
    try:
        while at < len(block):
            first = block[at]
            if first & 0x80 or first & 0xE0 == 0x20:  # all of it is in the table; the table's size
                _, at = _read_integer(block, at, 7 if first & 0x80 else 5)
                continue
            index, at = _read_integer(block, at, 6 if first & 0x40 else 4)
            name, at = (None, at) if index else _read_string(block, at)
            value, at = _read_string(block, at)
            if name is not None and value is not None:
                found[name] = value
    except IndexError:
        raise ProtocolError("it sent half a header") from None
    return found


def _read_integer(block: bytes, at: int, n_bits: int) -> Tuple[int, int]:
    """Return HPACK's integer with a prefix of some bits (RFC 7541, 5.1), and where it ends."""
    value = block[at] & (2**n_bits - 1)
    at += 1
    if value == 2**n_bits - 1:
        for shift in range(0, 35, 7):
            value += (block[at] & 0x7F) << shift
            at += 1
            if not block[at - 1] & 0x80:
                return value, at
        raise IndexError
    return value, at


def _read_string(block: bytes, at: int) -> Tuple[Optional[bytes], int]:
    """Return HPACK's string (RFC 7541, 5.2), None if it is in Huffman's code, and where it ends."""
    in_huffmans_code = block[at] & 0x80
    length, at = _read_integer(block, at, 7)
    if at + length > len(block):
        raise IndexError
    return (None if in_huffmans_code else block[at : at + length]), at + length
