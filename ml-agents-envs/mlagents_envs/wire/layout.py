"""Where in the bytes of an agent's message its values lie.

The agents of a behaviour send the same fields in the same order: their messages differ in the values, and otherwise
only in which fields are left out, since zeros are, and in how many bytes an integer takes. So a message is read field
by field only once; whichever others have the same bytes wherever no value lies have their values in the same places.
"""

from __future__ import annotations

import math
from typing import Dict, List, NamedTuple, Optional, Tuple

import numpy as np
from numpy.typing import NDArray

from mlagents_envs.base_env import BehaviorName, BehaviorSpec, DimensionProperty, ObservationSpec
from mlagents_envs.communicator_objects.observation_pb2 import PNG, ObservationProto
from mlagents_envs.exception import UnityObservationException
from mlagents_envs.wire.fields import DELIMITED, FIXED32, VARINT, Field, read_fields, read_varint

CHANNEL_LAST = (
    DimensionProperty.TRANSLATIONAL_EQUIVARIANCE,
    DimensionProperty.TRANSLATIONAL_EQUIVARIANCE,
    DimensionProperty.NONE,
)
"""The dimension properties of images (H, W, C), which old packages send."""
IMAGE_RANK = 3
"""How many dimensions images have; only images are compressed."""

_FEW_BYTES = 512
"""In messages up to this length all bytes are compared, which is quicker than to pick those that matter."""

_STRUCTURE, _MORE_BYTES, _NOT_BOOL, _VALUE = 0xFF, 0x80, 0xFE, 0x00
"""Which bits of a byte have to agree: all; whether an integer goes on; all but that of a bool; none."""

_SHIFTS = np.arange(0, 35, 7, dtype=np.uint64)
"""How far each of the bytes of an int32 is shifted that its bits are in."""

_REWARD, _DONE, _INTERRUPTED, _ID, _MASK, _OBSERVATION, _GROUP_ID, _GROUP_REWARD = 7, 8, 9, 10, 11, 13, 14, 15
"""Fields of ``AgentInfoProto``."""
_WIRE_TYPES = {
    _REWARD: FIXED32,
    _DONE: VARINT,
    _INTERRUPTED: VARINT,
    _ID: VARINT,
    _MASK: DELIMITED,
    _OBSERVATION: DELIMITED,
    _GROUP_ID: VARINT,
    _GROUP_REWARD: FIXED32,
}
_SHAPE, _COMPRESSION, _COMPRESSED, _FLOATS, _MAPPING, _DIMENSIONS, _TYPE, _NAME = range(1, 9)
"""Fields of ``ObservationProto``."""
_OBSERVATION_WIRE_TYPES = {
    _SHAPE: DELIMITED,
    _COMPRESSION: VARINT,
    _COMPRESSED: DELIMITED,
    _FLOATS: DELIMITED,
    _MAPPING: DELIMITED,
    _DIMENSIONS: DELIMITED,
    _TYPE: VARINT,
    _NAME: DELIMITED,
}


class UnusualError(Exception):
    """A message is written in a way that is allowed and that nobody writes, such as a value given twice."""


class Span(NamedTuple):
    """Bytes of a message."""

    start: int
    end: int


class ObservationPlace(NamedTuple):
    """Where an observation lies.

    :param values: its floats, or with `is_png` its PNG files.
    :param shape: as sent, of the floats.
    :param is_channel_last: an image (H, W, C), to be turned.
    :param mapping: of the channels of PNG files.
    """

    values: Span
    shape: Tuple[int, ...]
    is_channel_last: bool
    is_png: bool
    mapping: Tuple[int, ...]


