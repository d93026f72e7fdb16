"""The file of a checkpoint: what ``torch.save`` writes, sealed by a checksum.

The checksum is the comment at the end of the zip archive that such a file is, so that whatever reads archives of torch
reads these. Files of ML-Agents 1.1.0 have none: of these each entry is checked by the archive's own CRC-32.
"""

from __future__ import annotations

import collections
import contextlib
import hashlib
import io
import os
import pickle
import re
import struct
import warnings
import zipfile
from typing import Any, Dict, Iterator, Mapping, Optional, Tuple

import numpy as np

from mlagents.torch_utils import torch
from mlagents.trainers.exception import UnityTrainerException
from mlagents.trainers.files import atomic_path, temporary_name

_SEAL = b"mlagents sha256 "
_SEAL_SIZE = len(_SEAL) + hashlib.sha256().digest_size * 2
_NO_COMMENT = struct.pack("<H", 0)
_PLAIN = (bool, int, float, complex, str, bytes, torch.Size, torch.dtype, torch.device)
_LONGEST_INT = 2000  # bits; torch reads no longer ones
_ARRAY = "numpy array"
"""The only key of the dictionary that stands for an array: only tensors are read back without running code."""


class CheckpointError(UnityTrainerException):
    """A checkpoint is missing, damaged, or none at all."""


def write_checkpoint(
    path: str | os.PathLike[str], state: Dict[str, Any], previous: Optional[str | os.PathLike[str]] = None
) -> str:
    """Write what a checkpoint holds: tensors, arrays, numbers, text and containers of these.

    The file is there whole or not at all. Containers of other kinds than dictionaries, lists and tuples are read back
    as these: a `defaultdict` as a dictionary, a named tuple as a tuple.

    :param previous: where the file goes that is at `path` now.
    :returns: its checksum, by which another file may refer to it.
    :raises OSError: the file cannot be written; one that was at `path` stays as it was.
    :raises UnityTrainerException: there is something else in `state`, which could not be read back.
    """
    buffer = io.BytesIO()
    try:
        packed = _packed(state, ())
    except RecursionError:
        raise UnityTrainerException("A part of the checkpoint contains itself, or is nested too deeply.") from None
    torch.save(packed, buffer)
    archive = buffer.getbuffer()
    if bytes(archive[-len(_NO_COMMENT) :]) != _NO_COMMENT:
        raise AssertionError("torch wrote an archive with a comment")
    digest = hashlib.sha256(archive[: -len(_NO_COMMENT)])
    digest.update(struct.pack("<H", _SEAL_SIZE))
    checksum = digest.hexdigest()
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        file.write(archive[: -len(_NO_COMMENT)])
        file.write(struct.pack("<H", _SEAL_SIZE) + _SEAL + checksum.encode())
        file.flush()
        if previous is not None and os.path.isfile(path):
            os.fsync(file.fileno())  # where there are no links, it is the only one of the two for a moment
            _move(path, previous)
    return checksum


def read_checkpoint(path: str | os.PathLike[str]) -> Dict[str, Any]:
    """Read a checkpoint, to the CPU: nothing but what `write_checkpoint` takes is taken from it.

    :raises CheckpointError: there is none, it is damaged, or it holds something else.
    """
    data = _read(path)
    _check_whole(path, data)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of formats that are then refused
            state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:  # on a damaged or hostile file torch raises almost anything
        raise CheckpointError(f"{path} could not be read as a checkpoint: {_first_line(error)}") from error
    if not isinstance(state, dict):
        raise CheckpointError(f"{path} is no checkpoint: it holds a {type(state).__name__}, not a dictionary.")
    unpacked: Dict[str, Any] = _unpacked(state)
    return unpacked


def _move(path: str | os.PathLike[str], to: str | os.PathLike[str]) -> None:
    """Give a file another name; where the file system has links, it keeps its own until that is taken."""
    link = temporary_name(to)
    try:
        os.link(path, link)
    except OSError:  # there are file systems without
        os.replace(path, to)
    else:
        os.replace(link, to)


