"""A channel of plain bytes, for protocols of the user's own."""

import uuid
from typing import List, Union

from mlagents_envs.side_channel.incoming_message import IncomingMessage
from mlagents_envs.side_channel.outgoing_message import OutgoingMessage
from mlagents_envs.side_channel.side_channel import SideChannel


class RawBytesChannel(SideChannel):
    """Sends and receives bytes as they are."""

    def __init__(self, channel_id: uuid.UUID):
        super().__init__(channel_id)
        self._received: List[bytes] = []

    def on_message_received(self, msg: IncomingMessage) -> None:
        """Keep the payload for `get_and_clear_received_messages`."""
        self._received.append(msg.get_raw_bytes())

    def get_and_clear_received_messages(self) -> List[bytes]:
        """Return the messages that came since the last call, oldest first."""
        received, self._received = self._received, []
        return received

    def send_raw_data(self, data: Union[bytes, bytearray]) -> None:
        """Queue bytes for the environment."""
        msg = OutgoingMessage()
        msg.set_raw_bytes(data)
        self.queue_message_to_send(msg)
