"""What both ends of a gRPC connection need of HTTP/2 (RFC 9113): frames, settings and flow control."""

from __future__ import annotations

import struct
from abc import ABC, abstractmethod
from typing import Dict, Mapping, Optional

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
"""What a client of HTTP/2 begins with."""

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
END_STREAM, ACK, END_HEADERS, PADDED, PRIORITY = 0x1, 0x1, 0x4, 0x8, 0x20
HEADER_TABLE_SIZE, ENABLE_PUSH, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE = 1, 2, 4, 5  # settings

_FRAME = struct.Struct(">BHBBI")  # the length in two parts, type, flags, stream
_LARGEST_WINDOW = 2**31 - 1
LARGEST_STREAM = 2**31 - 1
_DEFAULT_TABLE_SIZE = 4096
_EMPTY_TABLE = b"\x20"
"""Begins a block of headers, and says that their table, which is never used here, has no room (RFC 7541, 6.3)."""
_DEFAULT_WINDOW = 2**16 - 1
_DEFAULT_FRAME_SIZE = 2**14
_LARGEST_FRAME_SIZE = 2**24 - 1
_OUR_FRAME_SIZE = 2**20
_WINDOW_REFILL = 2**30


class ProtocolError(Exception):
    """What came is not HTTP/2, or not as gRPC uses it: the connection is of no use any more."""


