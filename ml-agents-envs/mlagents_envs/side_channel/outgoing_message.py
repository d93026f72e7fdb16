"""Writing the fields of a side channel message."""

import struct
from typing import Any, List, Union

from mlagents_envs.exception import UnitySideChannelException


class OutgoingMessage:
    """A payload, written field by field; the layout is that of `IncomingMessage`.

    :raises UnitySideChannelException: from every ``write_...``, where the value does not fit the field.
    """

    def __init__(self) -> None:
        self.buffer = bytearray()

    def write_bool(self, b: bool) -> None:
        """Append a boolean."""
        self._pack("<?", b)

    def write_int32(self, i: int) -> None:
        """Append an integer."""
        self._pack("<i", i)

    def write_float32(self, f: float) -> None:
        """Append a float."""
        self._pack("<f", f)

    def write_float32_list(self, float_list: List[float]) -> None:
        """Append a list of floats."""
        self._pack(f"<i{len(float_list)}f", len(float_list), *float_list)

    def write_string(self, s: str) -> None:
        """Append a string, which has to be ASCII: Unity reads nothing else."""
        try:
            encoded = s.encode("ascii")
        except UnicodeEncodeError as error:
            raise UnitySideChannelException(f"side channels carry ASCII text only, not {s!r}") from error
        self.write_int32(len(encoded))
        self.buffer += encoded

    def set_raw_bytes(self, buffer: Union[bytes, bytearray]) -> None:
        """Make `buffer` the payload.

        :raises UnitySideChannelException: something has been written already.
        """
        if self.buffer:
            raise UnitySideChannelException("raw bytes can only be set on a message in which nothing is written yet")
        self.buffer = bytearray(buffer)

    def _pack(self, layout: str, *values: Any) -> None:
        try:
            self.buffer += struct.pack(layout, *values)
        except (struct.error, OverflowError) as error:
            shown = ", ".join(map(repr, values))
            raise UnitySideChannelException(f"{shown} cannot be written to a side channel: {error}") from error
