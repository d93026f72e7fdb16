"""Parameters of an environment: numbers, or distributions that the environment draws from."""

import uuid
from enum import IntEnum
from typing import List, Tuple

from mlagents_envs.exception import UnitySideChannelException
from mlagents_envs.side_channel.incoming_message import IncomingMessage
from mlagents_envs.side_channel.outgoing_message import OutgoingMessage
from mlagents_envs.side_channel.side_channel import SideChannel


class EnvironmentParametersChannel(SideChannel):
    """Sends parameters to the environment, one message for each. A later message of a key replaces an earlier one."""

    CHANNEL_ID = uuid.UUID("534c891e-810f-11ea-a9d0-822485860400")

    class EnvironmentDataTypes(IntEnum):
        """What follows the key in a message."""

        FLOAT = 0
        SAMPLER = 1

    class SamplerTypes(IntEnum):
        """The distribution of a sampler."""

        UNIFORM = 0
        GAUSSIAN = 1
        MULTIRANGEUNIFORM = 2

    def __init__(self) -> None:
        super().__init__(self.CHANNEL_ID)

    def on_message_received(self, msg: IncomingMessage) -> None:
        """Refuse the message: an environment has nothing to say here.

        :raises UnitySideChannelException: always.
        """
        raise UnitySideChannelException("this channel only sends, and the environment sent a message on it")

    def set_float_parameter(self, key: str, value: float) -> None:
        """Queue a number."""
        msg = OutgoingMessage()
        msg.write_string(key)
        msg.write_int32(self.EnvironmentDataTypes.FLOAT)
        msg.write_float32(value)
        self.queue_message_to_send(msg)

    def set_uniform_sampler_parameters(self, key: str, min_value: float, max_value: float, seed: int) -> None:
        """Queue a uniform distribution over [min_value, max_value)."""
        msg = self._sampler_message(key, seed, self.SamplerTypes.UNIFORM)
        msg.write_float32(min_value)
        msg.write_float32(max_value)
        self.queue_message_to_send(msg)

    def set_gaussian_sampler_parameters(self, key: str, mean: float, st_dev: float, seed: int) -> None:
        """Queue a normal distribution."""
        msg = self._sampler_message(key, seed, self.SamplerTypes.GAUSSIAN)
        msg.write_float32(mean)
        msg.write_float32(st_dev)
        self.queue_message_to_send(msg)

    def set_multirangeuniform_sampler_parameters(
        self, key: str, intervals: List[Tuple[float, float]], seed: int
    ) -> None:
        """Queue a uniform distribution over several intervals (min, max), each as likely as it is long."""
        msg = self._sampler_message(key, seed, self.SamplerTypes.MULTIRANGEUNIFORM)
        msg.write_float32_list([end for interval in intervals for end in interval])
        self.queue_message_to_send(msg)

    def _sampler_message(self, key: str, seed: int, sampler: SamplerTypes) -> OutgoingMessage:
        msg = OutgoingMessage()
        msg.write_string(key)
        msg.write_int32(self.EnvironmentDataTypes.SAMPLER)
        msg.write_int32(seed)
        msg.write_int32(sampler)
        return msg
