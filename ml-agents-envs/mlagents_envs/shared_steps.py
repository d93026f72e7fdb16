"""Steps from one process to another through memory that both see.

The writer puts the arrays of a step one after the other into a memory-mapped file and sends only a `SharedSteps`, a few
numbers, by whatever connects the two; the reader finds the arrays from the behaviours' specifications and the numbers
of agents. The file has two halves that are used in turns: what was read stays valid while the next step is written.
"""

from __future__ import annotations

import math
import mmap
import os
import tempfile
from typing import Any, Dict, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Tuple

import numpy as np
from numpy.typing import DTypeLike, NDArray

from mlagents_envs.base_env import BehaviorName, BehaviorSpec, DecisionSteps, TerminalSteps
from mlagents_envs.exception import UnityObservationException

BehaviorSteps = Tuple[DecisionSteps, TerminalSteps]

_ALIGNMENT = 16
_GROWTH = 1.5
_MEMORY_FOLDER = "/dev/shm"


class SharedBatch(NamedTuple):
    """The steps of one behaviour.

    :param has_masks: whether the decision steps have action masks.
    """

    behavior_id: BehaviorName
    n_decisions: int
    n_terminals: int
    has_masks: bool

    @property
    def has_decisions(self) -> bool:
        """Whether there are arrays of decision steps: with masks there are, though they may be of nobody."""
        return self.n_decisions > 0 or self.has_masks


class SharedSteps(NamedTuple):
    """Where the arrays of a step are.

    :param path: of the file.
    :param offset: of the first array in it.
    """

    path: str
    offset: int
    batches: List[SharedBatch]


def make_shared_folder() -> tempfile.TemporaryDirectory[str]:
    """Make a folder for the files, in memory where the system has one for that."""
    folder = _MEMORY_FOLDER if os.access(_MEMORY_FOLDER, os.W_OK) else None
    return tempfile.TemporaryDirectory(prefix="mlagents-steps-", dir=folder, ignore_cleanup_errors=True)


class _Column(NamedTuple):
    """One array of a batch."""

    name: str
    shape: Tuple[int, ...]
    dtype: DTypeLike


_View = Tuple[_Column, NDArray[Any]]


def _columns(batch: SharedBatch, spec: BehaviorSpec) -> Iterator[_Column]:
    """Yield the arrays of a batch, in the order in which they lie in memory: decisions' first, none for nobody."""
    parts = [batch.n_decisions] if batch.has_decisions else []
    parts += [batch.n_terminals] if batch.n_terminals else []
    for n_agents in parts:
        for observation in spec.observation_specs:
            yield _Column(f"observation {observation.name!r}", (n_agents, *observation.shape), np.float32)
        yield _Column("the rewards", (n_agents,), np.float32)
        yield _Column("the agent ids", (n_agents,), np.int32)
        yield _Column("the group ids", (n_agents,), np.int32)
        yield _Column("the group rewards", (n_agents,), np.float32)
    if batch.n_terminals:
        yield _Column("who was interrupted", (batch.n_terminals,), np.bool_)
    if batch.has_masks:
        for branch, size in enumerate(spec.action_spec.discrete_branches):
            yield _Column(f"the action mask of branch {branch}", (batch.n_decisions, size), np.bool_)


def _arrays(behavior_id: BehaviorName, steps: BehaviorSteps, spec: BehaviorSpec) -> Iterator[NDArray[Any]]:
    """Yield the arrays of a behaviour's steps in the order of `_columns`."""
    decisions, terminals = steps
    parts: List[DecisionSteps | TerminalSteps] = []
    if len(decisions) or decisions.action_mask is not None:
        parts.append(decisions)
    if len(terminals):
        parts.append(terminals)
    for part in parts:
        yield from _as_many(part.obs, len(spec.observation_specs), behavior_id, "observations")
        yield from (part.reward, part.agent_id, part.group_id, part.group_reward)
    if len(terminals):
        yield terminals.interrupted
    if decisions.action_mask is not None:
        yield from _as_many(decisions.action_mask, len(spec.action_spec.discrete_branches), behavior_id, "action masks")


def _as_many(arrays: Sequence[NDArray[Any]], n: int, behavior_id: BehaviorName, what: str) -> Sequence[NDArray[Any]]:
    if len(arrays) != n:
        raise UnityObservationException(
            f"Behavior {behavior_id}: the environment gave {len(arrays)} {what}, where {n} are specified."
        )
    return arrays


