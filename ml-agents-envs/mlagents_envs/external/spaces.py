"""From Gymnasium's spaces to specifications of observations and actions, and between batches of the two.

A batch is what Gymnasium's vector environments give and take: an array with a leading axis of N agents per fundamental
space, in dicts and tuples as the space has them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from mlagents_envs.base_env import ActionSpec, ActionTuple, ObservationSpec, image_observation, vector_observation
from mlagents_envs.exception import UnityEnvironmentException, UnityObservationException
from mlagents_envs.logging_util import get_logger

logger = get_logger(__name__)

MASK = "action_mask"
"""The key under which environments say which actions are allowed: in an observation or in its info."""

_CHANNELS = (1, 3, 4)
"""Sizes of an image's axis of colours: grey, RGB, RGBA."""

_SMALLEST_SIDE = 5
"""Of an image, below which no encoder takes it; it is a vector then."""

_UNBOUNDED = 1e10
"""Bounds beyond this are none."""

_Path = tuple[Any, ...]
"""The keys and positions that lead to a part of a space."""

Columns = list[NDArray[np.float32]]


class UnsupportedSpaceException(UnityEnvironmentException):
    """A space that no network here reads or no policy here acts in; the message names it."""


@dataclass(frozen=True)
class _Part:
    """One observation that the networks read: where in a batch it is, and how it becomes a column."""

    path: _Path
    spec: ObservationSpec
    convert: Callable[[Any], NDArray[np.float32]]


class ObservationLayout:
    """How observations of a space become columns.

    Every fundamental space in it is an observation of its own, in the order of Gymnasium's dicts and tuples. A Box is a
    vector, or an image where it looks like one: `uint8` or within [0, 1], with two axes or with three of which one has
    1, 3 or 4 entries (first or last), or with four, a stack of those. Images come out channel first with values in
    [0, 1]. Discrete and MultiDiscrete are one-hot. Text beside other observations is left out, with a warning. The part
    ``action_mask`` of a Dict is no observation; `masks` finds it.

    :param where: names the environment in messages.
    :raises UnsupportedSpaceException: a space among them that has no such form.
    """

    def __init__(self, space: spaces.Space[Any], where: str):
        self.space = space
        self._where = where
        self.has_masks = isinstance(space, spaces.Dict) and MASK in space.spaces
        parts = [self._part(path, leaf) for path, leaf in leaves(space) if path != (MASK,)]
        self._parts = [part for part in parts if part is not None]
        if not self._parts:
            raise UnsupportedSpaceException(
                f"{where}: there is nothing in its observation space {space} to learn from."
            )
        self.specs = [part.spec for part in self._parts]

    def _part(self, path: _Path, space: spaces.Space[Any]) -> _Part | None:
        name = "/".join(map(str, path)) or "observation"
        if space.dtype is not None and space.dtype.kind == "U":
            logger.warning(f"{self._where}: the observation {name} is text, which no network reads; it is left out.")
            return None
        if isinstance(space, spaces.Box):
            return self._box(path, name, space)
        if isinstance(space, spaces.Discrete):
            one_hot = _OneHot(np.array([space.n]), np.array([space.start]))
            return _Part(path, vector_observation(int(space.n), name), one_hot)
        if isinstance(space, spaces.MultiDiscrete):
            one_hot = _OneHot(space.nvec.reshape(-1), np.reshape(space.start, -1))
            return _Part(path, vector_observation(int(space.nvec.sum()), name), one_hot)
        if isinstance(space, spaces.MultiBinary):
            return _Part(path, vector_observation(int(np.prod(space.shape)), name), _copied)
        raise UnsupportedSpaceException(
            f"{self._where}: the observation {name} is of the space {space}, which has no fixed size or no numbers. "
            "Supported are Box, Discrete, MultiDiscrete, MultiBinary, and Dict and Tuple of them; a wrapper of "
            "Gymnasium's (gymnasium.wrappers) can turn it into one of these."
        )

    def _box(self, path: _Path, name: str, space: spaces.Box) -> _Part:
        image = _Image.of(space)
        if image is not None:
            return _Part(path, image_observation(*image.shape, name), image)
        return _Part(path, vector_observation(max(1, int(np.prod(space.shape))), name), _copied)

    def columns(self, batch: Any) -> Columns:
        """Return the observations of a batch: per specification, float32 (N, *shape), arrays of their own.

        :raises UnityObservationException: the batch is not one of the space.
        """
        return [self._column(part, _at(batch, part.path)) for part in self._parts]

    def _column(self, part: _Part, values: Any) -> NDArray[np.float32]:
        try:
            return part.convert(values).reshape(-1, *part.spec.shape)
        except (ValueError, IndexError) as error:
            raise UnityObservationException(
                f"{self._where}: the observation {part.spec.name} is not one of its observation space: {error}."
            ) from error

    def masks(self, batch: Any) -> Any:
        """Return what stands under ``action_mask``, for `ActionLayout.forbidden`; there must be `has_masks`."""
        return batch[MASK]


