"""From agents' messages to columns."""

from __future__ import annotations

import math
from typing import Dict, Iterator, List, Optional, Tuple

import numpy as np
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from mlagents_envs.base_env import (
    ActionSpec,
    BehaviorName,
    BehaviorSpec,
    DecisionSteps,
    DimensionProperty,
    ObservationSpec,
    ObservationType,
    TerminalSteps,
)
from mlagents_envs.communicator_objects.agent_info_pb2 import AgentInfoProto
from mlagents_envs.communicator_objects.brain_parameters_pb2 import BrainParametersProto
from mlagents_envs.communicator_objects.observation_pb2 import ObservationProto, ObservationTypeProto
from mlagents_envs.communicator_objects.space_type_pb2 import continuous
from mlagents_envs.exception import UnityCommunicationException, UnityObservationException
from mlagents_envs.wire.fields import malformed
from mlagents_envs.wire.images import decode_image
from mlagents_envs.wire.layout import (
    CHANNEL_LAST,
    IMAGE_RANK,
    Layout,
    ObservationPlace,
    Span,
    UnusualError,
    name_of,
    read_varint_column,
)
from mlagents_envs.wire.messages import RawAgentInfos
from mlagents_envs.wire.repetition import Repetition

_FLOAT = np.dtype("<f4")
_MAX_LAYOUTS_PER_LENGTH = 4
_MAX_LENGTHS = 64
_MAX_COMPARED_BYTES = 4096
"""What is remembered for the next messages; others are read field by field."""
_MAX_VALUES = 1 << 26
_MAX_RANK = 16
"""Of an observation, or of choices; a specification that says more is broken, and would fill the memory."""
_MAX_GATHERED_BYTES = 1 << 12
"""Longer messages that do not lie at equal distances are not copied side by side, but read in runs of those that do."""


