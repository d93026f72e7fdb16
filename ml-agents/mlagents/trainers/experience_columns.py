"""The arrays ``[slot, time, ...]`` in which the experiences of live agents gather."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Any, Dict, Mapping, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from mlagents.trainers.trajectory import TrajectoryColumns
from mlagents_envs.base_env import BehaviorSpec

_FIRST_SLOT_CAPACITY = 16
_FIRST_TIME_CAPACITY = 64
_MADE_WHEN_CUT = {"obs", "done", "interrupted", "prev_discrete", "branches"}
_NAMES = {field.name for field in fields(TrajectoryColumns)} - _MADE_WHEN_CUT


class _Field(NamedTuple):
    """What one array holds per slot and time, and what stands where nothing was written yet."""

    shape: Tuple[int, ...]
    dtype: type
    blank: float


class ExperienceColumns:
    """The experiences under way: arrays ``[slot, time, ...]`` that grow along both axes.

    What has not been written is NaN in float columns, so that reading it shows.

    :param spec: what the agents observe and how they act.
    :param horizon: the most experiences that a slot ever holds.
    :ivar arrays: the columns by name: those of `TrajectoryColumns`, and ``obs_<index>`` per observation.
    :ivar rows: the same memory with slot and time as one axis, ``[slot * n_times + time, ...]``; of what is one number,
        that is the only axis, along which NumPy writes to given places in a fifth of the time.
    """

    def __init__(self, spec: BehaviorSpec, horizon: int):
        self._horizon = horizon
        action_spec = spec.action_spec
        self.branches = action_spec.discrete_branches
        self.n_obs = len(spec.observation_specs)
        self.n_slots = _FIRST_SLOT_CAPACITY
        self.n_times = min(_FIRST_TIME_CAPACITY, horizon)
        self.arrays: Dict[str, np.ndarray] = {}
        self.rows: Dict[str, np.ndarray] = {}
        self._fields: Dict[str, _Field] = {}
        self._has_masks = False
        self.add("continuous", (action_spec.continuous_size,))
        self.add("discrete", (action_spec.discrete_size,), np.int32, 0)
        self.add("action_mask", (sum(action_spec.discrete_branches),), np.bool_, False)
        self.add("reward", ())
        self.add("group_reward", ())
        for index, observation in enumerate(spec.observation_specs):
            self.add(f"obs_{index}", observation.shape)

    def add(self, name: str, shape: Tuple[int, ...], dtype: type = np.float32, blank: float = np.nan) -> None:
        """Keep a column from now on; one of another shape is dropped, one that is there already stays as it is."""
        field = _Field(shape, dtype, blank)
        if name not in self._fields or self._fields[name].shape != shape:
            self._fields[name] = field
            self._set(name, self._blank(field))

    def _blank(self, field: _Field) -> np.ndarray:
        return np.full((self.n_slots, self.n_times, *field.shape), field.blank, dtype=field.dtype)

    def _set(self, name: str, array: np.ndarray) -> None:
        self.arrays[name] = array
        n_slots, n_times, *shape = array.shape
        self.rows[name] = array.reshape(n_slots * n_times, *([] if math.prod(shape) == 1 else shape))

    def write(self, name: str, places: np.ndarray, values: np.ndarray) -> None:
        """Write values (K, ...) to places (K,) of `rows`."""
        rows = self.rows[name]
        rows[places] = values.reshape(-1) if rows.ndim == 1 else values

    def write_masks(self, places: np.ndarray, masks: Optional[Sequence[np.ndarray]]) -> None:
        """Write what is forbidden, per branch (K, size), or that nothing is."""
        if masks is not None:
            self._has_masks = True
            self.write("action_mask", places, np.concatenate(masks, axis=1))
        elif self._has_masks:  # else it stands there already
            self.rows["action_mask"][places] = False

    def _resize(self, n_slots: int, n_times: int) -> None:
        old_slots, old_times = self.n_slots, self.n_times
        self.n_slots, self.n_times = n_slots, n_times
        for name, field in self._fields.items():
            grown = self._blank(field)
            grown[:old_slots, :old_times] = self.arrays[name]
            self._set(name, grown)

    def reserve_slots(self, n_slots: int) -> None:
        """Make room for `n_slots` agents."""
        if n_slots > self.n_slots:
            self._resize(max(n_slots, 2 * self.n_slots), self.n_times)

    def reserve_time(self, length: int) -> bool:
        """Make room for `length` experiences in a slot; return whether places in `rows` are others for it."""
        grows = length > self.n_times
        if grows:
            self._resize(self.n_slots, min(max(length, 2 * self.n_times), self._horizon))
        return grows

    def state_dict(self) -> Dict[str, Any]:
        """Return the arrays, and what stands where nothing was written, by name."""
        blanks = {name: field.blank for name, field in self._fields.items()}
        return {"arrays": dict(self.arrays), "blanks": blanks}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over arrays of which `state_dict` told.

        :raises ValueError: there are others among them: the state is of another version.
        """
        unknown = state["arrays"].keys() - _NAMES - {f"obs_{index}" for index in range(self.n_obs)}
        if unknown:
            raise ValueError(f"There are no columns {', '.join(sorted(unknown))}.")
        self.arrays, self.rows, self._has_masks = {}, {}, True
        for name, array in state["arrays"].items():
            self._set(name, np.ascontiguousarray(array))  # so that `rows` are the same memory
        self.n_slots, self.n_times = self.arrays["reward"].shape
        self._fields = {
            name: _Field(array.shape[2:], array.dtype.type, state["blanks"][name])
            for name, array in self.arrays.items()
        }

    def cut(
        self, slot: int, length: int, done: bool, interrupted: bool, discrete_before: np.ndarray
    ) -> TrajectoryColumns:
        """Return the first `length` experiences of a slot, as copies; only the last can be done or interrupted.

        :param discrete_before: (D,), the choices in the experience before them.
        """
        taken = {name: values[slot, :length].copy() for name, values in self.arrays.items()}
        obs = [taken.pop(f"obs_{index}") for index in range(self.n_obs)]
        is_last = np.arange(length) == length - 1
        return TrajectoryColumns(
            obs=obs,
            done=is_last & done,
            interrupted=is_last & interrupted,
            prev_discrete=np.concatenate([discrete_before[None], taken["discrete"][:-1]]),
            branches=self.branches,
            **taken,
        )