class ActionLayout:
    """How actions of a policy become actions of a space.

    Every entry of a Box is a continuous action, whose range [-1, 1] is stretched to the Box's bounds where it has both;
    beyond them it is clipped. Discrete is a branch, and so are every entry of MultiDiscrete and every bit of
    MultiBinary. Dicts and tuples take theirs in order.

    :param where: names the environment in messages.
    :raises UnsupportedSpaceException: a space among them that has no such form.
    """

    def __init__(self, space: spaces.Space[Any], where: str):
        self.space = space
        self._where = where
        self._boxes: dict[_Path, _Bounds] = {}
        self._choices: dict[_Path, _Choices] = {}
        for path, leaf in leaves(space):
            if isinstance(leaf, spaces.Box):
                self._boxes[path] = _Bounds(leaf)
            elif isinstance(leaf, (spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)):
                self._choices[path] = _Choices(leaf)
            else:
                raise UnsupportedSpaceException(
                    f"{where}: no policy acts in the space {leaf}{' of ' + '/'.join(map(str, path)) if path else ''}. "
                    "Supported are Box, Discrete, MultiDiscrete, MultiBinary, and Dict and Tuple of them."
                )
        branches = [int(size) for choices in self._choices.values() for size in choices.sizes]
        self.spec = ActionSpec(sum(bounds.size for bounds in self._boxes.values()), tuple(branches))
        if not branches and not self.spec.continuous_size:
            raise UnsupportedSpaceException(f"{where}: there is nothing to choose in its action space {space}.")
        self._splits = np.cumsum(branches)[:-1]

    def batch(self, actions: ActionTuple) -> Any:
        """Return the actions of N agents as a batch of the space."""
        done_continuous = done_discrete = 0
        values: dict[_Path, Any] = {}
        for path, bounds in self._boxes.items():
            values[path] = bounds.stretch(actions.continuous[:, done_continuous : done_continuous + bounds.size])
            done_continuous += bounds.size
        for path, choices in self._choices.items():
            width = len(choices.sizes)
            values[path] = choices.pick(actions.discrete[:, done_discrete : done_discrete + width])
            done_discrete += width
        return _assemble(self.space, values)

    def forbidden(self, allowed: Any, n_agents: int) -> list[NDArray[np.bool_]]:
        """Return the choices that are now forbidden (True): per branch, (N, size).

        :param allowed: 1 or True = allowed, for N agents: one array (N, sum of branches), or a sequence of an array
            (N, size) per branch; an object array (N,) of rows of either form, None for an agent that may do everything.
        :raises UnsupportedSpaceException: it has another form.
        """
        if isinstance(allowed, np.ndarray) and allowed.dtype == object:
            everything = np.ones(sum(self.spec.discrete_branches), dtype=np.bool_)
            allowed = [everything if row is None else self._row(row) for row in allowed]
        elif isinstance(allowed, (tuple, list)):
            allowed = np.concatenate([np.asarray(branch) for branch in allowed], axis=-1)
        allowed = np.asarray(allowed)
        if allowed.shape != (n_agents, sum(self.spec.discrete_branches)):
            raise UnsupportedSpaceException(
                f"{self._where}: {MASK} must have an entry for each of the {sum(self.spec.discrete_branches)} choices "
                f"of {self.space} but is of shape {allowed.shape[1:]}."
            )
        return np.split(~allowed.astype(np.bool_), self._splits, axis=1)

    def _row(self, row: Any) -> NDArray[np.bool_]:
        if isinstance(row, (tuple, list)):
            row = np.concatenate([np.reshape(branch, -1) for branch in row])
        return np.asarray(row, dtype=np.bool_)


class _Image:
    """An image of a Box: where its axes are, and what its values are divided by.

    :param shape: (C, H, W) as it comes out.
    """

    def __init__(self, shape: tuple[int, int, int], axes: Sequence[int], scale: float):
        self.shape = shape
        self._axes = axes
        self._scale = np.float32(1.0 / scale)

    @staticmethod
    def of(space: spaces.Box) -> _Image | None:
        """Return the image that a Box is; None where it is something else."""
        is_uint8 = space.dtype == np.uint8
        is_unit = bool(np.issubdtype(space.dtype, np.floating) and np.all(space.low == 0) and np.all(space.high == 1))
        if not (is_uint8 or is_unit) or not 2 <= len(space.shape) <= 4:
            return None
        if sum(size >= _SMALLEST_SIDE for size in space.shape) < 2:
            return None
        scale = max(float(space.high.max()), 1.0)
        shape = space.shape
        if len(shape) == 2:
            return _Image((1, *shape), (0, 1, 2), scale) if is_uint8 else None
        *stack, a, b, c = shape
        n_stacked = stack[0] if stack else 1
        n = len(stack)
        if c in _CHANNELS:
            return _Image((n_stacked * c, a, b), (0, *range(1, 1 + n), n + 3, n + 1, n + 2), scale)
        if a in _CHANNELS or (n == 0 and a < min(b, c)):  # a stack of grey frames has its own number of them
            return _Image((n_stacked * a, b, c), range(len(shape) + 1), scale)
        return None

    def __call__(self, batch: Any) -> NDArray[np.float32]:
        array = np.asarray(batch)
        if array.ndim == len(self._axes):
            array = array.transpose(self._axes)
        images: NDArray[np.float32] = np.multiply(array, self._scale, dtype=np.float32, order="C")
        return images.reshape(len(images), *self.shape)


