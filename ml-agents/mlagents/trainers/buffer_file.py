"""Columns of experience as an HDF5 file.

A column is a dataset, named by `key_to_text`. One that a replay buffer keeps as images of 8 bits is of bytes and has
the attribute `pixels_of_8_bits`: its values are those divided by 255. One whose rows differ in shape is a group of its
name: `values` of all entries one after the other, `shapes` likewise, `ranks` (how many numbers of `shapes` are an
entry's), and by row `counts` (how many entries it has) and `is_list` (whether it is a list of them, rather than the one
that it is).
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, BinaryIO, Dict, List, Mapping, Optional, Sequence, Tuple

import numpy as np

from mlagents.trainers.buffer_field import AgentBufferField, BufferException
from mlagents.trainers.buffer_keys import AgentBufferKey, key_from_text, key_to_text
from mlagents.trainers.observation_field import ObservationField
from mlagents.trainers.observation_log import as_floats

# h5py is imported where it is used: few runs need it, and it would add to the start of all.

_PADDING = "padding_value"
_EIGHT_BIT = "pixels_of_8_bits"
_MARK = "belongs_to"
_NUMBERS = "biufc"
"""The kinds of NumPy types that a column may have."""

_VALUES_AT_ONCE = 4 * 2**20
"""How much of a column that is not in memory as one array is copied at once."""


def rows_at_once(row_shape: Sequence[int]) -> int:
    """Return how many rows of a long column to read or write at once."""
    return max(1, _VALUES_AT_ONCE // max(1, math.prod(row_shape)))


def write_fields(file_object: BinaryIO, fields: Mapping[AgentBufferKey, AgentBufferField]) -> None:
    """Write columns.

    :raises BufferException: a column holds what is no number.
    """
    import h5py

    with h5py.File(file_object, "w") as file:
        for key, field in fields.items():
            name = key_to_text(key)
            if field.is_ragged:
                place = file.create_group(name)
                for part, values in _flattened(name, list(field)).items():
                    place.create_dataset(part, data=values)
            elif isinstance(field, ObservationField):
                place = _write_observations(file, name, field)
            else:
                place = file.create_dataset(name, data=_checked(name, field.to_ndarray()))
            place.attrs[_PADDING] = field.padding_value


def write_mark(path: str | os.PathLike[str], mark: str) -> None:
    """Note in a file that `write_fields` wrote what it belongs to."""
    import h5py

    with h5py.File(path, "r+") as file:
        file.attrs[_MARK] = mark


def read_mark(path: str | os.PathLike[str]) -> str:
    """Return what `write_mark` noted; "" where that is nothing."""
    import h5py

    with _read_errors(), h5py.File(path, "r") as file:
        return str(file.attrs.get(_MARK, ""))


def _write_observations(file: Any, name: str, field: ObservationField) -> Any:
    dtype = np.uint8 if field.holds_bytes else np.float32
    place = file.create_dataset(name, (len(field), *field.row_shape), dtype=dtype)
    step = rows_at_once(field.row_shape)
    for start in range(0, len(field), step):
        place[start : start + step] = field.stored_part(start, start + step)
    if field.holds_bytes:
        place.attrs[_EIGHT_BIT] = True
    return place


class FileColumn:
    """A column of an open file.

    :param name: of the column in the file.
    :param place: the dataset or group.
    """

    def __init__(self, name: str, place: Any):
        import h5py

        self._name, self._place = name, place
        self.is_ragged = not isinstance(place, h5py.Dataset)
        self.padding_value = float(place.attrs.get(_PADDING, 0.0))

    @property
    def shape(self) -> Tuple[int, ...]:
        """(B, ...); () where rows differ in shape."""
        return () if self.is_ragged else self._place.shape

    def rows(self, start: Optional[int] = None, end: Optional[int] = None) -> np.ndarray:
        """Return rows `start` to `end` of a column that is not ragged."""
        with _read_errors():
            rows = _checked(self._name, self._place[start:end])
            return as_floats(rows) if self._place.attrs.get(_EIGHT_BIT) else rows

    def field(self) -> AgentBufferField:
        """Return the whole column."""
        if not self.is_ragged:
            return AgentBufferField.holding(self.rows(), self.padding_value)
        with _read_errors():
            rows = _unflattened({part: values[()] for part, values in self._place.items()})
        field = AgentBufferField(padding_value=self.padding_value)
        field.set(rows)
        return field


@contextmanager
def opened(file_object: BinaryIO) -> Iterator[Dict[AgentBufferKey, FileColumn]]:
    """Open a file that `write_fields` wrote: its columns, as long as the context lasts.

    :raises BufferException: on opening or on reading: the file is damaged, or another one.
    """
    import h5py

    with ExitStack() as stack:
        with _read_errors():
            file = stack.enter_context(h5py.File(file_object, "r"))
            columns = {key_from_text(name): FileColumn(name, place) for name, place in file.items()}
        yield columns


@contextmanager
def _read_errors() -> Iterator[None]:
    try:
        yield
    except BufferException:
        raise
    except Exception as error:  # on a damaged file h5py raises almost anything
        raise BufferException(f"The file does not hold the columns of a buffer: {error}") from error


def _checked(name: str, values: np.ndarray) -> np.ndarray:
    if not isinstance(values, np.ndarray) or values.dtype.kind not in _NUMBERS:
        kind = getattr(values, "dtype", type(values).__name__)
        raise BufferException(f"The column {name} is of type {kind}; only arrays of numbers are kept in files.")
    return values


def _flattened(name: str, rows: List[Any]) -> Dict[str, np.ndarray]:
    """Take rows that differ in shape apart; see the module."""
    is_list = [isinstance(row, (list, tuple)) for row in rows]
    entries_of_rows = [row if listed else [row] for row, listed in zip(rows, is_list)]
    entries = [_checked(name, np.asarray(entry)) for entries in entries_of_rows for entry in entries]
    values = [entry.reshape(-1) for entry in entries]
    return {
        "values": np.concatenate(values) if values else np.zeros(0, dtype=np.float32),
        "shapes": np.array([size for entry in entries for size in entry.shape], dtype=np.int64),
        "ranks": np.array([entry.ndim for entry in entries], dtype=np.int64),
        "counts": np.array([len(entries) for entries in entries_of_rows], dtype=np.int64),
        "is_list": np.array(is_list, dtype=bool),
    }


def _unflattened(parts: Mapping[str, np.ndarray]) -> List[Any]:
    """Put together what `_flattened` took apart; raise where it does not add up."""
    shapes = [tuple(shape) for shape in _split(parts["shapes"], parts["ranks"])]
    sizes = np.array([np.prod(shape, dtype=np.int64) for shape in shapes], dtype=np.int64)
    values = [flat.reshape(shape) for flat, shape in zip(_split(parts["values"], sizes), shapes)]
    ends = np.cumsum(parts["counts"])
    if len(ends) != len(parts["is_list"]) or int(parts["counts"].sum()) != len(values):
        raise BufferException("The rows of a column do not add up to its entries.")
    rows = [values[end - count : end] for end, count in zip(ends, parts["counts"])]
    return [row if listed else row[0] for row, listed in zip(rows, parts["is_list"])]


def _split(flat: np.ndarray, sizes: np.ndarray) -> List[np.ndarray]:
    """Cut `flat` into parts of `sizes`, which are all of it."""
    if int(sizes.sum()) != len(flat):
        raise BufferException(f"Parts of {int(sizes.sum())} values in all were to be taken from {len(flat)}.")
    return np.split(flat, np.cumsum(sizes)[:-1]) if len(sizes) else []
