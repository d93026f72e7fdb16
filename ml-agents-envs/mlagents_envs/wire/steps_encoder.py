"""Steps from columns to the bytes of a message, without a loop over agents.

The bytes are what a Unity build writes: fields in the order of their numbers, and those that are zero left out. So the
agents' messages differ in length, which is why every field is first written for all agents at its greatest width,
beside a mask of the bytes that are meant.
"""

from __future__ import annotations

import io
from functools import lru_cache
from typing import List, NamedTuple, Optional, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mlagents_envs.base_env import BehaviorName, BehaviorSpec, DecisionSteps, ObservationSpec, TerminalSteps
from mlagents_envs.communicator_objects.observation_pb2 import PNG, ObservationProto
from mlagents_envs.wire.fields import DELIMITED, FIXED32, VARINT, delimited, header

_SHIFTS = np.arange(0, 70, 7, dtype=np.uint64)
"""How far each of the (at most ten) bytes of a varint is shifted."""
_PREFIX_WIDTH = 1 + len(_SHIFTS)
"""The room for a tag and a varint."""


class StepsEncoder:
    """Writes the steps of one behaviour.

    :param behavior_id: its name on the wire, ``NAME?team=N``.
    :param spec: of the behaviour.
    :param png: send images (observations of rank 3, values from 0 to 1) as PNG files, with 8 bits per value.
    """

    def __init__(self, behavior_id: BehaviorName, spec: BehaviorSpec, png: bool = False):
        self._key = delimited(1, behavior_id.encode())
        self._observations = [
            _PngObservation(o) if png and len(o.shape) == 3 else _FloatObservation(o) for o in spec.observation_specs
        ]

    def encode(self, decision_steps: DecisionSteps, terminal_steps: TerminalSteps) -> bytes:
        """Return an entry of `UnityRLOutputProto.agentInfos`, with its tag: the agents that ended, then the others."""
        terminals = self._agent_infos(terminal_steps, done=True, interrupted=terminal_steps.interrupted)
        decisions = self._agent_infos(decision_steps, done=False, action_mask=decision_steps.action_mask)
        return delimited(2, self._key + delimited(2, terminals + decisions))

    def _agent_infos(
        self,
        steps: DecisionSteps | TerminalSteps,
        done: bool,
        interrupted: Optional[NDArray[np.bool_]] = None,
        action_mask: Optional[Sequence[NDArray[np.bool_]]] = None,
    ) -> bytes:
        """Return `ListAgentInfoProto.value` for all agents of a batch."""
        n = len(steps)
        if n == 0:
            return b""
        fields = [_float_field(7, steps.reward)]
        if done:
            fields.append(_constant(_tag(8, VARINT) + b"\1", n))
        if interrupted is not None:
            fields.append(_where(interrupted, _constant(_tag(9, VARINT) + b"\1", n)))
        fields.append(_int_field(10, steps.agent_id))
        if action_mask is not None:
            forbidden = np.concatenate(action_mask, axis=1).astype(np.uint8)
            fields += [_constant(header(11, forbidden.shape[1]), n), _exactly(forbidden)]
        for observation, values in zip(self._observations, steps.obs):
            fields += observation.encode(values)
        if steps.group_id.any():
            fields.append(_int_field(14, steps.group_id))
        fields.append(_float_field(15, steps.group_reward))
        return _messages(1, fields)


class _Rows(NamedTuple):
    """Some bytes of each of N messages: of row n those of `data` where `keep` is true; both (N, width)."""

    data: NDArray[np.uint8]
    keep: NDArray[np.bool_]


class _FloatObservation:
    """Writes an observation as the floats that it consists of."""

    def __init__(self, spec: ObservationSpec):
        self._size = int(np.prod(spec.shape))
        n_bytes = 4 * self._size
        before = ObservationProto(shape=spec.shape).SerializeToString()
        before += header(4, len(header(1, n_bytes)) + n_bytes) + header(1, n_bytes)
        self._after = _meaning(spec)
        self._before = header(13, len(before) + n_bytes + len(self._after)) + before

    def encode(self, values: ArrayLike) -> List[_Rows]:
        """Return `AgentInfoProto.observations` for values (N, *shape)."""
        floats = np.ascontiguousarray(values, dtype="<f4")
        n = len(floats)
        return [
            _constant(self._before, n),
            _exactly(floats.reshape(n, self._size).view(np.uint8)),
            _constant(self._after, n),
        ]


