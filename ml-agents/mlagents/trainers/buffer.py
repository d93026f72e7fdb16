"""Experience in columns: one growing array per key, that reads like the lists plug-ins were written for."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, MutableMapping
from typing import Any, BinaryIO, Dict, List, Mapping, Optional, Union

import numpy as np

from mlagents.trainers.buffer_field import AgentBufferField, BufferEntry, BufferException
from mlagents.trainers.buffer_file import opened, write_fields
from mlagents.trainers.buffer_keys import (
    AgentBufferKey,
    BufferKey,
    ObservationKeyPrefix,
    RewardSignalKeyPrefix,
    RewardSignalUtil,
)

__all__ = [
    "AgentBuffer",
    "AgentBufferField",
    "AgentBufferKey",
    "BufferEntry",
    "BufferException",
    "BufferKey",
    "ObservationKeyPrefix",
    "RewardSignalKeyPrefix",
    "RewardSignalUtil",
]


class AgentBuffer(MutableMapping):  # type: ignore[type-arg]
    """Columns of experience by key, all of one length: a trajectory, the data of an update, or a minibatch.

    A missing key reads as an empty column, which is then there.

    :ivar agent_id: whose trajectory this is; None where it is not one agent's.
    :ivar ends_episode: whether the agent's episode ends with the last row, finished or interrupted.
    """

    CHECK_KEY_TYPES_AT_RUNTIME = False

    def __init__(self) -> None:
        self._fields: Dict[AgentBufferKey, AgentBufferField] = {}
        self.agent_id: Optional[str] = None
        self.ends_episode = False

    def __getitem__(self, key: AgentBufferKey) -> AgentBufferField:
        field = self._fields.get(key)
        if field is None:
            self._check_key(key)
            field = self._fields[key] = self._new_field(key)
        return field

    def _new_field(self, key: AgentBufferKey) -> AgentBufferField:
        return AgentBufferField()

    def __setitem__(self, key: AgentBufferKey, value: Any) -> None:
        self._check_key(key)
        self._fields[key] = value if isinstance(value, AgentBufferField) else AgentBufferField(value)

    def __delitem__(self, key: AgentBufferKey) -> None:
        del self._fields[key]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)

    def __contains__(self, key: object) -> bool:
        return key in self._fields

    def __repr__(self) -> str:
        return f"AgentBuffer({', '.join(f'{key}: {len(field)}' for key, field in self._fields.items())})"

    def _check_key(self, key: Any) -> None:
        if not self.CHECK_KEY_TYPES_AT_RUNTIME or isinstance(key, BufferKey):
            return
        prefix, name = key if isinstance(key, tuple) and len(key) == 2 else (None, None)
        is_observation = isinstance(prefix, ObservationKeyPrefix) and isinstance(name, int)
        is_signal = isinstance(prefix, RewardSignalKeyPrefix) and isinstance(name, str)
        if not (is_observation or is_signal):
            raise KeyError(f"{key!r} is neither a BufferKey nor (ObservationKeyPrefix, int) nor (..., str).")

    def reset_agent(self) -> None:
        """Drop all columns."""
        self._fields.clear()

    @property
    def num_experiences(self) -> int:
        """The number of rows."""
        return len(next(iter(self._fields.values()))) if self._fields else 0

    def check_length(self, key_list: List[AgentBufferKey]) -> bool:
        """Return whether the columns of `key_list` are all there and of one length."""
        if len(key_list) < 2:
            return True
        if not all(key in self for key in key_list):
            return False
        return len({len(self[key]) for key in key_list}) == 1

    def _checked_keys(self, key_list: List[AgentBufferKey] | None) -> List[AgentBufferKey]:
        keys = list(self._fields) if key_list is None else key_list
        if key_list is None:
            is_even = len({len(field) for field in self._fields.values()}) <= 1
        else:
            is_even = self.check_length(keys)
        if not is_even:
            lengths = {str(key): len(self[key]) if key in self else "missing" for key in keys}
            raise BufferException(f"The columns are not of one length: {lengths}.")
        return keys

    def shuffle(self, sequence_length: int, key_list: Optional[List[AgentBufferKey]] = None) -> None:
        """Put whole sequences in random order (NumPy's global generator), the same for all columns.

        Rows beyond the last whole sequence are dropped.

        :raises BufferException: the columns differ in length.
        """
        keys = self._checked_keys(key_list)
        if not keys:
            return
        sequences = np.random.permutation(len(self[keys[0]]) // sequence_length)
        if sequence_length == 1:
            order = sequences
        else:
            order = (sequences[:, None] * sequence_length + np.arange(sequence_length)).reshape(-1)
        for key in keys:
            self[key].permute(order)

    def make_mini_batch(self, start: int, end: int) -> AgentBuffer:
        """Return rows `start` to `end` of every column, sharing memory with this buffer."""
        batch = AgentBuffer()
        for key, field in self._fields.items():
            batch._fields[key] = field.part(start, end)
        return batch

    def parts(self, sizes: Iterable[int]) -> Iterator[AgentBuffer]:
        """Yield so many rows of every column after so many, sharing memory with this buffer.

        A part's columns are cut out when they are first asked for: this buffer's rows have to stay in place until then.
        """
        columns = dict(self._fields)
        start = 0
        for size in sizes:
            yield _Part(columns, start, start + size)
            start += size

    def sample_mini_batch(self, batch_size: int, sequence_length: int = 1) -> AgentBuffer:
        """Return random sequences, with replacement, as copies (NumPy's global generator).

        :param batch_size: rows to return, rounded down to whole sequences, at least one.
        :raises BufferException: the buffer holds no whole sequence.
        """
        n_sequences = max(1, batch_size // sequence_length)
        available = self.num_experiences // sequence_length
        if not available:
            raise BufferException(
                f"A buffer of {self.num_experiences} rows holds no sequence of {sequence_length} to sample."
            )
        order = np.random.randint(0, available, size=n_sequences)
        if sequence_length > 1:
            order = (order[:, None] * sequence_length + np.arange(sequence_length)).reshape(-1)
        batch = AgentBuffer()
        for key, field in self._fields.items():
            batch._fields[key] = field.take(order)
        return batch

    def save_to_file(self, file_object: BinaryIO) -> None:
        """Write all columns as HDF5.

        :param file_object: open for writing, and for reading where the system can.
        :raises BufferException: a column holds what is no number.
        """
        write_fields(file_object, self._fields)

    def load_from_file(self, file_object: BinaryIO) -> None:
        """Replace all columns by those that `save_to_file` wrote.

        :raises BufferException: the file is damaged or another one; the buffer stays as it was.
        """
        with opened(file_object) as columns:
            self._fields = {key: column.field() for key, column in columns.items()}

    def state_dict(self) -> Dict[str, np.ndarray]:
        """Return what `save_to_file` writes, as an array of bytes; nothing of an empty buffer."""
        if not self._fields:
            return {}
        file = io.BytesIO()
        self.save_to_file(file)
        return {"hdf5": np.frombuffer(file.getvalue(), dtype=np.uint8)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Replace all columns by those of which `state_dict` told."""
        if "hdf5" in state:
            self.load_from_file(io.BytesIO(state["hdf5"].tobytes()))
        else:
            self._fields = {}

    def truncate(self, max_length: int, sequence_length: int = 1) -> None:
        """Keep the newest `max_length` rows, rounded down to whole sequences."""
        keep = max_length - max_length % sequence_length
        if keep < self.num_experiences:
            for field in self._fields.values():
                field.keep_last(keep)

    def resequence_and_append(
        self,
        target_buffer: AgentBuffer,
        key_list: Optional[List[AgentBufferKey]] = None,
        batch_size: Optional[int] = None,
        training_length: Optional[int] = None,
    ) -> None:
        """Append this buffer's rows to another's, cut into padded sequences.

        :param batch_size: see `AgentBufferField.get_batch`.
        :param training_length: rows per sequence (T).
        :raises BufferException: the columns differ in length.
        """
        length = training_length or 1
        keys = self._checked_keys(key_list)
        target_buffer._extend({key: self[key].sequences(batch_size, length) for key in keys})
        for key in keys:
            target_buffer[key].padding_value = self[key].padding_value

    def _extend(self, columns: Mapping[AgentBufferKey, Union[np.ndarray, List[Any]]]) -> None:
        """Add rows to columns, each an array or the list of its rows."""
        for key, rows in columns.items():
            self[key].extend(rows)


class _Part(AgentBuffer):
    """Rows `start` to `end` of columns, each of which is cut out when it is first asked for."""

    def __init__(self, columns: Mapping[AgentBufferKey, AgentBufferField], start: int, end: int):
        self._made: Dict[AgentBufferKey, AgentBufferField] = {}
        self._columns, self._start, self._end = columns, start, end
        self.agent_id = None
        self.ends_episode = False

    def __getitem__(self, key: AgentBufferKey) -> AgentBufferField:
        field = self._made.get(key)
        if field is None:
            column = self._columns.get(key)
            if column is None:
                self._check_key(key)
            field = self._new_field(key) if column is None else column.part(self._start, self._end)
            self._made[key] = field
        return field

    def __contains__(self, key: object) -> bool:
        return key in self._made or key in self._columns

    @property
    def _fields(self) -> Dict[AgentBufferKey, AgentBufferField]:
        """All columns, in their order; for everything that is not asked all the time."""
        if self._columns:
            own = {key: self[key] for key in self._columns}
            self._made = {**own, **self._made}
            self._columns = {}
        return self._made

    @_fields.setter
    def _fields(self, fields: Dict[AgentBufferKey, AgentBufferField]) -> None:
        self._made, self._columns = fields, {}