class Http2Connection(ABC):
    """One end of a connection, as bytes in and bytes out; a stream carries one call, by whose number it is known.

    The other end is never held up by flow control: its window is kept as large as can be. What it has no room for waits
    here.

    :param preface: what the other end begins with.
    :param opening: what this end begins with, before its settings.
    :param own_settings: besides those of flow control.
    :ivar outgoing: to be sent, and then cleared by whoever has sent it.
    """

    def __init__(self, preface: bytes = b"", opening: bytes = b"", own_settings: Optional[Mapping[int, int]] = None):
        settings = {**(own_settings or {}), INITIAL_WINDOW_SIZE: _LARGEST_WINDOW, MAX_FRAME_SIZE: _OUR_FRAME_SIZE}
        payload = b"".join(struct.pack(">HI", *setting) for setting in settings.items())
        self.outgoing = bytearray(opening + frame(SETTINGS, 0, 0, payload) + _refill(_LARGEST_WINDOW - _DEFAULT_WINDOW))
        self._preface = preface
        self._incoming = bytearray()
        self._in_header_block = False
        self._table_update = b""
        self._bodies: Dict[int, bytearray] = {}  # by call: of messages that have begun to come
        self._open: Dict[int, int] = {}  # by call that may be sent on: how much the other end takes
        self._unsent: Dict[int, memoryview] = {}  # by call: what is still to be sent of a message
        self._window = _DEFAULT_WINDOW
        self._initial_window = _DEFAULT_WINDOW
        self._frame_size = _DEFAULT_FRAME_SIZE
        self._consumed = 0

    @abstractmethod
    def _take_headers(self, kind: int, flags: int, call: int, payload: bytes) -> None:
        """Take in a part of a call's headers."""

    @abstractmethod
    def _end_message(self, call: int) -> None:
        """Take note that no more comes on a call."""

    @abstractmethod
    def _ending(self, call: int) -> bytes:
        """Return the frame that follows a message that has been sent."""

    @property
    def is_sending(self) -> bool:
        """Whether a message waits for the other end to have room."""
        return bool(self._unsent)

    def receive(self, data: bytes | memoryview) -> None:
        """Take in what has come, whatever part of whatever it is.

        :raises ProtocolError: it makes no sense.
        """
        incoming = self._incoming
        incoming += data
        if self._preface:
            if incoming[: len(self._preface)] != self._preface[: len(incoming)]:
                raise ProtocolError("it does not speak HTTP/2")
            if len(incoming) < len(self._preface):
                return
            del incoming[: len(self._preface)]
            self._preface = b""
        done = 0
        try:
            while len(incoming) - done >= _FRAME.size:
                high, low, kind, flags, stream = _FRAME.unpack_from(incoming, done)
                length = high << 16 | low
                if length > _OUR_FRAME_SIZE:
                    raise ProtocolError(f"it sent a frame of {length} bytes")
                start, end = done + _FRAME.size, done + _FRAME.size + length
                if end > len(incoming):
                    break
                done = end
                self._take(kind, flags, stream & LARGEST_STREAM, bytes(memoryview(incoming)[start:end]))
        finally:  # after an interrupt, too, no frame is taken in twice
            del incoming[:done]

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        """Take in a frame. Kinds that are not named here say nothing that matters."""
        if self._in_header_block != (kind == CONTINUATION):
            raise ProtocolError("its headers are not in one piece")
        if kind == DATA:
            self._take_data(flags, stream, payload)
        elif kind in (HEADERS, CONTINUATION):
            if not stream:
                raise ProtocolError("it sent headers of no call")
            self._in_header_block = not flags & END_HEADERS
            self._take_headers(kind, flags, stream, payload)
        elif kind == RST_STREAM:
            self._take_reset(stream)
        elif kind == SETTINGS and not flags & ACK:
            self._take_settings(payload)
        elif kind == PING and not flags & ACK:
            self.outgoing += frame(PING, ACK, 0, payload)
        elif kind == GOAWAY:
            self._take_goodbye()
        elif kind == WINDOW_UPDATE:
            self._take_window_update(stream, payload)

    def _take_data(self, flags: int, stream: int, payload: bytes) -> None:
        self._consumed += len(payload)
        if self._consumed >= _WINDOW_REFILL:
            self.outgoing += _refill(self._consumed)
            self._consumed = 0
        body = self._bodies.get(stream)
        if body is None:  # of a call that is over
            return
        body += without_padding(payload) if flags & PADDED else payload
        if flags & END_STREAM:
            self._end_message(stream)

    def _take_reset(self, stream: int) -> None:
        for calls in (self._bodies, self._open, self._unsent):
            calls.pop(stream, None)

    def _take_goodbye(self) -> None:  # noqa: B027
        """Take note that the other end is about to hang up; nothing to do, unless this one goes on making calls."""

    def _take_settings(self, payload: bytes) -> None:
        if len(payload) % 6:
            raise ProtocolError("it sent half a setting")
        for setting, value in struct.iter_unpack(">HI", payload):
            if setting == HEADER_TABLE_SIZE and value < _DEFAULT_TABLE_SIZE:
                self._table_update = _EMPTY_TABLE  # which has to be confirmed
            elif setting == MAX_FRAME_SIZE:
                self._frame_size = min(max(value, 1), _LARGEST_FRAME_SIZE)
            elif setting == INITIAL_WINDOW_SIZE:
                for call in self._open:
                    self._open[call] += value - self._initial_window
                self._initial_window = value
        self.outgoing += frame(SETTINGS, ACK, 0)
        self._send_what_there_is_room_for()

    def _take_window_update(self, stream: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise ProtocolError("it sent half a window update")
        increment = int.from_bytes(payload, "big") & _LARGEST_WINDOW
        if stream == 0:
            self._window += increment
        elif stream in self._open:
            self._open[stream] += increment
        self._send_what_there_is_room_for()

    def _header_frame(self, flags: int, call: int, block: bytes) -> bytes:
        """Return the frame of a whole block of headers."""
        block, self._table_update = self._table_update + block, b""
        return frame(HEADERS, flags | END_HEADERS, call, block)

    def _send(self, call: int, data: bytes) -> None:
        """Send data on an open call, and end it."""
        self._unsent[call] = memoryview(data)
        self._send_what_there_is_room_for()

    def _send_what_there_is_room_for(self) -> None:
        for call, rest in [*self._unsent.items()]:
            while rest and (size := min(len(rest), self._frame_size, self._window, self._open[call])) > 0:
                self.outgoing += _frame_head(DATA, 0, call, size)
                self.outgoing += rest[:size]
                rest = rest[size:]
                self._window -= size
                self._open[call] -= size
            self._unsent[call] = rest
            if not rest:
                self.outgoing += self._ending(call)
                del self._unsent[call], self._open[call]


def without_padding(payload: bytes) -> bytes:
    """Return what is left of a frame that says itself how much of it is padding."""
    if not payload or payload[0] >= len(payload):
        raise ProtocolError("it sent more padding than there is room for")
    return payload[1 : len(payload) - payload[0]]


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Return a frame."""
    return _frame_head(kind, flags, stream, len(payload)) + payload


def _frame_head(kind: int, flags: int, stream: int, length: int) -> bytes:
    return _FRAME.pack(length >> 16, length & 0xFFFF, kind, flags, stream)


def _refill(size: int) -> bytes:
    """Return the frame that lets the other end send so much more."""
    return frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", size))
