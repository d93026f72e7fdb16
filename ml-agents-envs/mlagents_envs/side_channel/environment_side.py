"""The environment's end of the side channels, for environments that live in Python."""

import uuid
from typing import Any, Callable, Dict, KeysView, Mapping, NamedTuple, Optional, Sequence

import numpy as np
from numpy.typing import NDArray

from mlagents_envs.exception import UnitySideChannelException
from mlagents_envs.logging_util import get_logger
from mlagents_envs.side_channel.environment_parameters_channel import EnvironmentParametersChannel
from mlagents_envs.side_channel.incoming_message import IncomingMessage
from mlagents_envs.side_channel.outgoing_message import OutgoingMessage
from mlagents_envs.side_channel.side_channel import SideChannel
from mlagents_envs.side_channel.side_channel_manager import SideChannelManager, join_message, split_messages
from mlagents_envs.side_channel.stats_side_channel import StatsAggregationMethod, StatsSideChannel

logger = get_logger(__name__)

Sampler = Callable[[int], NDArray[np.float64]]
"""Draws that many values."""


class _Source(NamedTuple):
    """What a parameter was made of: its message, and the generator that its distribution draws from, if it is one."""

    message: bytes
    rng: Optional[np.random.Generator]


class EnvironmentParameters:
    """The parameters that the trainer has set: numbers, and distributions to draw from.

    A distribution is seeded by its message, so the same message gives the same draws in the same order.
    """

    def __init__(self) -> None:
        self._samplers: Dict[str, Sampler] = {}
        self._sources: Dict[str, _Source] = {}

    def keys(self) -> KeysView[str]:
        """Return the names of the parameters that are set."""
        return self._samplers.keys()

    def get_with_default(self, key: str, default: float) -> float:
        """Return a parameter's value, or one draw from its distribution; `default` where it is not set."""
        sampler = self._samplers.get(key)
        return default if sampler is None else float(sampler(1)[0])

    def sample(self, key: str, default: float, size: int) -> NDArray[np.float32]:
        """Return `size` values of a parameter, float32 (size,): draws of their own, such as one per agent."""
        sampler = self._samplers.get(key, _constant(default))
        return sampler(size).astype(np.float32)

    def on_message_received(self, msg: IncomingMessage) -> None:
        """Take over a parameter that the trainer set.

        :raises UnitySideChannelException: the message does not have the layout of `EnvironmentParametersChannel`.
        """
        data_types = EnvironmentParametersChannel.EnvironmentDataTypes
        fields = msg.strict()
        message = fields.buffer[fields.offset :]
        key = fields.read_string()
        data_type = fields.read_int32()
        rng = None
        if data_type == data_types.FLOAT:
            sampler = _constant(fields.read_float32())
        elif data_type == data_types.SAMPLER:
            rng = np.random.default_rng(fields.read_int32() & 0xFFFFFFFF)  # NumPy takes no negative seeds
            sampler = _read_sampler(key, fields, rng)
        else:
            raise UnitySideChannelException(f"the parameter {key!r} has the unknown data type {data_type}")
        self._samplers[key], self._sources[key] = sampler, _Source(message, rng)

    def get_state(self) -> Dict[str, Any]:
        """Return what is set, and where the draws from distributions are, as plain data."""
        return {
            key: {
                "message": np.frombuffer(source.message, dtype=np.uint8).copy(),
                "rng": None if source.rng is None else source.rng.bit_generator.state,
            }
            for key, source in self._sources.items()
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go on with what `get_state` told, and nothing else."""
        self._samplers.clear()
        self._sources.clear()
        for key, of_parameter in state.items():
            self.on_message_received(IncomingMessage(of_parameter["message"].tobytes()))
            rng = self._sources[key].rng
            if rng is not None:
                rng.bit_generator.state = of_parameter["rng"]


def _constant(value: float) -> Sampler:
    return lambda size: np.full(size, value)


def _uniform(rng: np.random.Generator, low: float, high: float) -> Sampler:
    return lambda size: low + (high - low) * rng.random(size)


def _gaussian(rng: np.random.Generator, mean: float, st_dev: float) -> Sampler:
    return lambda size: mean + st_dev * rng.standard_normal(size)


def _multirange_uniform(rng: np.random.Generator, intervals: NDArray[np.float64]) -> Sampler:
    """Draw from intervals (n, 2) of (min, max), each as likely as it is long; points alone are equally likely."""
    low, length = intervals[:, 0], intervals[:, 1] - intervals[:, 0]
    sizes = np.abs(length) if length.any() else np.ones_like(length)
    weights = sizes / sizes.sum()

    def draw(size: int) -> NDArray[np.float64]:
        chosen = rng.choice(len(low), size=size, p=weights)
        values: NDArray[np.float64] = low[chosen] + length[chosen] * rng.random(size)
        return values

    return draw


def _read_sampler(key: str, fields: IncomingMessage, rng: np.random.Generator) -> Sampler:
    """Read the rest of a sampler's message."""
    sampler_types = EnvironmentParametersChannel.SamplerTypes
    sampler_type = fields.read_int32()
    if sampler_type == sampler_types.UNIFORM:
        return _uniform(rng, fields.read_float32(), fields.read_float32())
    if sampler_type == sampler_types.GAUSSIAN:
        return _gaussian(rng, fields.read_float32(), fields.read_float32())
    if sampler_type == sampler_types.MULTIRANGEUNIFORM:
        ends = fields.read_float32_list()
        if not ends or len(ends) % 2:
            raise UnitySideChannelException(
                f"the sampler of {key!r} needs its intervals as pairs of min and max, and has {len(ends)} numbers"
            )
        return _multirange_uniform(rng, np.array(ends).reshape(-1, 2))
    raise UnitySideChannelException(f"the sampler of {key!r} has the unknown type {sampler_type}")


class SideChannelRelay(SideChannel):
    """Stands for all channels of a trainer in another process: passes its messages on, whatever their channels.

    It is the only side channel of its environment. What it queues are runs of messages, with their headers.
    """

    def __init__(self) -> None:
        super().__init__(uuid.UUID(int=0))
        self._for_trainer = bytearray()

    def receive_from_trainer(self, data: bytes) -> None:
        """Queue a run of messages for the environment, in the place of any that it did not take."""
        self.message_queue[:] = [data] if data else []

    def take_for_trainer(self) -> bytes:
        """Return the run of messages that the environment has sent since the last call."""
        taken, self._for_trainer = bytes(self._for_trainer), bytearray()
        return taken

    def on_message_received(self, msg: IncomingMessage) -> None:
        """Keep a run of messages from the environment."""
        self.process_side_channel_message(msg.get_raw_bytes())

    def process_side_channel_message(self, data: bytes) -> None:
        """Keep a run of messages from the environment, as a `SideChannelManager` would take it."""
        self._for_trainer += data

    def generate_side_channel_messages(self) -> bytearray:
        """Return the queued runs and empty the queue, as a `SideChannelManager` does."""
        run = bytearray().join(self.message_queue)
        self.message_queue.clear()
        return run


class EnvironmentSideChannels:
    """Carries messages between a trainer's side channels and an environment in Python.

    :param side_channels: the trainer's ends, or a `SideChannelRelay` to them.
    """

    def __init__(self, side_channels: Optional[Sequence[SideChannel]] = None):
        self.parameters = EnvironmentParameters()
        self._trainer_channels = tuple(side_channels or ())
        self._relay = next((c for c in self._trainer_channels if isinstance(c, SideChannelRelay)), None)
        self._trainer_end = self._relay or SideChannelManager(self._trainer_channels)
        self._trainer_channel_ids = {channel.channel_id for channel in self._trainer_channels}
        self._handlers: Dict[uuid.UUID, Callable[[IncomingMessage], None]] = {}
        self.on_message(EnvironmentParametersChannel.CHANNEL_ID, self.parameters.on_message_received)
        self._outgoing = bytearray()

    def on_message(self, channel_id: uuid.UUID, handler: Callable[[IncomingMessage], None]) -> None:
        """Let `handler` take the messages of a channel from now on."""
        self._handlers[channel_id] = handler

    def send(self, channel_id: uuid.UUID, msg: OutgoingMessage) -> None:
        """Queue a message for the trainer; where the trainer is known to have no such channel, it is dropped."""
        if channel_id in self._trainer_channel_ids or self._relay is not None:
            self._outgoing += join_message(channel_id, bytes(msg.buffer))

    def add_stat(
        self, key: str, value: float, aggregation: StatsAggregationMethod = StatsAggregationMethod.AVERAGE
    ) -> None:
        """Queue a value of a statistic for the trainer."""
        msg = OutgoingMessage()
        msg.write_string(key)
        msg.write_float32(value)
        msg.write_int32(aggregation.value)
        self.send(StatsSideChannel.CHANNEL_ID, msg)

    def exchange(self) -> None:
        """Deliver what both ends have queued, the trainer's messages first; the environment's step and reset call it.

        Channels that the environment does not listen to are passed over.

        :raises UnitySideChannelException: a message does not have its channel's layout.
        """
        for channel in self._trainer_channels:
            if channel.message_queue:
                self._deliver_to_environment()
                break
        if self._outgoing:
            outgoing, self._outgoing = bytes(self._outgoing), bytearray()
            self._trainer_end.process_side_channel_message(outgoing)

    def _deliver_to_environment(self) -> None:
        for channel_id, payload in split_messages(bytes(self._trainer_end.generate_side_channel_messages())):
            handler = self._handlers.get(channel_id)
            if handler is None:
                logger.debug(f"The environment does not listen to the side channel {channel_id}.")
                continue
            try:
                handler(IncomingMessage(payload))
            except UnitySideChannelException as error:
                raise UnitySideChannelException(f"side channel {channel_id}: {error}") from error
