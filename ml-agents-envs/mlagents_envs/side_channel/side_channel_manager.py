"""All side channels of an environment as the one run of bytes that goes with every exchange."""

import struct
import uuid
from typing import Callable, Dict, Iterator, Optional, Sequence, Set, Tuple

from mlagents_envs.exception import UnitySideChannelException
from mlagents_envs.logging_util import get_logger
from mlagents_envs.side_channel.incoming_message import IncomingMessage
from mlagents_envs.side_channel.side_channel import SideChannel

logger = get_logger(__name__)

_HEADER = struct.Struct("<16si")
"""Before each payload: the channel's id in ``bytes_le`` order, and the payload's length."""


def join_message(channel_id: uuid.UUID, payload: bytes) -> bytes:
    """Return a message as it stands in the run of bytes."""
    return _HEADER.pack(channel_id.bytes_le, len(payload)) + payload


def split_messages(data: bytes, name_of: Callable[[uuid.UUID], str] = str) -> Iterator[Tuple[uuid.UUID, bytes]]:
    """Yield the channel id and the payload of each message in a run of bytes.

    :param name_of: what error messages call a channel.
    :raises UnitySideChannelException: the run breaks off inside a message.
    """
    offset = 0
    while offset < len(data):
        if offset + _HEADER.size > len(data):
            raise UnitySideChannelException(
                f"Side channel data break off inside a header: {len(data) - offset} bytes are left of {_HEADER.size}."
            )
        id_bytes, length = _HEADER.unpack_from(data, offset)
        channel_id = uuid.UUID(bytes_le=id_bytes)
        offset += _HEADER.size
        if not 0 <= length <= len(data) - offset:
            raise UnitySideChannelException(
                f"Side channel data break off inside a message of {name_of(channel_id)}: its length is given "
                f"as {length} bytes, and {len(data) - offset} are left."
            )
        yield channel_id, data[offset : offset + length]
        offset += length


class SideChannelManager:
    """Joins what the channels have queued, and hands what arrives to the channels.

    :raises UnitySideChannelException: two channels have the same id.
    """

    def __init__(self, side_channels: Optional[Sequence[SideChannel]] = None):
        self._channels: Dict[uuid.UUID, SideChannel] = {}
        self._unknown_ids: Set[uuid.UUID] = set()
        for channel in side_channels or ():
            if channel.channel_id in self._channels:
                raise UnitySideChannelException(
                    f"{self._name_of(channel.channel_id)} and {type(channel).__name__} have the same channel id; "
                    "give each side channel an id of its own."
                )
            self._channels[channel.channel_id] = channel

    def process_side_channel_message(self, data: bytes) -> None:
        """Hand the messages in `data` to their channels; an unknown channel is warned about once and skipped.

        :raises UnitySideChannelException: naming the channel, where a message is cut short or malformed.
        """
        for channel_id, payload in split_messages(data, self._name_of):
            channel = self._channels.get(channel_id)
            if channel is None:
                self._warn_once(channel_id)
                continue
            try:
                channel.on_message_received(IncomingMessage(payload))
            except UnitySideChannelException as error:
                raise UnitySideChannelException(f"{self._name_of(channel_id)}: {error}") from error

    def generate_side_channel_messages(self) -> bytearray:
        """Return all queued messages, channel by channel, and empty the queues."""
        result = bytearray()
        for channel in self._channels.values():
            for payload in channel.message_queue:
                result += join_message(channel.channel_id, payload)
            channel.message_queue.clear()
        return result

    def _name_of(self, channel_id: uuid.UUID) -> str:
        channel = self._channels.get(channel_id)
        return str(channel_id) if channel is None else f"{type(channel).__name__} ({channel_id})"

    def _warn_once(self, channel_id: uuid.UUID) -> None:
        if channel_id not in self._unknown_ids:
            self._unknown_ids.add(channel_id)
            logger.warning(
                f"The environment sends messages on the side channel {channel_id}, which nobody here listens to; "
                "they are skipped."
            )