class _OneHot:
    """Numbers of choices as ones among zeros.

    :param sizes: how many choices each number has.
    :param starts: the first choice of each.
    """

    def __init__(self, sizes: NDArray[Any], starts: NDArray[Any]):
        self._width = int(sizes.sum())
        self._offsets = np.cumsum(sizes) - sizes - starts

    def __call__(self, batch: Any) -> NDArray[np.float32]:
        numbers = np.asarray(batch)
        numbers = numbers.reshape(len(numbers), -1) + self._offsets
        column = np.zeros((len(numbers), self._width), dtype=np.float32)
        np.put_along_axis(column, numbers, 1.0, axis=1)
        return column


class _Bounds:
    """The range of a Box, and how [-1, 1] is stretched to it; entries without both bounds are only clipped."""

    def __init__(self, space: spaces.Box):
        self._space = space
        self.size = max(1, int(np.prod(space.shape)))
        low, high = (np.asarray(bound, dtype=np.float64).reshape(-1) for bound in (space.low, space.high))
        self._low, self._high = low, high
        bounded = (np.abs(low) < _UNBOUNDED) & (np.abs(high) < _UNBOUNDED)
        self._scale = np.where(bounded, (np.where(bounded, high, 0) - np.where(bounded, low, 0)) / 2, 1.0)
        self._middle = np.where(bounded, (np.where(bounded, high, 0) + np.where(bounded, low, 0)) / 2, 0.0)
        self._is_whole = bool(np.issubdtype(space.dtype, np.integer))

    def stretch(self, actions: NDArray[np.float32]) -> NDArray[Any]:
        """Return actions (N, size) as a batch of the Box."""
        stretched = np.clip(actions * self._scale + self._middle, self._low, self._high)
        if self._is_whole:
            stretched = np.rint(stretched)
        values = stretched.astype(self._space.dtype).reshape(len(actions), *self._space.shape)
        # again, for a narrower type may have rounded beyond the bounds
        clipped: NDArray[Any] = np.clip(values, self._space.low, self._space.high)
        return clipped


class _Choices:
    """The branches of a discrete space."""

    def __init__(self, space: spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary):
        self._space = space
        if isinstance(space, spaces.Discrete):
            sizes, starts = [int(space.n)], [int(space.start)]
        elif isinstance(space, spaces.MultiDiscrete):
            sizes, starts = space.nvec.reshape(-1).tolist(), np.reshape(space.start, -1).tolist()
        else:
            sizes, starts = [2] * int(np.prod(space.shape)), [0]
        self.sizes = [int(size) for size in sizes]
        self._starts = np.array(starts, dtype=space.dtype)
        self._are_shifted = bool(self._starts.any())

    def pick(self, actions: NDArray[np.int32]) -> NDArray[Any]:
        """Return choices (N, branches) as a batch of the space."""
        chosen: NDArray[Any] = actions.astype(self._space.dtype)
        if self._are_shifted:
            chosen = chosen + self._starts
        return chosen.reshape(len(chosen), *(self._space.shape or ()))


def leaves(space: spaces.Space[Any], path: _Path = ()) -> Iterator[tuple[_Path, spaces.Space[Any]]]:
    """Yield the spaces within dicts and tuples, with the ways to them."""
    if isinstance(space, spaces.Dict):
        for key, part in space.spaces.items():
            yield from leaves(part, (*path, key))
    elif isinstance(space, spaces.Tuple):
        for position, part in enumerate(space.spaces):
            yield from leaves(part, (*path, position))
    else:
        yield path, space


def _at(batch: Any, path: _Path) -> Any:
    """Return the part of a batch at the end of a way."""
    for key in path:
        batch = batch[key]
    return batch


def _assemble(space: spaces.Space[Any], values: Mapping[_Path, Any], path: _Path = ()) -> Any:
    """Return a batch of the space from the batches of its parts."""
    if isinstance(space, spaces.Dict):
        return {key: _assemble(part, values, (*path, key)) for key, part in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(_assemble(part, values, (*path, position)) for position, part in enumerate(space.spaces))
    return values[path]


def _copied(batch: Any) -> NDArray[np.float32]:
    return np.array(batch, dtype=np.float32)
