"""Settings of the engine that an environment runs in: window, quality, speed."""

import uuid
from enum import IntEnum
from typing import NamedTuple, Optional

from mlagents_envs.exception import UnitySideChannelException
from mlagents_envs.side_channel.incoming_message import IncomingMessage
from mlagents_envs.side_channel.outgoing_message import OutgoingMessage
from mlagents_envs.side_channel.side_channel import SideChannel


class EngineConfig(NamedTuple):
    """Settings of the engine; None leaves one as it is.

    :param width: of the window, in pixels.
    :param height: of the window, in pixels.
    :param time_scale: simulated seconds per second of real time.
    :param target_frame_rate: frames per second, -1 for as many as possible.
    :param capture_frame_rate: frames per simulated second.
    """

    width: Optional[int]
    height: Optional[int]
    quality_level: Optional[int]
    time_scale: Optional[float]
    target_frame_rate: Optional[int]
    capture_frame_rate: Optional[int]

    @staticmethod
    def default_config() -> "EngineConfig":
        """Return the settings for training: a small window, twenty times real time."""
        return EngineConfig(
            width=84, height=84, quality_level=5, time_scale=20.0, target_frame_rate=-1, capture_frame_rate=60
        )


class EngineConfigurationChannel(SideChannel):
    """Sends settings to the engine, one message for each."""

    class ConfigurationType(IntEnum):
        """The first field of a message: which setting it is."""

        SCREEN_RESOLUTION = 0
        QUALITY_LEVEL = 1
        TIME_SCALE = 2
        TARGET_FRAME_RATE = 3
        CAPTURE_FRAME_RATE = 4

    def __init__(self) -> None:
        super().__init__(uuid.UUID("e951342c-4f7e-11ea-b238-784f4387d1f7"))

    def on_message_received(self, msg: IncomingMessage) -> None:
        """Refuse the message: an engine has nothing to say here.

        :raises UnitySideChannelException: always.
        """
        raise UnitySideChannelException("this channel only sends, and the environment sent a message on it")

    def set_configuration_parameters(
        self,
        width: Optional[int] = None,
        height: Optional[int] = None,
        quality_level: Optional[int] = None,
        time_scale: Optional[float] = None,
        target_frame_rate: Optional[int] = None,
        capture_frame_rate: Optional[int] = None,
    ) -> None:
        """Queue the settings that are given; see `EngineConfig` for what they mean.

        :raises UnitySideChannelException: a width without a height, or the other way round.
        """
        kinds = self.ConfigurationType
        if (width is None) != (height is None):
            raise UnitySideChannelException(
                f"The screen's width and height can only be set together, not width={width} with height={height}."
            )
        if width is not None and height is not None:
            msg = self._message(kinds.SCREEN_RESOLUTION)
            msg.write_int32(width)
            msg.write_int32(height)
            self.queue_message_to_send(msg)
        if quality_level is not None:
            self._queue_int(kinds.QUALITY_LEVEL, quality_level)
        if time_scale is not None:
            msg = self._message(kinds.TIME_SCALE)
            msg.write_float32(time_scale)
            self.queue_message_to_send(msg)
        if target_frame_rate is not None:
            self._queue_int(kinds.TARGET_FRAME_RATE, target_frame_rate)
        if capture_frame_rate is not None:
            self._queue_int(kinds.CAPTURE_FRAME_RATE, capture_frame_rate)

    def set_configuration(self, config: EngineConfig) -> None:
        """Queue the settings of `config` that are not None."""
        self.set_configuration_parameters(**config._asdict())

    def _queue_int(self, kind: ConfigurationType, value: int) -> None:
        msg = self._message(kind)
        msg.write_int32(value)
        self.queue_message_to_send(msg)

    @staticmethod
    def _message(kind: ConfigurationType) -> OutgoingMessage:
        msg = OutgoingMessage()
        msg.write_int32(kind)
        return msg