class Layout:
    """Where the values lie in an ``AgentInfoProto``.

    :param entry: a message that has the layout.
    :param behavior_id: for error messages.
    :raises UnusualError: the message has to be written anew first.
    :raises UnityCommunicationException: the bytes are no message.
    :raises UnityObservationException: the observations are not those of the behaviour.
    """

    def __init__(self, entry: bytes, behavior_id: BehaviorName, spec: BehaviorSpec):
        bits = np.full(len(entry), _STRUCTURE, dtype=np.uint8)
        scalars: Dict[int, Span] = {}
        observations: List[Field] = []
        for field in read_fields(entry, 0, len(entry)):
            if _WIRE_TYPES.get(field.number) != field.wire_type:
                if field.number == _MASK:
                    raise UnusualError  # not packed
                bits[field.start : field.end] = _MORE_BYTES if field.wire_type == VARINT else _VALUE
            elif field.number == _OBSERVATION:
                observations.append(field)
            elif field.number in scalars:
                raise UnusualError
            else:
                scalars[field.number] = Span(field.start, field.end)
                bits[field.start : field.end] = {FIXED32: _VALUE, VARINT: _MORE_BYTES, DELIMITED: _NOT_BOOL}[
                    field.wire_type
                ]
        self.reward, self.group_reward = scalars.get(_REWARD), scalars.get(_GROUP_REWARD)
        self.agent_id, self.group_id = scalars.get(_ID), scalars.get(_GROUP_ID)
        self.done, self.interrupted = scalars.get(_DONE), scalars.get(_INTERRUPTED)
        self.mask = scalars.get(_MASK)
        if self.mask is not None and max(entry[self.mask.start : self.mask.end], default=0) > 1:
            raise UnusualError
        if any(flag is not None and flag.end - flag.start > 1 for flag in (self.done, self.interrupted)):
            raise UnusualError
        whose = f"behavior {behavior_id}, agent {_read_integer(entry, self.agent_id)}"
        if len(observations) != len(spec.observation_specs):
            raise UnityObservationException(
                f"The environment sent {len(observations)} observations of {whose}, whose specification has "
                f"{len(spec.observation_specs)}."
            )
        self.observations = [
            _read_observation(entry, field, observation, f"{whose}, {name_of(observation, index)}", bits)
            for index, (field, observation) in enumerate(zip(observations, spec.observation_specs))
        ]
        self._bits = bits
        self._expected = np.frombuffer(entry, dtype=np.uint8) & bits
        self._positions = bits.nonzero()[0] if len(entry) > _FEW_BYTES else slice(None)
        if len(entry) > _FEW_BYTES:
            self._bits, self._expected = bits[self._positions], self._expected[self._positions]

    @property
    def size(self) -> int:
        """How many bytes are compared."""
        return len(self._bits)

    def differences(self, entries: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return in which bits messages as long as the one it was read from have another layout, 0 in none, (N, K).

        :param entries: their bytes (N, length).
        """
        found: NDArray[np.uint8] = (entries[:, self._positions] & self._bits) ^ self._expected
        return found


def _read_observation(
    data: bytes, field: Field, spec: ObservationSpec, whose: str, bits: NDArray[np.uint8]
) -> ObservationPlace:
    """Find the values of an ``ObservationProto``, and mark them in `bits`."""
    parts: Dict[int, Span] = {}
    for part in read_fields(data, field.start, field.end):
        if _OBSERVATION_WIRE_TYPES.get(part.number) == part.wire_type:
            if part.number in parts:
                raise UnusualError
            parts[part.number] = Span(part.start, part.end)
        elif part.number in (_SHAPE, _MAPPING, _DIMENSIONS):
            raise UnusualError  # not packed
    if _COMPRESSED in parts and _FLOATS in parts:
        raise UnusualError
    if _NAME in parts:
        bits[slice(*parts[_NAME])] = _VALUE
    shape = _read_integers(data, parts.get(_SHAPE))
    is_image = len(shape) == IMAGE_RANK
    is_channel_last = is_image and _read_integers(data, parts.get(_DIMENSIONS)) == CHANNEL_LAST
    is_png = is_image and _read_integer(data, parts.get(_COMPRESSION)) == PNG
    as_specified = shape[-1:] + shape[:-1] if is_channel_last else shape
    if as_specified != tuple(spec.shape):
        raise UnityObservationException(
            f"The environment sent an observation of shape {as_specified} ({whose}), whose specification says "
            f"{tuple(spec.shape)}."
        )
    if is_png:
        values = parts.get(_COMPRESSED, Span(field.end, field.end))
    else:
        values = _read_floats(data, parts.get(_FLOATS, Span(field.end, field.end)))
        n_floats = math.prod(shape)
        if values.end - values.start != 4 * n_floats:
            raise UnityObservationException(
                f"The environment sent an observation of {(values.end - values.start) / 4:g} values ({whose}), whose "
                f"shape {shape} needs {n_floats}."
            )
    bits[slice(*values)] = _VALUE
    mapping = _read_integers(data, parts.get(_MAPPING)) if is_png else ()
    return ObservationPlace(values, shape, is_channel_last, is_png, mapping)


def _read_floats(data: bytes, span: Span) -> Span:
    """Return where the numbers of a ``FloatData`` lie."""
    packed: Optional[Span] = None
    for field in read_fields(data, *span):
        if field.number == 1:
            if packed is not None or field.wire_type != DELIMITED:
                raise UnusualError
            packed = Span(field.start, field.end)
    return packed or Span(span.end, span.end)


def _read_integers(data: bytes, span: Optional[Span]) -> Tuple[int, ...]:
    """Return the numbers of a packed field of int32."""
    numbers: List[int] = []
    at, end = span or (0, 0)
    while at < end:
        number, at = read_varint(data, at, end)
        numbers.append(_to_int32(number))
    return tuple(numbers)


def _read_integer(data: bytes, span: Optional[Span]) -> int:
    """Return a single int32, 0 where it is left out."""
    return 0 if span is None else _to_int32(read_varint(data, *span)[0])


def _to_int32(number: int) -> int:
    """Return what a varint says as an int32, whose negative numbers are written as if they had 64 bits."""
    return (number + 2**31) % 2**32 - 2**31


def name_of(sensor: ObservationSpec | ObservationProto, index: int) -> str:
    """Return what a sensor is called in messages: by its name, or its place among the agent's."""
    return f"sensor {sensor.name or index!r}"


def read_varint_column(entries: NDArray[np.uint8], span: Span) -> NDArray[np.int32]:
    """Return the int32 that lies in a span of each message, (N,)."""
    if span.end - span.start == 1:
        return entries[:, span.start].astype(np.int32)
    septets = (entries[:, span.start : min(span.end, span.start + 5)] & 0x7F).astype(np.uint64)
    numbers = (septets << _SHIFTS[: septets.shape[1]]).sum(axis=1, dtype=np.uint64)
    column: NDArray[np.int32] = numbers.astype(np.uint32).view(np.int32)
    return column
