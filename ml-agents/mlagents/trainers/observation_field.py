"""A column of a replay buffer whose rows stand in a log of observations."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Dict, List, Optional, Tuple, Union

import numpy as np

from mlagents.trainers.buffer_field import AgentBufferField, BufferEntry
from mlagents.trainers.observation_log import ObservationLog, as_floats


class ObservationField(AgentBufferField):
    """Observations of a replay buffer, or those one step later: rows that it finds in a log which both share.

    It reads as an `AgentBufferField` does, except that what is read is a copy. As soon as rows are written to,
    inserted, deleted, or added otherwise than by `append_transitions`, it is an `AgentBufferField` like others.
    """

    def __init__(self) -> None:
        super().__init__()
        self._log: Optional[ObservationLog] = None
        self._places = AgentBufferField(np.zeros(0, dtype=np.int64))  # (B,) in the log
        self._blocks: Dict[int, np.ndarray] = {}  # of the log, those that rows of this column stand in

    @staticmethod
    def append_transitions(
        field: ObservationField, next_field: ObservationField, obs: np.ndarray, next_obs: np.ndarray
    ) -> bool:
        """Add rows to a column of observations and to the one of what was observed one step later.

        :return: whether the columns can take them, which else stay as they are.
        """
        log = field._log or ObservationLog(obs.shape[1:])
        fits = obs.shape == next_obs.shape and obs.shape[1:] == log.shape and obs.dtype == next_obs.dtype == np.float32
        if not fits or field._log is not next_field._log:
            return False
        added = log.append(obs, next_obs)
        for each, places in ((field, added.places), (next_field, added.places + 1)):
            each._log = log
            each._places.extend(places)
            each._blocks.update(added.blocks)
        return True

    # Reading

    def _stored(self, places: np.ndarray) -> np.ndarray:
        """Return the rows at `places` of the log: bytes if they all are, else float32."""
        if self._log is None:
            return np.zeros(0, dtype=np.float32)
        if len(self._blocks) == 1:
            ((number, block),) = self._blocks.items()
            return block.take(places - number * self._log.rows_per_block, axis=0)
        order = np.argsort(places)
        numbers, rows = np.divmod(places[order], self._log.rows_per_block)
        starts = np.flatnonzero(np.diff(numbers, prepend=-1)).tolist()
        blocks = [self._blocks[number] for number in numbers[starts].tolist()]
        are_bytes = bool(blocks) and all(block.dtype == np.uint8 for block in blocks)
        stored = np.empty((len(places), *self._log.shape), dtype=np.uint8 if are_bytes else np.float32)
        for block, start, end in zip(blocks, starts, [*starts[1:], len(order)]):
            of_block = block.take(rows[start:end], axis=0)
            stored[order[start:end]] = of_block if are_bytes else as_floats(of_block)
        return stored

    def stored_part(self, start: int, end: int) -> np.ndarray:
        """Return rows `start` to `end` as `as_bytes` gives them if `holds_bytes`, else as float32."""
        rows = self._stored(self._places.to_ndarray()[start:end])
        return rows if self.holds_bytes else as_floats(rows)

    @property
    def holds_bytes(self) -> bool:
        """Whether all rows are images of 8 bits."""
        return bool(self._blocks) and all(block.dtype == np.uint8 for block in self._blocks.values())

    def __len__(self) -> int:
        return len(self._places)

    @property
    def row_shape(self) -> Tuple[int, ...]:
        """The shape of a row."""
        return () if self._log is None else self._log.shape

    def _rows(self) -> np.ndarray:
        """Return all rows; a write to what is but a copy of them fails rather than be lost."""
        rows = as_floats(self._stored(self._places.to_ndarray()))
        rows.flags.writeable = False
        return rows

    def __iter__(self) -> Iterator[Any]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: Any) -> Any:
        """Return a row, which is read-only, or for a slice a field of copies."""
        if isinstance(index, slice):
            return self.take(np.arange(len(self))[index])
        if not isinstance(index, (int, np.integer)):
            return self._rows()[index]
        rows = as_floats(self._stored(self._places.to_ndarray()[index][None]))
        rows.flags.writeable = False
        return rows[0]

    def part(self, start: int, end: int) -> AgentBufferField:
        """Return rows `start` to `end`, as copies, which are made when they are first read."""
        return self.take(np.arange(*slice(start, end).indices(len(self))))

    def take(self, order: np.ndarray) -> AgentBufferField:
        """Return the rows at `order`, as copies, which are made when they are first read."""
        taken = _TakenField()
        taken.padding_value, taken._log, taken._blocks = self.padding_value, self._log, dict(self._blocks)
        taken._places = AgentBufferField.holding(self._places.to_ndarray().take(order))
        return taken

    # What leaves the rows where they are

    def permute(self, order: np.ndarray) -> None:
        """Keep the rows at `order`."""
        self._places.permute(order)

    def keep_last(self, n_rows: int) -> None:
        """Drop all rows but the last `n_rows`; blocks in which none of them stands are free."""
        self._places.keep_last(n_rows)
        if self._log is not None:
            read = np.unique(self._places.to_ndarray() // self._log.rows_per_block)
            self._blocks = {number: self._blocks[number] for number in read.tolist()}

    # What does not

    def __setitem__(self, index: Any, value: Any) -> None:
        _ordinary(self)[index] = value

    def __delitem__(self, index: Any) -> None:
        del _ordinary(self)[index]

    def insert(self, index: int, value: Any) -> None:
        """Insert a row before `index`."""
        _ordinary(self).insert(index, value)

    def append(self, element: BufferEntry, padding_value: float = 0.0) -> None:
        """Add one row; see `AgentBufferField.append`."""
        _ordinary(self).append(element, padding_value)

    def extend(self, values: Iterable[BufferEntry]) -> None:
        """Add rows; see `AgentBufferField.extend`."""
        _ordinary(self).extend(values)

    def set(self, data: Union[List[BufferEntry], np.ndarray, AgentBufferField]) -> None:
        """Replace all rows."""
        _ordinary(self).set(data)

    def reset_field(self) -> None:
        """Drop all rows."""
        _ordinary(self).reset_field()


class _TakenField(ObservationField):
    """Rows of a minibatch: as soon as they are read, an ordinary field. Not all of them are."""

    def _rows(self) -> np.ndarray:
        return _ordinary(self)._rows()

    def __getitem__(self, index: Any) -> Any:
        return _ordinary(self)[index]


def _ordinary(field: AgentBufferField) -> AgentBufferField:
    """Make a field one that has its rows for itself, if it is not yet; return it."""
    if isinstance(field, ObservationField):
        copied = AgentBufferField()
        if field._log is not None:
            copied = AgentBufferField.holding(as_floats(field._stored(field._places.to_ndarray())))
        copied.padding_value = field.padding_value
        # It is the same object to whoever has read it from the buffer before.
        field.__class__ = AgentBufferField  # type: ignore[assignment]
        field.__dict__ = vars(copied)
    return field