def _packed(value: Any, place: Tuple[Any, ...]) -> Any:
    """Return plain data with tensors for arrays.

    :param place: of the value, for error messages.
    :raises UnityTrainerException: it is none that could be read back.
    """
    if value is None or (type(value) in _PLAIN and not (type(value) is int and value.bit_length() > _LONGEST_INT)):
        return value
    if isinstance(value, torch.Tensor):
        is_plain = type(value) in (torch.Tensor, torch.nn.Parameter) and not value.__dict__
        return value if is_plain else value.detach().as_subclass(torch.Tensor)
    if isinstance(value, np.ndarray) and value.dtype.kind in "biufc":
        with contextlib.suppress(TypeError):  # of a type that torch does not have
            return {_ARRAY: torch.from_numpy(np.array(value, dtype=value.dtype.newbyteorder("="), order="C"))}
    if isinstance(value, np.generic) and type(value.item()) in _PLAIN:
        return value.item()
    if isinstance(value, collections.OrderedDict):
        packed = collections.OrderedDict(_packed_items(value, place))
        if hasattr(value, "_metadata"):  # of a module of torch
            packed._metadata = _packed(value._metadata, place)  # type: ignore[attr-defined]
        return packed
    if isinstance(value, dict):
        return dict(_packed_items(value, place))
    if isinstance(value, (list, tuple)):
        kind = list if isinstance(value, list) else tuple
        return kind(_packed(entry, (*place, index)) for index, entry in enumerate(value))
    raise UnityTrainerException(
        f"{', '.join(map(str, place))}: a {type(value).__name__} cannot be part of a checkpoint; use tensors, arrays, "
        f"numbers, text, dictionaries, lists and tuples."
    )


def _packed_items(value: Mapping[Any, Any], place: Tuple[Any, ...]) -> Iterator[Tuple[Any, Any]]:
    return ((_packed(key, place), _packed(entry, (*place, key))) for key, entry in value.items())


def _unpacked(value: Any) -> Any:
    if isinstance(value, collections.OrderedDict):
        for key, entry in value.items():
            value[key] = _unpacked(entry)
        return value
    if type(value) is dict:
        if len(value) == 1 and isinstance(value.get(_ARRAY), torch.Tensor):
            return value[_ARRAY].numpy()
        return {key: _unpacked(entry) for key, entry in value.items()}
    if type(value) in (list, tuple):
        return type(value)(_unpacked(entry) for entry in value)
    return value


def checksum_of(path: str | os.PathLike[str]) -> Optional[str]:
    """Return the checksum by which a checkpoint is sealed; None where it has none, or cannot be read."""
    try:
        with open(path, "rb") as file:
            file.seek(-_SEAL_SIZE, os.SEEK_END)
            return _checksum_in(file.read())
    except OSError:
        return None


def has_checksum(path: str | os.PathLike[str]) -> bool:
    """Return whether a checkpoint is sealed by a checksum, right or not."""
    return checksum_of(path) is not None


def _read(path: str | os.PathLike[str]) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        raise CheckpointError(f"There is no checkpoint at {path}.") from None
    except OSError as error:
        raise CheckpointError(f"{path} could not be read as a checkpoint: {error.strerror}") from error


def _check_whole(path: str | os.PathLike[str], data: bytes) -> None:
    """Raise `CheckpointError` where a byte is not what was written, as far as the file lets one know."""
    checksum = _checksum_in(data[-_SEAL_SIZE:])
    if checksum is not None:
        if hashlib.sha256(memoryview(data)[:-_SEAL_SIZE]).hexdigest() != checksum:
            raise CheckpointError(f"{path} could not be read as a checkpoint: its checksum does not fit; it is damaged")
        return
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            damaged = archive.testzip()
    except Exception as error:  # on damaged archives the library raises almost anything
        raise CheckpointError(f"{path} could not be read as a checkpoint: {_first_line(error)}") from error
    if damaged is not None or not data.endswith(_NO_COMMENT):
        raise CheckpointError(f"{path} could not be read as a checkpoint: {damaged or 'its checksum'} is damaged")


def _checksum_in(end: bytes) -> Optional[str]:
    """Return the checksum in the last bytes of a file; None where they are no seal."""
    if len(end) != _SEAL_SIZE or not end.startswith(_SEAL):
        return None
    return end[len(_SEAL) :].decode("latin-1")


def _first_line(error: Exception) -> str:
    if isinstance(error, pickle.UnpicklingError):  # torch then tells how to run the code in the file
        found = re.search(r"GLOBAL (\S+)", str(error))
        return f"it holds {found[1] if found else 'something'}, which is no plain data, and is not run"
    return str(error).split("\n")[0] or type(error).__name__