class StepsDecoder:
    """Reads the steps of one behaviour.

    It remembers the layouts of the messages it has met: in the steady state nothing is read field by field.

    :param behavior_id: its name on the wire, for error messages.
    :param spec: of the behaviour.
    """

    def __init__(self, behavior_id: BehaviorName, spec: BehaviorSpec):
        self.behavior_id = behavior_id
        self.spec = spec
        self._layouts: Dict[int, List[Layout]] = {}
        self._known_ids = b""
        """Ids that are known not to repeat."""
        self._repetition: Optional[Repetition] = None
        self._last_ends = b""
        """Where the messages of the agents lay in the last message, if it was such as to be repeated."""
        self._none_ended = TerminalSteps.empty(spec)
        self._least_bytes = _FLOAT.itemsize * sum(
            math.prod(observation.shape)
            for observation in spec.observation_specs
            if len(observation.shape) != IMAGE_RANK  # those may be compressed
        )

    def decode(self, infos: RawAgentInfos) -> Tuple[DecisionSteps, TerminalSteps]:
        """Return the agents that wait for a decision, and those whose episode has ended, in the order of the message.

        :raises UnityCommunicationException: the bytes are no message, or an agent waits for two decisions.
        :raises UnityObservationException: an observation or a reward is not finite, or does not fit the specification.
        """
        n_agents = len(infos)
        if n_agents == 0:
            return DecisionSteps.empty(self.spec), self._none_ended
        repeated = self._read_repeated(infos)
        if repeated is not None:
            return repeated, self._none_ended
        lengths = infos.ends - infos.starts
        if lengths.min() < self._least_bytes:
            self._layout_of(infos.entry(int(lengths.argmin())))  # raises, before there is room for what did not come
        columns = _Columns(n_agents, self.behavior_id, self.spec)
        different = set(lengths.tolist())
        for length in different:
            rows = columns.everyone if len(different) == 1 else np.flatnonzero(lengths == length)
            self._read_length(infos, length, rows, columns)
        self._check_finite(columns)
        steps = self._split(columns)
        self._expect_repetition(infos, columns)
        return steps

    def _read_repeated(self, infos: RawAgentInfos) -> Optional[DecisionSteps]:
        """Return the steps of a message that repeats an earlier one in all but its values, None for others."""
        known = self._repetition
        values = known.read(infos) if known is not None and known.is_as_long(infos) else None
        if known is None or values is None or not _are_finite([*values.obs, values.reward, values.group_reward]):
            return None
        return DecisionSteps(
            values.obs, values.reward, known.agent_id.copy(), None, known.group_id.copy(), values.group_reward
        )

    def _expect_repetition(self, infos: RawAgentInfos, columns: _Columns) -> None:
        """Prepare for more messages like this one where it is the second of its kind in which nobody ended."""
        ends, self._last_ends = self._last_ends, b""
        if columns.done.any() or not Repetition.suits(infos, columns.layouts):
            return
        self._last_ends = (infos.ends - infos.starts[0]).tobytes()
        if self._last_ends == ends:
            self._repetition = Repetition(infos, columns.layouts, self.spec, columns.agent_id, columns.group_id)

    def _read_length(self, infos: RawAgentInfos, length: int, rows: NDArray[np.intp], columns: _Columns) -> None:
        """Read the messages of one length, which are those at `rows`."""
        rows = self._read_known(infos, length, rows, columns)
        n_new = 0
        while len(rows):
            row, rows = int(rows[0]), rows[1:]
            layout = self._read_new(infos.entry(row), row, columns)
            if layout is None or layout.size > _MAX_COMPARED_BYTES or n_new == _MAX_LAYOUTS_PER_LENGTH:
                continue
            n_new += 1
            self._remember(layout, length)
            rows = self._read_known(infos, length, rows, columns)

    def _read_known(
        self, infos: RawAgentInfos, length: int, rows: NDArray[np.intp], columns: _Columns
    ) -> NDArray[np.intp]:
        """Read those messages of one length whose layouts are known; return the rows of the others."""
        unread = [rows[:0]]
        for indices, entries in _side_by_side(infos, length, rows):
            for layout in self._layouts.get(length, ()):
                differences = layout.differences(entries)
                if not differences.any():
                    columns.read(entries, indices, layout)
                    break
                fits = ~differences.any(axis=1)
                if fits.any():
                    columns.read(entries[fits], indices[fits], layout)
                    entries, indices = entries[~fits], indices[~fits]
            else:
                unread.append(indices)
        return np.concatenate(unread)

    def _read_new(self, entry: bytes, row: int, columns: _Columns) -> Optional[Layout]:
        """Read a message field by field; return its layout, None where no other message will have it."""
        layout, written = self._layout_of(entry)
        columns.read(_as_row(written), np.array([row]), layout)
        return layout if written is entry else None

    def _layout_of(self, entry: bytes) -> Tuple[Layout, bytes]:
        """Return the layout of a message and its bytes, which are others where it is not written as usual."""
        try:
            return Layout(entry, self.behavior_id, self.spec), entry
        except UnusualError:
            written = _written_anew(entry)
            return Layout(written, self.behavior_id, self.spec), written

    def _remember(self, layout: Layout, length: int) -> None:
        """Keep a layout for the next messages, in the place of the oldest where there are too many."""
        if length not in self._layouts and len(self._layouts) >= _MAX_LENGTHS:
            self._layouts.clear()
        layouts = self._layouts.setdefault(length, [])
        layouts.insert(0, layout)
        del layouts[_MAX_LAYOUTS_PER_LENGTH:]

    def _check_finite(self, columns: _Columns) -> None:
        """Refuse NaN and infinity: training on them would ruin a model."""
        values = [*columns.obs, columns.reward, columns.group_reward]
        if _are_finite(values):
            return
        sensors = [name_of(sensor, index) for index, sensor in enumerate(self.spec.observation_specs)]
        for name, column in zip([*sensors, "reward", "group reward"], values):
            is_finite = np.isfinite(column).reshape(len(column), -1).all(axis=1)
            if not is_finite.all():
                row = int(np.flatnonzero(~is_finite)[0])
                found = column[row][~np.isfinite(column[row])].flat[0] if column.ndim > 1 else column[row]
                raise UnityObservationException(
                    f"The environment sent a value that is not finite: behavior {self.behavior_id}, agent "
                    f"{columns.agent_id[row]}, {name}: {found}."
                )

    def _split(self, columns: _Columns) -> Tuple[DecisionSteps, TerminalSteps]:
        """Part those that wait from those that ended."""
        if not columns.done.any():
            self._check_unique(columns.agent_id)
            return columns.decision_steps(slice(None)), self._none_ended
        waiting, ended = np.flatnonzero(~columns.done), np.flatnonzero(columns.done)
        self._check_unique(columns.agent_id[waiting])
        return columns.decision_steps(waiting), columns.terminal_steps(ended)

    def _check_unique(self, agent_ids: NDArray[np.int32]) -> None:
        as_bytes = agent_ids.tobytes()
        if as_bytes == self._known_ids:
            return
        ids, counts = np.unique(agent_ids, return_counts=True)
        if (counts > 1).any():
            raise UnityCommunicationException(
                f"The environment asks twice in one message for a decision of agent {ids[counts > 1][0]} of behavior "
                f"{self.behavior_id}."
            )
        self._known_ids = as_bytes


def _are_finite(columns: List[NDArray[np.float32]]) -> bool:
    """Return whether no value is NaN or infinite; for huge ones, whose squares are, it may say False."""
    return all(math.isfinite(np.vdot(column, column)) for column in columns)


