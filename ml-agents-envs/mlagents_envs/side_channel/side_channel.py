"""What a side channel is."""

import uuid
from abc import ABC, abstractmethod
from typing import List

from mlagents_envs.side_channel.incoming_message import IncomingMessage
from mlagents_envs.side_channel.outgoing_message import OutgoingMessage


class SideChannel(ABC):
    """The trainer's end of a channel; the environment's end has the same id.

    :param channel_id: unique among the channels of an environment.
    """

    def __init__(self, channel_id: uuid.UUID):
        self._channel_id = channel_id
        self.message_queue: List[bytes] = []

    def queue_message_to_send(self, msg: OutgoingMessage) -> None:
        """Queue a message; it leaves with the environment's next step or reset."""
        self.message_queue.append(bytes(msg.buffer))

    @abstractmethod
    def on_message_received(self, msg: IncomingMessage) -> None:
        """Take a message from the environment.

        :raises UnitySideChannelException: the message does not have this channel's layout.
        """

    @property
    def channel_id(self) -> uuid.UUID:
        """The id that both ends of the channel share."""
        return self._channel_id
