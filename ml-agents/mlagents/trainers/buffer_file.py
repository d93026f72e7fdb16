"""Columns of experience as an HDF5 file.

A column is a dataset, named by `key_to_text`. One whose rows differ in shape is a group of that name: `values` of all
entries one after the other, `shapes` likewise, `ranks` (how many numbers of `shapes` are an entry's), and by row
`counts` (how many entries it has) and `is_list` (whether it is a list of them, rather than the one that it is).
"""

from __future__ import annotations

from typing import Any, BinaryIO, Dict, List, Mapping

import numpy as np

from mlagents.trainers.buffer_field import AgentBufferField, BufferException
from mlagents.trainers.buffer_keys import AgentBufferKey, key_from_text, key_to_text

# h5py is imported where it is used: few runs need it, and it would add to the start of all.

_PADDING = "padding_value"
_NUMBERS = "biufc"
"""The kinds of NumPy types that a column may have."""


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
            else:
                place = file.create_dataset(name, data=_checked(name, field.to_ndarray()))
            place.attrs[_PADDING] = field.padding_value


def read_fields(file_object: BinaryIO) -> Dict[AgentBufferKey, AgentBufferField]:
    """Read the columns that `write_fields` wrote.

    :raises BufferException: the file is damaged, or another one.
    """
    import h5py

    try:
        with h5py.File(file_object, "r") as file:
            return {key_from_text(name): _read_field(name, place) for name, place in file.items()}
    except BufferException:
        raise
    except Exception as error:  # on a damaged file h5py raises almost anything
        raise BufferException(f"The file does not hold the columns of a buffer: {error}") from error


def _read_field(name: str, place: Any) -> AgentBufferField:
    import h5py

    padding_value = float(place.attrs.get(_PADDING, 0.0))
    if isinstance(place, h5py.Dataset):
        return AgentBufferField.holding(_checked(name, place[()]), padding_value)
    field = AgentBufferField(padding_value=padding_value)
    field.set(_unflattened({part: values[()] for part, values in place.items()}))
    return field


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
