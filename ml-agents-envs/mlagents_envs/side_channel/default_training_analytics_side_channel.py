"""What the Unity Editor is told for the usage statistics that its owner may have switched on."""

from __future__ import annotations

import platform
import uuid
from typing import TYPE_CHECKING

import mlagents_envs
from mlagents_envs.exception import UnitySideChannelException
from mlagents_envs.side_channel.incoming_message import IncomingMessage
from mlagents_envs.side_channel.outgoing_message import OutgoingMessage
from mlagents_envs.side_channel.side_channel import SideChannel

if TYPE_CHECKING:  # protobuf is loaded where it is used: side channels without it do not need it
    from google.protobuf.message import Message

_TYPE_URL_PREFIX = "type.googleapis.com/"


class DefaultTrainingAnalyticsSideChannel(SideChannel):
    """Tells the Editor who is at the other end: a program that uses the low-level API.

    Nothing is sent unless a method is called, and then only over the wire, to the environment on this machine.
    """

    CHANNEL_ID = uuid.UUID("b664a4a9-d86f-5a5f-95cb-e8353a7e8356")

    def __init__(self) -> None:
        super().__init__(self.CHANNEL_ID)

    def on_message_received(self, msg: IncomingMessage) -> None:
        """Refuse the message: the Editor has nothing to say here.

        :raises UnitySideChannelException: always.
        """
        raise UnitySideChannelException("this channel only sends, and the environment sent a message on it")

    def environment_initialized(self) -> None:
        """Queue the versions of this package and of Python."""
        from mlagents_envs.communicator_objects.training_analytics_pb2 import TrainingEnvironmentInitialized

        self._queue(
            TrainingEnvironmentInitialized(
                mlagents_envs_version=mlagents_envs.__version__, python_version=platform.python_version()
            )
        )

    def _queue(self, message: Message) -> None:
        """Queue a message wrapped as a `google.protobuf.Any`, which names its type."""
        from google.protobuf.any_pb2 import Any

        wrapped = Any(type_url=_TYPE_URL_PREFIX + message.DESCRIPTOR.full_name, value=message.SerializeToString())
        outgoing = OutgoingMessage()
        outgoing.set_raw_bytes(wrapped.SerializeToString())
        self.queue_message_to_send(outgoing)