class _Columns:
    """The values of all agents of a message, zero where they are left out."""

    def __init__(self, n_agents: int, behavior_id: BehaviorName, spec: BehaviorSpec):
        self._behavior_id = behavior_id
        self._spec = spec
        shapes = [o.shape for o in spec.observation_specs]
        self._obs_bytes = [np.empty((n_agents, _FLOAT.itemsize * math.prod(shape)), np.uint8) for shape in shapes]
        self.obs = [data.view(_FLOAT).reshape(n_agents, *shape) for data, shape in zip(self._obs_bytes, shapes)]
        self.reward, self.group_reward = np.zeros(n_agents, np.float32), np.zeros(n_agents, np.float32)
        self.agent_id, self.group_id = np.zeros(n_agents, np.int32), np.zeros(n_agents, np.int32)
        self.done, self.interrupted = np.zeros(n_agents, np.bool_), np.zeros(n_agents, np.bool_)
        self.everyone = np.arange(n_agents)
        self.layouts: List[Tuple[NDArray[np.intp], Layout]] = []
        """What was read, as the rows (K,) that had each layout."""
        self._mask: Optional[NDArray[np.bool_]] = None

    def read(self, entries: NDArray[np.uint8], rows: NDArray[np.intp], layout: Layout) -> None:
        """Read messages (K, length) that have a layout into the rows (K,)."""
        self.layouts.append((rows, layout))
        at = slice(None) if len(rows) == len(self.done) else rows  # rows ascend
        for target, place in ((self.reward, layout.reward), (self.group_reward, layout.group_reward)):
            if place is not None:
                target[at] = entries[:, slice(*place)].copy().view(_FLOAT)[:, 0]
        for numbers, place in ((self.agent_id, layout.agent_id), (self.group_id, layout.group_id)):
            if place is not None:
                numbers[at] = read_varint_column(entries, place)
        for flags, place in ((self.done, layout.done), (self.interrupted, layout.interrupted)):
            if place is not None:
                flags[at] = read_varint_column(entries, place) != 0
        if layout.mask is not None:
            self._read_mask(entries, at, layout.mask)
        for index, observation in enumerate(layout.observations):
            self._read_observation(entries, at, index, observation)

    def _read_mask(self, entries: NDArray[np.uint8], at: slice | NDArray[np.intp], place: Span) -> None:
        size = sum(self._spec.action_spec.discrete_branches)
        if self._mask is None:
            self._mask = np.zeros((len(self.done), size), dtype=np.bool_)
        sent = entries[:, slice(*place)][:, :size].astype(np.bool_)
        self._mask[at, : sent.shape[1]] = sent

    def _read_observation(
        self, entries: NDArray[np.uint8], at: slice | NDArray[np.intp], index: int, place: ObservationPlace
    ) -> None:
        if place.is_png:
            for row, entry in zip(np.arange(len(self.done))[at], entries):
                self.obs[index][row] = self._decode_image(entry[slice(*place.values)].tobytes(), row, index, place)
            return
        values = entries[:, slice(*place.values)]
        if place.is_channel_last:
            images = values.copy().view(_FLOAT).reshape(len(entries), *place.shape)
            self.obs[index][at] = np.moveaxis(images, -1, 1)
        else:
            self._obs_bytes[index][at] = values

    def _decode_image(self, data: bytes, row: int, index: int, place: ObservationPlace) -> NDArray[np.float32]:
        spec = self._spec.observation_specs[index]
        n_channels, height, width = spec.shape
        try:
            return decode_image(data, n_channels, place.mapping, (height, width))
        except UnityObservationException as error:
            raise UnityObservationException(
                f"The environment sent an image that cannot be used (behavior {self._behavior_id}, agent "
                f"{self.agent_id[row]}, {name_of(spec, index)}): {error}."
            ) from None

    def decision_steps(self, rows: slice | NDArray[np.intp]) -> DecisionSteps:
        """Return some agents as those who wait."""
        masks = None
        if self._mask is not None and self._spec.action_spec.discrete_size:
            ends = np.cumsum(self._spec.action_spec.discrete_branches)[:-1]
            masks = np.split(self._mask[rows], ends, axis=1)
        return DecisionSteps(
            [obs[rows] for obs in self.obs],
            self.reward[rows],
            self.agent_id[rows],
            masks,
            self.group_id[rows],
            self.group_reward[rows],
        )

    def terminal_steps(self, rows: NDArray[np.intp]) -> TerminalSteps:
        """Return some agents as those who ended."""
        return TerminalSteps(
            [obs[rows] for obs in self.obs],
            self.reward[rows],
            self.interrupted[rows],
            self.agent_id[rows],
            self.group_id[rows],
            self.group_reward[rows],
        )


