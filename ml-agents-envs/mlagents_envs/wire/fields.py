"""The wire format of protobuf: messages as runs of fields, read in place.

See "Encoding" in the documentation of protocol buffers. Spans are positions in the whole run of bytes, end exclusive.
"""

from __future__ import annotations

from typing import Iterator, List, NamedTuple, Tuple

from mlagents_envs.exception import UnityCommunicationException

VARINT, FIXED64, DELIMITED, FIXED32 = 0, 1, 2, 5
"""Wire types: how the bytes after a tag are laid out."""

_FIXED_SIZES = {FIXED64: 8, FIXED32: 4}
_MAX_VARINT_BYTES = 10


class Field(NamedTuple):
    """One field of a message.

    :param number: which field of its message it is.
    :param wire_type: `VARINT`, `DELIMITED`, `FIXED32` or `FIXED64`.
    :param start: where its value begins: after the tag, and after the length of what is delimited.
    :param end: where its value ends, and the next field begins.
    """

    number: int
    wire_type: int
    start: int
    end: int


def read_varint(data: bytes, at: int, end: int) -> Tuple[int, int]:
    """Return a varint, as an unsigned number of at most 64 bits, and where it ends.

    :raises UnityCommunicationException: it does not end before `end`, or is too long.
    """
    value = 0
    for index in range(_MAX_VARINT_BYTES):
        if at + index >= end:
            break
        byte = data[at + index]
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, at + index + 1
    raise malformed(f"a number does not end at byte {at}")


def read_fields(data: bytes, start: int, end: int) -> Iterator[Field]:
    """Yield the fields of the message in a span.

    :raises UnityCommunicationException: the bytes are no message.
    """
    at = start
    while at < end:
        tag, value_start = read_varint(data, at, end)
        number, wire_type = tag >> 3, tag & 7
        if wire_type == VARINT:
            _, value_end = read_varint(data, value_start, end)
        elif wire_type == DELIMITED:
            size, value_start = read_varint(data, value_start, end)
            value_end = value_start + size
        elif wire_type in _FIXED_SIZES:
            value_end = value_start + _FIXED_SIZES[wire_type]
        else:
            raise malformed(f"a field at byte {at} has the unknown wire type {wire_type}")
        if value_end > end or number == 0:
            raise malformed(f"a field at byte {at} does not fit into its message")
        yield Field(number, wire_type, value_start, value_end)
        at = value_end


def read_repeated(data: bytes, start: int, end: int, number: int) -> Tuple[List[int], List[int]]:
    """Return the starts and ends of all fields `number`, delimited ones, of the message in a span.

    :raises UnityCommunicationException: the bytes are no message.
    """
    tag = number << 3 | DELIMITED
    starts: List[int] = []
    ends: List[int] = []
    at = start
    while at < end:
        # Written out, since messages have such a field for every agent.
        if data[at] == tag and at + 1 < end and data[at + 1] < 0x80:
            value_start = at + 2
            at = value_start + data[at + 1]
        elif data[at] == tag:
            size, value_start = read_varint(data, at + 1, end)
            at = value_start + size
        else:
            field = next(read_fields(data, at, end))
            at = field.end
            if (field.number, field.wire_type) != (number, DELIMITED):
                continue
            value_start = field.start
        if at > end:
            raise malformed(f"a field at byte {value_start} does not fit into its message")
        starts.append(value_start)
        ends.append(at)
    return starts, ends


def varint(value: int) -> bytes:
    """Return a number as a varint."""
    encoded = bytearray()
    value &= 0xFFFFFFFFFFFFFFFF
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def header(number: int, size: int) -> bytes:
    """Return what stands before the `size` bytes of a delimited field."""
    return varint(number << 3 | DELIMITED) + varint(size)


def delimited(number: int, content: bytes) -> bytes:
    """Return a delimited field: a message, a string, bytes, or packed numbers."""
    return header(number, len(content)) + content


def malformed(what: str) -> UnityCommunicationException:
    """Return the error for bytes that are no message."""
    return UnityCommunicationException(f"The environment's bytes are no message of the protocol: {what}.")
