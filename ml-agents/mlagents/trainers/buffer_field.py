"""One column of a buffer: an array that grows, and reads like the list that plug-ins were written for."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, MutableSequence
from typing import Any, List, Optional, Tuple, Union

import numpy as np
from numpy.typing import DTypeLike

from mlagents_envs.exception import UnityException

BufferEntry = Union[np.ndarray, List[np.ndarray]]


class BufferException(UnityException):
    """A buffer's columns do not fit each other or what was asked of them."""


def _as_column(values: Any) -> np.ndarray | None:
    """Return `values` as one array with rows on axis 0, or None where the rows differ in shape.

    float64 becomes float32: networks take nothing else, and Python's floats are float64.
    """
    if isinstance(values, AgentBufferField):
        return None if values.is_ragged else values.to_ndarray()
    if not isinstance(values, np.ndarray):
        values = list(values)
        if values and isinstance(values[0], (list, tuple)):
            return None
        try:
            values = np.asarray(values)
        except ValueError:
            return None
    if values.dtype == object:
        return None
    column: np.ndarray = values
    return column.astype(np.float32) if column.dtype == np.float64 else column


class AgentBufferField(MutableSequence):  # type: ignore[type-arg]
    """One column: rows of equal shape in one contiguous array that grows by doubling.

    Reads and writes like a list of rows. Entries that vary in length (lists of arrays, one per member of a group)
    are the exception and are kept as a list.

    :param padding_value: by what the last row is multiplied to make the rows that pad a sequence.
    """

    def __init__(self, values: Iterable[BufferEntry] = (), padding_value: float = 0.0):
        self.padding_value = padding_value
        self._array: np.ndarray | None = None
        self._length = 0
        self._ragged: List[Any] | None = None
        if not isinstance(values, tuple) or values:
            self.extend(values)

    @classmethod
    def holding(cls, array: np.ndarray, padding_value: float = 0.0) -> AgentBufferField:
        """Return a field whose rows are those of `array`, without a copy."""
        field = cls.__new__(cls)
        field.padding_value = padding_value
        field._array = array
        field._length = len(array)
        field._ragged = None
        return field

    def _rows(self) -> np.ndarray:
        return np.zeros(0, dtype=np.float32) if self._array is None else self._array[: self._length]

    def __len__(self) -> int:
        return self._length if self._ragged is None else len(self._ragged)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._rows() if self._ragged is None else self._ragged)

    def __getitem__(self, index: Any) -> Any:
        """Return a row, or for a slice a field that shares its rows with this one."""
        if self._ragged is not None:
            picked = self._ragged[index]
            return AgentBufferField(picked, self.padding_value) if isinstance(index, slice) else picked
        picked = self._rows()[index]
        return self.holding(picked, self.padding_value) if isinstance(index, slice) else picked

    def __setitem__(self, index: Any, value: Any) -> None:
        if self._ragged is not None:
            self._ragged[index] = value
            return
        if isinstance(index, slice) and index.indices(len(self)) == (0, len(self), 1):
            self.set(value)
        else:
            self._promote(value if isinstance(value, (bool, int, float)) else np.asarray(value).dtype)
            self._rows()[index] = value

    def __delitem__(self, index: Any) -> None:
        if self._ragged is not None:
            del self._ragged[index]
        else:
            self.set(np.delete(self._rows(), index, axis=0))

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> np.ndarray:
        rows = self._rows() if self._ragged is None else np.asarray(self._ragged)
        if dtype is not None and rows.dtype != dtype:
            return rows.astype(dtype)
        return rows.copy() if copy else rows

    def __repr__(self) -> str:
        return f"AgentBufferField({list(self)!r})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, (AgentBufferField, list, tuple)) or len(self) != len(other):
            return NotImplemented if not isinstance(other, (AgentBufferField, list, tuple)) else False
        return all(np.array_equal(mine, theirs) for mine, theirs in zip(self, other))

    __hash__ = None  # type: ignore[assignment]

    @property
    def is_ragged(self) -> bool:
        """Whether the rows differ in shape, so that they are kept as a list."""
        return self._ragged is not None

    @property
    def contains_lists(self) -> bool:
        """Whether the entries are lists, as observations of a group are."""
        return self._ragged is not None and len(self._ragged) > 0 and isinstance(self._ragged[0], list)

    @property
    def row_shape(self) -> Tuple[int, ...]:
        """The shape of a row, () where the rows differ in it."""
        return () if self._array is None else self._array.shape[1:]

    def insert(self, index: int, value: Any) -> None:
        """Insert a row before `index`."""
        if self._ragged is not None:
            self._ragged.insert(index, value)
        else:
            rows = list(self._rows())
            rows.insert(index, value)
            self.set(rows)

    def append(self, element: BufferEntry, padding_value: float = 0.0) -> None:
        """Add one row.

        :param padding_value: see the class; it holds for the whole column.
        """
        self.padding_value = padding_value
        self.extend([element])

    def extend(self, values: Iterable[BufferEntry]) -> None:
        """Add rows: an array with rows on axis 0, a field, or any iterable of rows."""
        if type(values) is np.ndarray and self._append_as_they_are(values):
            return
        if self._ragged is None and not isinstance(values, (np.ndarray, AgentBufferField)):
            values = list(values)
        column = _as_column(values) if self._ragged is None else None
        if column is not None and not len(column):
            if self._array is None:
                self._array = column.copy()
            return
        if column is None or (self._length and self._array is not None and column.shape[1:] != self._array.shape[1:]):
            if self._ragged is None:
                self._ragged = list(self._rows())
                self._array = None
            self._ragged.extend(list(values))
            return
        self._reserve(column, self._length + len(column))
        assert self._array is not None
        self._array[self._length : self._length + len(column)] = column
        self._length += len(column)

    def _append_as_they_are(self, rows: np.ndarray) -> bool:
        """Append rows that need neither room nor another type, the common case; return whether it was one."""
        array, end = self._array, self._length + len(rows)
        if array is None or not self._length or end > len(array):
            return False
        if rows.dtype != array.dtype or rows.shape[1:] != array.shape[1:]:
            return False
        array[self._length : end] = rows
        self._length = end
        return True

    def _reserve(self, column: np.ndarray, capacity: int) -> None:
        """Make room for `capacity` rows like those of `column`."""
        if self._array is None or not self._length:
            self._array = np.empty((max(capacity, 16), *column.shape[1:]), dtype=column.dtype)
            return
        self._promote(column.dtype)
        if capacity > len(self._array):
            grown = np.empty((max(capacity, 2 * len(self._array)), *self._array.shape[1:]), dtype=self._array.dtype)
            grown[: self._length] = self._rows()
            self._array = grown

    def _promote(self, dtype: np.dtype[Any] | float) -> None:
        """Widen the column's type to hold `dtype`, or a Python number, too, within float32."""
        if self._array is None or self._array.dtype is dtype:
            return
        common = np.result_type(self._array.dtype, dtype)
        if common == np.float64:
            common = np.dtype(np.float32)
        if common != self._array.dtype:
            self._array = self._array.astype(common)

    def set(self, data: Union[List[BufferEntry], np.ndarray, AgentBufferField]) -> None:
        """Replace all rows."""
        data = data if isinstance(data, (np.ndarray, AgentBufferField)) else list(data)
        column = _as_column(data)
        if column is None:
            self._array, self._length, self._ragged = None, 0, list(data)
        else:
            self._ragged = None
            self._array = np.array(column)
            self._length = len(column)

    def reset_field(self) -> None:
        """Drop all rows."""
        self._array, self._length, self._ragged = None, 0, None

    def reverse(self) -> None:
        """Put the rows in reverse order."""
        self.permute(np.arange(len(self))[::-1])

    def part(self, start: int, end: int) -> AgentBufferField:
        """Return rows `start` to `end`, sharing memory with this field."""
        if self._array is not None and 0 <= start <= end <= self._length:
            return self.holding(self._array[start:end], self.padding_value)
        field: AgentBufferField = self[start:end]
        return field

    def take(self, order: np.ndarray) -> AgentBufferField:
        """Return the rows at `order`, as copies."""
        if self._ragged is None:
            return self.holding(self._rows().take(order, axis=0), self.padding_value)
        return AgentBufferField([self._ragged[index] for index in order], self.padding_value)

    def permute(self, order: np.ndarray) -> None:
        """Keep the rows at `order`, as a copy: tensors made from the old rows stay as they are."""
        if self._ragged is not None:
            self._ragged = [self._ragged[index] for index in order]
        elif self._array is not None:  # without, no row has said yet which shape they have
            self._array, self._length = self._rows()[order], len(order)

    def keep_last(self, n_rows: int) -> None:
        """Drop all rows but the last `n_rows`, and keep the room that they took for those to come.

        A field that is filled and cut in turns thus copies its rows once per cut. They go to a new array: tensors
        made from the old rows stay as they are.
        """
        if self._ragged is not None:
            self._ragged = self._ragged[len(self._ragged) - n_rows :]
        elif self._array is not None:
            kept = np.empty_like(self._array)
            kept[:n_rows] = self._array[self._length - n_rows : self._length]
            self._array, self._length = kept, n_rows

    def get_batch(
        self, batch_size: Optional[int] = None, training_length: Optional[int] = 1, sequential: bool = True
    ) -> List[BufferEntry]:
        """Return the rows of the last sequences, one after the other.

        :param batch_size: how many sequences; None for all.
        :param training_length: rows per sequence (T).
        :param sequential: whether sequences follow each other, the last one padded, rather than overlap in all
            but one row.
        :raises BufferException: there are not so many sequences.
        """
        return list(self.sequences(batch_size, training_length or 1, sequential))

    def sequences(self, batch_size: int | None, length: int, sequential: bool = True) -> np.ndarray | List[Any]:
        """Return what `get_batch` does, as one array where the rows are one."""
        if length == 1 and batch_size is None:
            return self._rows() if self._ragged is None else self._ragged
        count = len(self)
        available = -(-count // length) if sequential else max(count - length + 1, 0)
        n_sequences = available if batch_size is None else batch_size
        if n_sequences > available:
            raise BufferException(
                f"{n_sequences} sequences of length {length} were asked of a field of {count} rows, "
                f"which holds {available}."
            )
        rows: np.ndarray | List[Any] = self._rows() if self._ragged is None else self._ragged
        if not sequential:
            first = np.arange(available - n_sequences, available)[:, None]
            order = (first + np.arange(length)).reshape(-1)
            return rows[order] if isinstance(rows, np.ndarray) else [rows[index] for index in order]
        missing = n_sequences * length - count
        if missing <= 0:
            return rows[count - n_sequences * length :]
        if isinstance(rows, np.ndarray):
            padding = (rows[-1:] * self.padding_value).astype(rows.dtype)
            return np.concatenate([rows, np.repeat(padding, missing, axis=0)])
        blank: Any = [] if self.contains_lists else np.asarray(rows[-1]) * self.padding_value
        return list(rows) + [blank] * missing

    def padded_to_batch(
        self, pad_value: float = 0, dtype: DTypeLike = np.float32
    ) -> Union[np.ndarray, List[np.ndarray]]:
        """Return the column as an array (B, ...), or, where entries are lists, one such array per list position.

        :param pad_value: what stands where a list is shorter than the longest.
        """
        if not self.contains_lists:
            return np.asarray(self, dtype=dtype)
        assert self._ragged is not None
        example = next((np.asarray(item) for entry in self._ragged for item in entry), None)
        if example is None:
            return []
        blank = np.full_like(example, pad_value, dtype=dtype)
        by_position = itertools.zip_longest(*self._ragged, fillvalue=blank)
        return [np.asarray(position, dtype=dtype) for position in by_position]

    def to_ndarray(self) -> np.ndarray:
        """Return the rows as one array, without a copy where they are one."""
        return self._rows() if self._ragged is None else np.asarray(self._ragged)
