"""The buffers of trainers: observations in little memory, and in minibatches without copies of what is not read."""

from __future__ import annotations

from typing import Any, BinaryIO, List, Mapping, Tuple, Union

import numpy as np

from mlagents.trainers.buffer import AgentBuffer, AgentBufferField, AgentBufferKey, ObservationKeyPrefix
from mlagents.trainers.buffer_file import FileColumn, opened, rows_at_once
from mlagents.trainers.observation_field import ObservationField


class RolloutBuffer(AgentBuffer):
    """An `AgentBuffer` that keeps no image twice, and images of 8 bits as bytes; it shuffles them without moving them.

    It differs in nothing else but that of its columns of images one reads copies. Next images are not kept where they
    are the following row's; see `ObservationLog`. A column that is written to otherwise than by
    `resequence_and_append` becomes an ordinary one.
    """

    def _is_compact(self, obs: np.ndarray) -> bool:
        """Return whether such rows are kept in a log: where they are small, a column is read faster."""
        return obs.ndim == 4

    def _new_field(self, key: AgentBufferKey) -> AgentBufferField:
        prefix = key[0] if isinstance(key, tuple) else None
        is_observation = prefix in (ObservationKeyPrefix.OBSERVATION, ObservationKeyPrefix.NEXT_OBSERVATION)
        return ObservationField() if is_observation else AgentBufferField()

    def _extend(self, columns: Mapping[AgentBufferKey, Union[np.ndarray, List[Any]]]) -> None:
        rest = dict(columns)
        for key, next_key in _pairs(columns):
            if self._append_transitions(key, next_key, columns[key], columns[next_key]):
                del rest[key], rest[next_key]
        super()._extend(rest)

    def _append_transitions(self, key: AgentBufferKey, next_key: AgentBufferKey, obs: Any, next_obs: Any) -> bool:
        """Add to the columns of an observation and the next one; return whether they can share these rows."""
        field, next_field = self[key], self[next_key]
        if not (isinstance(field, ObservationField) and isinstance(next_field, ObservationField)):
            return False
        if not (isinstance(obs, np.ndarray) and isinstance(next_obs, np.ndarray) and self._is_compact(obs)):
            return False
        return ObservationField.append_transitions(field, next_field, obs, next_obs)

    def load_from_file(self, file_object: BinaryIO) -> None:
        """Replace all columns by those of a file, however they are kept there.

        :raises BufferException: the file is damaged or another one; the buffer stays as it was.
        """
        loaded = type(self)()
        with opened(file_object) as columns:
            for key, next_key in _pairs(columns):
                loaded._load_observations(key, next_key, columns[key], columns[next_key])
            for key, column in columns.items():
                if key not in loaded:
                    loaded._fields[key] = column.field()
        self._fields = loaded._fields

    def _load_observations(
        self, key: AgentBufferKey, next_key: AgentBufferKey, column: FileColumn, next_column: FileColumn
    ) -> None:
        """Read a pair of columns piece by piece, so that they are never in memory as they are in the file."""
        if column.is_ragged or column.shape != next_column.shape:
            return
        step = rows_at_once(column.shape[1:])
        for start in range(0, max(1, column.shape[0]), step):
            pieces = column.rows(start, start + step), next_column.rows(start, start + step)
            if not self._append_transitions(key, next_key, *pieces):
                del self[key], self[next_key]
                return
        self[key].padding_value, self[next_key].padding_value = column.padding_value, next_column.padding_value


class ReplayBuffer(RolloutBuffer):
    """The same for observations of all kinds: the buffer of trainers that learn from what was done long ago."""

    def _is_compact(self, obs: np.ndarray) -> bool:
        return True


def _pairs(columns: Mapping[AgentBufferKey, Any]) -> List[Tuple[AgentBufferKey, AgentBufferKey]]:
    """Return the keys of the observations whose next ones are there too, each with the key of those."""
    pairs: List[Tuple[AgentBufferKey, AgentBufferKey]] = []
    for key in columns:
        if isinstance(key, tuple) and key[0] is ObservationKeyPrefix.OBSERVATION:
            next_key: AgentBufferKey = (ObservationKeyPrefix.NEXT_OBSERVATION, key[1])
            if next_key in columns:
                pairs.append((key, next_key))
    return pairs