class _PngObservation:
    """Writes an image as PNG files of three channels each, back to back; channels that fill up the last are dropped."""

    def __init__(self, spec: ObservationSpec):
        n_channels = spec.shape[0]
        self._padding = -n_channels % 3
        mapping = [*range(n_channels), *[-1] * self._padding]
        self._before = ObservationProto(shape=spec.shape, compression_type=PNG).SerializeToString()
        self._after = ObservationProto(compressed_channel_mapping=mapping).SerializeToString() + _meaning(spec)

    def encode(self, values: NDArray[np.float32]) -> List[_Rows]:
        """Return `AgentInfoProto.observations` for values (N, C, H, W)."""
        pixels = np.rint(255 * np.clip(values, 0, 1)).astype(np.uint8)
        pixels = np.pad(pixels, ((0, 0), (0, self._padding), (0, 0), (0, 0)))
        files = [b"".join(_png(image[c : c + 3]) for c in range(0, len(image), 3)) for image in pixels]
        return [_ragged([delimited(13, self._before + delimited(3, file) + self._after) for file in files])]


def _tag(field: int, wire_type: int) -> bytes:
    """Return what stands before a field; all fields here have numbers below 16, so one byte."""
    return bytes([field << 3 | wire_type])


def _meaning(spec: ObservationSpec) -> bytes:
    """Return the fields of an observation that come after its data."""
    meaning = ObservationProto(
        dimension_properties=spec.dimension_property, observation_type=spec.observation_type.value, name=spec.name
    )
    return bytes(meaning.SerializeToString())


def _png(pixels: NDArray[np.uint8]) -> bytes:
    """Return a PNG file of pixels (3, H, W)."""
    from PIL import Image  # only this needs it

    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0))).save(file, format="PNG")
    return file.getvalue()


def _exactly(data: NDArray[np.uint8]) -> _Rows:
    """Return rows that are kept whole."""
    return _Rows(data, np.ones(data.shape, dtype=np.bool_))


@lru_cache(maxsize=256)
def _constant(data: bytes, n: int) -> _Rows:
    """Return the same bytes `n` times; not to be written to."""
    return _exactly(np.broadcast_to(np.frombuffer(data, dtype=np.uint8), (n, len(data))))


def _ragged(rows: Sequence[bytes]) -> _Rows:
    """Return rows of any lengths."""
    lengths = np.array([len(row) for row in rows])
    keep = np.arange(lengths.max()) < lengths[:, None]
    data = np.zeros(keep.shape, dtype=np.uint8)
    data[keep] = np.frombuffer(b"".join(rows), dtype=np.uint8)
    return _Rows(data, keep)


def _where(present: NDArray[np.bool_], rows: _Rows) -> _Rows:
    """Return `rows` with nothing kept of those that are not present."""
    return _Rows(rows.data, rows.keep & present[:, None])


def _int_field(field: int, values: NDArray[np.int32]) -> _Rows:
    """Return an integer field, left out where it is 0."""
    return _where(values != 0, _varints(_tag(field, VARINT), values.astype(np.int64).tobytes()))


def _float_field(field: int, values: NDArray[np.float32]) -> _Rows:
    """Return a float field, left out where all its bits are 0: -0.0 and NaN are sent."""
    data = np.empty((len(values), 5), dtype=np.uint8)
    data[:, 0] = _tag(field, FIXED32)[0]
    data[:, 1:] = np.ascontiguousarray(values, dtype="<f4").view(np.uint8).reshape(-1, 4)
    return _Rows(data, np.repeat(data[:, 1:].any(axis=1), 5).reshape(-1, 5))


@lru_cache(maxsize=256)
def _varints(tag: bytes, values: bytes) -> _Rows:
    """Return a tag and a varint for each of the values (N,), of which these are the bytes as int64.

    Ids and lengths are nearly the same in every step, hence the cache. A negative value takes ten bytes.
    """
    rest = np.frombuffer(values, dtype=np.uint64)[:, None] >> _SHIFTS
    keep = np.ones((len(rest), _PREFIX_WIDTH), dtype=np.bool_)
    keep[:, 2:] = rest[:, 1:] != 0
    data = np.full(keep.shape, tag[0], dtype=np.uint8)
    data[:, 1:] = rest & np.uint64(0x7F)
    data[:, 1:-1] |= keep[:, 2:].view(np.uint8) << np.uint8(7)  # the high bit says that another byte follows
    return _Rows(data, keep)


def _messages(field: int, parts: Sequence[_Rows]) -> bytes:
    """Return the messages that consist of `parts`, one after the other, as entries of a repeated field."""
    room = _constant(bytes(_PREFIX_WIDTH), len(parts[0].data))
    data = np.concatenate([room.data, *[part.data for part in parts]], axis=1)
    keep = np.concatenate([room.keep, *[part.keep for part in parts]], axis=1)
    lengths = keep[:, _PREFIX_WIDTH:].sum(axis=1, dtype=np.int64)
    data[:, :_PREFIX_WIDTH], keep[:, :_PREFIX_WIDTH] = _varints(_tag(field, DELIMITED), lengths.tobytes())
    written: NDArray[np.uint8] = data[keep]
    return written.tobytes()
