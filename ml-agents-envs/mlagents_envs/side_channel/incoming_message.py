"""Reading the fields of a side channel message."""

from __future__ import annotations

import struct
from typing import Any, List, Optional

from mlagents_envs.exception import UnitySideChannelException


class IncomingMessage:
    """The payload of a message, read field by field in the order in which it was written.

    Fields are little-endian: bool 1 byte, int32, float32, strings and lists after an int32 length. At the end of the
    message a read returns its default, so that a newer reader understands an older writer, unless the message is
    `strict`; a field that is cut short is always an error.

    :param buffer: the payload.
    :param offset: the byte to start reading at.
    :raises UnitySideChannelException: from every ``read_...``, where the bytes do not hold the field.
    """

    def __init__(self, buffer: bytes, offset: int = 0):
        self.buffer = buffer
        self.offset = offset
        self._is_strict = False

    def strict(self) -> IncomingMessage:
        """Make a missing field an error rather than its default from here on, and return the message."""
        self._is_strict = True
        return self

    def read_bool(self, default_value: bool = False) -> bool:
        """Read a boolean."""
        return default_value if self._is_over() else bool(self._unpack("<?", "a bool"))

    def read_int32(self, default_value: int = 0) -> int:
        """Read an integer."""
        return default_value if self._is_over() else int(self._unpack("<i", "an int32"))

    def read_float32(self, default_value: float = 0.0) -> float:
        """Read a float."""
        return default_value if self._is_over() else float(self._unpack("<f", "a float32"))

    def read_float32_list(self, default_value: Optional[List[float]] = None) -> List[float]:
        """Read a list of floats; the default is an empty one."""
        if self._is_over():
            return [] if default_value is None else default_value
        count = self._read_length("a float list")
        return list(struct.unpack(f"<{count}f", self._take(4 * count, f"a list of {count} floats")))

    def read_string(self, default_value: str = "") -> str:
        """Read a string."""
        if self._is_over():
            return default_value
        encoded = self._take(self._read_length("a string"), "a string")
        try:
            return encoded.decode("utf-8")
        except UnicodeDecodeError as error:
            raise UnitySideChannelException(f"a string is not text: {encoded!r}") from error

    def get_raw_bytes(self) -> bytes:
        """Return the whole payload, whatever has been read of it."""
        return bytes(self.buffer)

    def _is_over(self) -> bool:
        return not self._is_strict and self.offset >= len(self.buffer)

    def _read_length(self, what: str) -> int:
        length = int(self._unpack("<i", f"the length of {what}"))
        if length < 0:
            raise UnitySideChannelException(f"{what} has the negative length {length}")
        return length

    def _unpack(self, layout: str, what: str) -> Any:
        return struct.unpack(layout, self._take(struct.calcsize(layout), what))[0]

    def _take(self, size: int, what: str) -> bytes:
        """Return the next `size` bytes and move past them."""
        end = self.offset + size
        if end > len(self.buffer):
            raise UnitySideChannelException(
                f"the message ends too early: {what} at byte {self.offset} needs {size} bytes, "
                f"and {max(0, len(self.buffer) - self.offset)} of {len(self.buffer)} are left"
            )
        taken = bytes(self.buffer[self.offset : end])
        self.offset = end
        return taken