class _Layout:
    """Where the arrays of a step lie; the last answer is kept, since most steps are alike."""

    def __init__(self) -> None:
        self._batches: Optional[List[SharedBatch]] = None
        self._specs: List[BehaviorSpec] = []
        self._columns: List[Tuple[int, _Column]] = []  # with the offset from the first
        self._memory: Optional[mmap.mmap] = None
        self._views: Dict[int, List[_View]] = {}
        self.size = 0
        """Bytes that the arrays take."""

    def arrange(self, batches: List[SharedBatch], specs: Mapping[BehaviorName, BehaviorSpec]) -> None:
        """Find the places of the arrays of some batches."""
        batch_specs = [specs[batch.behavior_id] for batch in batches]
        if batches == self._batches and batch_specs == self._specs:
            return
        self._batches, self._specs, self._columns, self.size = batches, batch_specs, [], 0
        self._views = {}
        for batch, spec in zip(batches, batch_specs):
            for column in _columns(batch, spec):
                self._columns.append((self.size, column))
                size = math.prod(column.shape) * np.dtype(column.dtype).itemsize
                self.size += -(-size // _ALIGNMENT) * _ALIGNMENT

    def views(self, memory: Optional[mmap.mmap], start: int) -> List[_View]:
        """Return the arrays where they lie in memory, the first at `start`."""
        if memory is not self._memory:
            self._memory, self._views = memory, {}
        views = self._views.get(start)
        if views is None:
            views = self._views[start] = [
                (column, np.ndarray(column.shape, column.dtype, memory, start + offset))
                for offset, column in self._columns
            ]
        return views


class StepsWriter:
    """Puts steps where a `StepsReader` finds them.

    :param folder: for the files, from `make_shared_folder`.
    """

    def __init__(self, folder: str):
        self._folder = folder
        self._path = ""
        self._memory: Optional[mmap.mmap] = None
        self._half_size = 0
        self._half = 0
        self._layout = _Layout()

    def write(
        self, steps: Mapping[BehaviorName, BehaviorSteps], specs: Mapping[BehaviorName, BehaviorSpec]
    ) -> SharedSteps:
        """Write a step; what was written two steps before is gone.

        :raises UnityObservationException: an array is not as the specification says.
        :raises OSError: there is no room for it.
        """
        batches = [
            SharedBatch(name, len(decisions), len(terminals), decisions.action_mask is not None)
            for name, (decisions, terminals) in steps.items()
        ]
        self._layout.arrange(batches, specs)
        if self._layout.size > self._half_size or self._memory is None:
            self._grow(self._layout.size)
        self._half = 1 - self._half
        start = self._half * self._half_size
        arrays = ((name, array) for name in steps for array in _arrays(name, steps[name], specs[name]))
        for (column, view), (name, array) in zip(self._layout.views(self._memory, start), arrays):
            if array.shape != column.shape:
                raise UnityObservationException(
                    f"Behavior {name}: the environment gave {column.name} in the shape {array.shape}, agents "
                    f"first, where {column.shape} is specified."
                )
            view[...] = array
        return SharedSteps(self._path, start, batches)

    def _grow(self, size: int) -> None:
        """Go on in a new file with room for two steps of this size, and some more."""
        self._half_size = -(-max(int(size * _GROWTH), mmap.PAGESIZE) // mmap.PAGESIZE) * mmap.PAGESIZE
        try:
            self._open(self._folder)
        except OSError:  # memory is smaller than the disk
            self._open(None)

    def _open(self, folder: Optional[str]) -> None:
        descriptor, path = tempfile.mkstemp(dir=folder, prefix="mlagents-steps-")
        try:
            length = 2 * self._half_size
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(descriptor, 0, length)  # else a full disk shows as a crash when it is written to
            else:
                os.truncate(descriptor, length)
            self._memory = mmap.mmap(descriptor, length)
        except BaseException:
            os.unlink(path)
            raise
        finally:
            os.close(descriptor)
        self._path = path


class StepsReader:
    """Finds what a `StepsWriter` has written."""

    def __init__(self) -> None:
        self._path = ""
        self._memory: Optional[mmap.mmap] = None
        self._layout = _Layout()
        self._empty: Dict[BehaviorName, Tuple[BehaviorSpec, BehaviorSteps]] = {}

    def read(
        self, message: SharedSteps, specs: Mapping[BehaviorName, BehaviorSpec]
    ) -> Dict[BehaviorName, BehaviorSteps]:
        """Return a step.

        Its observations are views of what both processes see, valid until the writer has written one more step and
        begins with the next; all else is copied.
        """
        if message.path != self._path:
            self._open(message.path)
        self._layout.arrange(message.batches, specs)
        arrays = (view for _, view in self._layout.views(self._memory, message.offset))
        return {
            batch.behavior_id: self._read_batch(batch, specs[batch.behavior_id], arrays) for batch in message.batches
        }

    def _read_batch(self, batch: SharedBatch, spec: BehaviorSpec, arrays: Iterator[NDArray[Any]]) -> BehaviorSteps:
        decisions, terminals = self._nobody(batch.behavior_id, spec)
        if batch.has_decisions:
            obs, reward, agent_id, group_id, group_reward = _read_agents(len(spec.observation_specs), arrays)
            decisions = DecisionSteps(obs, reward, agent_id, None, group_id, group_reward)
        if batch.n_terminals:
            obs, reward, agent_id, group_id, group_reward = _read_agents(len(spec.observation_specs), arrays)
            terminals = TerminalSteps(obs, reward, next(arrays).copy(), agent_id, group_id, group_reward)
        if batch.has_masks:
            decisions.action_mask = [next(arrays).copy() for _ in spec.action_spec.discrete_branches]
        return decisions, terminals

    def _nobody(self, behavior_id: BehaviorName, spec: BehaviorSpec) -> BehaviorSteps:
        """Return steps without agents, the same ones each time."""
        known = self._empty.get(behavior_id)
        if known is None or known[0] is not spec:
            known = self._empty[behavior_id] = (spec, (DecisionSteps.empty(spec), TerminalSteps.empty(spec)))
        return known[1]

    def _open(self, path: str) -> None:
        descriptor = os.open(path, os.O_RDWR | getattr(os, "O_BINARY", 0))
        try:
            self._memory = mmap.mmap(descriptor, 0)
        finally:
            os.close(descriptor)
        self._path = path
        if os.name == "posix":
            os.unlink(path)  # both have it open: it is gone as soon as neither has


def _read_agents(n_observations: int, arrays: Iterator[NDArray[Any]]) -> Tuple[Any, ...]:
    """Return what decision and terminal steps have in common: observations, reward, agent id, group id and reward."""
    obs = [next(arrays) for _ in range(n_observations)]
    return (obs, *(next(arrays).copy() for _ in range(4)))