def _side_by_side(
    infos: RawAgentInfos, length: int, rows: NDArray[np.intp]
) -> Iterator[Tuple[NDArray[np.intp], NDArray[np.uint8]]]:
    """Yield messages of one length as rows of bytes (K, `length`), not copied where they are evenly spaced."""
    if not len(rows):
        return
    starts = infos.starts[rows]
    steps = starts[1:] - starts[:-1]
    step = int(steps[0]) if len(steps) else length
    if len(steps) < 2 or (steps == step).all():
        yield rows, np.ndarray((len(rows), length), np.uint8, infos.data, int(starts[0]), (step, 1))
        return
    data = np.frombuffer(infos.data, dtype=np.uint8)
    if length <= _MAX_GATHERED_BYTES:
        yield rows, data[starts[:, None] + np.arange(length)]
    else:
        for run in np.split(rows, np.flatnonzero(steps != steps.min()) + 1):
            yield from _side_by_side(infos, length, run)


def _as_row(entry: bytes) -> NDArray[np.uint8]:
    return np.frombuffer(entry, dtype=np.uint8)[None]


def _written_anew(entry: bytes) -> bytes:
    """Return a message as protobuf itself would write it.

    :raises UnityCommunicationException: the bytes are no message.
    """
    info = _parse(entry)
    info.DiscardUnknownFields()
    written: bytes = info.SerializeToString()
    return written


def _parse(entry: bytes) -> AgentInfoProto:
    try:
        return AgentInfoProto.FromString(entry)
    except DecodeError as error:
        raise malformed(str(error)) from None


def read_behavior_spec(brain: BrainParametersProto, infos: RawAgentInfos) -> BehaviorSpec:
    """Return the specification of a behaviour, of which an environment sends a part with its first agent.

    :param infos: at least one.
    :raises UnityCommunicationException: the bytes are no message, no agent came with the behaviour, or its actions
        cannot be.
    :raises UnityObservationException: an observation of the agent cannot be.
    """
    if not len(infos):
        raise UnityCommunicationException(f"The environment introduces the behavior {brain.brain_name} without agents.")
    return behavior_spec(brain, _parse(infos.entry(0)))


def behavior_spec(brain: BrainParametersProto, info: AgentInfoProto) -> BehaviorSpec:
    """Return the specification that a behaviour's parameters and one of its agents make up.

    :raises UnityCommunicationException: its actions cannot be.
    :raises UnityObservationException: an observation of the agent cannot be.
    """
    observations = [
        _observation_spec(observation, f"behavior {brain.brain_name}, {name_of(observation, index)}")
        for index, observation in enumerate(info.observations)
    ]
    return BehaviorSpec(observations, _action_spec(brain))


def _observation_spec(observation: ObservationProto, whose: str) -> ObservationSpec:
    shape = tuple(observation.shape)
    n_values = math.prod(max(size, 1) for size in shape)
    if min(shape, default=0) < 0 or len(shape) > _MAX_RANK or n_values > _MAX_VALUES:
        raise UnityObservationException(f"The environment announces observations of shape {shape} ({whose}).")
    if observation.observation_type not in ObservationTypeProto.values():
        raise UnityObservationException(
            f"The environment announces observations of the unknown type {observation.observation_type} ({whose})."
        )
    properties = tuple(DimensionProperty(value) for value in observation.dimension_properties)
    if len(shape) == IMAGE_RANK and properties == CHANNEL_LAST:
        shape, properties = shape[-1:] + shape[:-1], properties[-1:] + properties[:-1]
    properties = properties or (DimensionProperty.UNSPECIFIED,) * len(shape)
    return ObservationSpec(shape, properties, ObservationType(observation.observation_type), observation.name)


def _action_spec(brain: BrainParametersProto) -> ActionSpec:
    if brain.HasField("action_spec"):
        spec = brain.action_spec
        n_continuous, branches = spec.num_continuous_actions, tuple(spec.discrete_branch_sizes)
    else:
        sizes = tuple(brain.vector_action_size_deprecated)
        is_continuous = brain.vector_action_space_type_deprecated == continuous
        n_continuous, branches = (sum(sizes), ()) if is_continuous else (0, sizes)
    if min(n_continuous, min(branches, default=1) - 1) < 0 or n_continuous + sum(branches) > _MAX_VALUES:
        raise UnityCommunicationException(
            f"The environment announces {n_continuous} continuous actions and discrete ones of {branches} choices in "
            f"the behavior {brain.brain_name}."
        )
    return ActionSpec(n_continuous, branches)
