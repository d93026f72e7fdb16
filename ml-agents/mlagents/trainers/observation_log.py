"""Observations in the order in which they were made, as a replay buffer keeps them: each once, images as bytes."""

from __future__ import annotations

import math
from typing import Dict, NamedTuple, Optional, Tuple

import numpy as np

BLOCK_BYTES = 16 * 2**20
"""The size of a block: the memory that a log may take beyond its rows, and the steps in which it gives it back."""

_MAX_PIXEL = np.float32(255)


def as_bytes(rows: np.ndarray) -> Optional[np.ndarray]:
    """Return 255 times the float32 `rows` as uint8; None where `as_floats` would not give back every bit of them."""
    with np.errstate(over="ignore", invalid="ignore"):  # what is no pixel at all is told by the comparison
        scaled = rows * _MAX_PIXEL
        scaled += np.float32(0.5)
        pixels = scaled.astype(np.uint8)
    np.divide(pixels, _MAX_PIXEL, out=scaled)
    return pixels if _are_rows_equal(scaled, rows).all() else None


def as_floats(rows: np.ndarray) -> np.ndarray:
    """Return bytes as float32 from 0 to 1, as the decoder of images gives pixels; float32 rows as they are."""
    if rows.dtype == np.float32:
        return rows
    floats = rows.astype(np.float32)
    floats /= _MAX_PIXEL
    return floats


def _are_rows_equal(some: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return for each row (B,) of two float32 arrays whether it is the same in every bit, NaN and -0 included."""
    width = math.prod(some.shape[1:])
    bits, other_bits = (np.ascontiguousarray(it).reshape(len(it), width).view(np.uint32) for it in (some, others))
    is_equal: np.ndarray = (bits == other_bits).all(axis=1)
    return is_equal


class Added(NamedTuple):
    """What a log made of the transitions that were appended to it."""

    places: np.ndarray  # (B,) int64, of their observations; the next one of each stands right behind it
    blocks: Dict[int, np.ndarray]  # by number, those in which they stand


class ObservationLog:
    """Float32 rows in blocks of equal length, to which transitions are appended.

    The next observation of a step is the observation of the following one wherever an episode goes on, and stands
    there but once. The log itself holds only its last block; whoever reads rows holds the blocks that they stand in,
    so that a block goes when nobody reads it any more. Nothing that stands there is moved or changed.

    Rows of three dimensions are taken for images: their blocks hold bytes until pixels come that are not of 8 bits,
    and float32 from then on.

    :param shape: of a row.
    :ivar rows_per_block: row ``place`` is row ``place % rows_per_block`` of block ``place // rows_per_block``.
    """

    def __init__(self, shape: Tuple[int, ...]):
        self.shape = shape
        self._keeps_bytes = len(shape) == 3
        row_bytes = math.prod(shape) * (1 if self._keeps_bytes else 4)
        self.rows_per_block = max(1, BLOCK_BYTES // max(1, row_bytes))
        self._n_rows = 0
        self._block = np.empty((0, *shape), dtype=np.float32)  # in which the last row stands

    def append(self, obs: np.ndarray, next_obs: np.ndarray) -> Added:
        """Append transitions.

        :param obs: float32 (B, *shape).
        :param next_obs: likewise, one step later.
        """
        is_new = np.ones(len(obs), dtype=bool)  # rather than what the step before led to
        is_new[1:] = ~_are_rows_equal(next_obs[:-1], obs[1:])
        if self._n_rows:
            is_new[:1] = ~_are_rows_equal(self._last_row(), obs[:1])
        next_places = np.cumsum(1 + is_new, dtype=np.int64) - 1
        rows = np.empty((len(obs) + int(is_new.sum()), *self.shape), dtype=np.float32)
        rows[next_places] = next_obs
        rows[next_places[is_new] - 1] = obs[is_new]
        places = self._n_rows + next_places - 1
        return Added(places, self._write(rows))

    def _last_row(self) -> np.ndarray:
        last = (self._n_rows - 1) % self.rows_per_block
        return as_floats(self._block[last : last + 1])

    def _write(self, rows: np.ndarray) -> Dict[int, np.ndarray]:
        """Put rows behind the last one; return the block of that, and those that they are in."""
        pixels = as_bytes(rows) if self._keeps_bytes else None
        if pixels is None and self._keeps_bytes:
            self._keeps_bytes = False
            self._block = as_floats(self._block)
        stored = rows if pixels is None else pixels
        blocks = {(self._n_rows - 1) // self.rows_per_block: self._block} if self._n_rows else {}
        start = 0
        while start < len(stored):
            number, first = divmod(self._n_rows, self.rows_per_block)
            if first == 0:
                # Memory that is not written to is not taken.
                self._block = np.empty((self.rows_per_block, *self.shape), dtype=stored.dtype)
            end = min(start + self.rows_per_block - first, len(stored))
            self._block[first : first + end - start] = stored[start:end]
            blocks[number] = self._block
            self._n_rows += end - start
            start = end
        return blocks
