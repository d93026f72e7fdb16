"""What one agent lived through, in columns, and how it becomes training data."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Iterable, List, NamedTuple, Optional, Sequence

import numpy as np
from numpy.typing import DTypeLike

from mlagents.trainers.buffer import AgentBuffer, AgentBufferField, AgentBufferKey, BufferKey, ObservationKeyPrefix
from mlagents_envs.base_env import ActionTuple, _ActionTupleBase


class LogProbsTuple(_ActionTupleBase):
    """Log-probabilities of N agents' actions: `continuous` float32 (N, C) and `discrete` float32 (N, D)."""

    @property
    def discrete_dtype(self) -> DTypeLike:
        """Log-probabilities are float32, discrete ones too."""
        return np.float32

    @staticmethod
    def empty_log_probs() -> LogProbsTuple:
        """Return log-probabilities of nobody's actions."""
        return LogProbsTuple()


class AgentStatus(NamedTuple):
    """What is known of a team-mate at a step."""

    obs: List[np.ndarray]
    reward: float
    action: ActionTuple
    done: bool


class AgentExperience(NamedTuple):
    """One step of one agent: what it saw and did, and what it got for it.

    :param action_mask: per discrete branch, bool, True = forbidden; None where nothing is.
    :param memory: (M,), what it remembered when it decided; None without memory.
    """

    obs: List[np.ndarray]
    reward: float
    done: bool
    action: ActionTuple
    action_probs: Optional[LogProbsTuple]
    action_mask: Optional[List[np.ndarray]]
    prev_action: np.ndarray
    interrupted: bool
    memory: Optional[np.ndarray]
    group_status: List[AgentStatus]
    group_reward: float


class ObsUtil:
    """The keys of observations, and observations read by them."""

    @staticmethod
    def get_name_at(index: int) -> AgentBufferKey:
        """Return the key of observation `index`."""
        return ObservationKeyPrefix.OBSERVATION, index

    @staticmethod
    def get_name_at_next(index: int) -> AgentBufferKey:
        """Return the key of observation `index` one step later."""
        return ObservationKeyPrefix.NEXT_OBSERVATION, index

    @staticmethod
    def from_buffer(batch: AgentBuffer, num_obs: int) -> List[np.ndarray]:
        """Return the observations of a buffer, each (B, *shape)."""
        return [batch[ObsUtil.get_name_at(i)].to_ndarray() for i in range(num_obs)]

    @staticmethod
    def from_buffer_next(batch: AgentBuffer, num_obs: int) -> List[np.ndarray]:
        """Return the observations one step later, each (B, *shape)."""
        return [batch[ObsUtil.get_name_at_next(i)].to_ndarray() for i in range(num_obs)]


@dataclass
class TrajectoryColumns:
    """T steps of one agent; A = C + D as ever, `N` the sum of branch sizes."""

    obs: List[np.ndarray]  # per observation (T, *shape)
    reward: np.ndarray  # (T,)
    done: np.ndarray  # (T,) bool
    interrupted: np.ndarray  # (T,) bool
    continuous: np.ndarray  # (T, C)
    discrete: np.ndarray  # (T, D) int32
    prev_discrete: np.ndarray  # (T, D) int32
    action_mask: np.ndarray  # (T, N) bool, True = forbidden
    group_reward: np.ndarray  # (T,)
    continuous_log_probs: Optional[np.ndarray] = None  # (T, C)
    discrete_log_probs: Optional[np.ndarray] = None  # (T, D)
    memory: Optional[np.ndarray] = None  # (T, M), before each decision
    branches: Sequence[int] = field(default_factory=tuple)  # D sizes

    def __len__(self) -> int:
        return len(self.reward)

    @staticmethod
    def from_steps(steps: Sequence[AgentExperience]) -> TrajectoryColumns:
        """Gather steps into columns."""
        first = steps[0]
        # A step on which nothing is forbidden may have no mask; the others say how wide it is.
        branches = next((tuple(map(len, step.action_mask)) for step in steps if step.action_mask is not None), ())
        nothing = np.zeros(sum(branches), dtype=bool)
        masks = [nothing if step.action_mask is None else np.concatenate(step.action_mask) for step in steps]
        has_log_probs, has_memory = first.action_probs is not None, first.memory is not None
        return TrajectoryColumns(
            obs=[np.array([step.obs[i] for step in steps], dtype=np.float32) for i in range(len(first.obs))],
            reward=np.array([step.reward for step in steps], dtype=np.float32),
            done=np.array([step.done for step in steps], dtype=bool),
            interrupted=np.array([step.interrupted for step in steps], dtype=bool),
            continuous=np.stack([np.ravel(step.action.continuous) for step in steps]),
            discrete=np.stack([np.ravel(step.action.discrete) for step in steps]),
            prev_discrete=np.stack([np.ravel(step.prev_action) for step in steps]).astype(np.int32),
            action_mask=np.array(masks, dtype=bool),
            group_reward=np.array([step.group_reward for step in steps], dtype=np.float32),
            continuous_log_probs=_stacked_log_probs(steps, "continuous") if has_log_probs else None,
            discrete_log_probs=_stacked_log_probs(steps, "discrete") if has_log_probs else None,
            memory=np.array([step.memory for step in steps], dtype=np.float32) if has_memory else None,
            branches=branches,
        )

    def step(self, t: int) -> AgentExperience:
        """Return step `t` as an object."""
        log_probs = None
        if self.continuous_log_probs is not None or self.discrete_log_probs is not None:
            log_probs = LogProbsTuple(
                None if self.continuous_log_probs is None else self.continuous_log_probs[t],
                None if self.discrete_log_probs is None else self.discrete_log_probs[t],
            )
        return AgentExperience(
            obs=[values[t] for values in self.obs],
            reward=float(self.reward[t]),
            done=bool(self.done[t]),
            action=ActionTuple(self.continuous[t], self.discrete[t]),
            action_probs=log_probs,
            action_mask=np.split(self.action_mask[t], np.cumsum(self.branches)[:-1]) if self.branches else None,
            prev_action=self.prev_discrete[t],
            interrupted=bool(self.interrupted[t]),
            memory=None if self.memory is None else self.memory[t],
            group_status=[],
            group_reward=float(self.group_reward[t]),
        )


def _stacked_log_probs(steps: Sequence[AgentExperience], half: str) -> np.ndarray:
    return np.stack([np.ravel(getattr(step.action_probs, half)) for step in steps])


class TrajectoryEnding(NamedTuple):
    """Where, in a buffer of several trajectories, one of them ends, and how."""

    n_steps: int
    agent_id: str
    done_reached: bool
    interrupted: bool

    @property
    def is_final(self) -> bool:
        """Whether nothing comes after."""
        return self.done_reached and not self.interrupted


class Trajectory:
    """Consecutive steps of one agent, up to the end of its episode or the time horizon.

    :param steps: the steps as objects; given instead of `columns`, they are gathered into them.
    :param next_obs: what the agent saw after the last step, each (*shape).
    :param next_group_obs: what its team-mates saw then.
    :param agent_id: the agent's id within the run, ``agent_<worker>-<id>``.
    :param behavior_id: the behaviour's name with its team, ``NAME?team=N``.
    """

    def __init__(
        self,
        steps: Optional[Sequence[AgentExperience]] = None,
        next_obs: Sequence[np.ndarray] = (),
        next_group_obs: Sequence[List[np.ndarray]] = (),
        agent_id: str = "",
        behavior_id: str = "",
        *,
        columns: Optional[TrajectoryColumns] = None,
    ):
        if columns is None:
            if not steps:
                raise ValueError("A trajectory needs at least one step.")
            columns = TrajectoryColumns.from_steps(steps)
            self.steps = list(steps)
        self.columns = columns
        self.next_obs = list(next_obs)
        self.next_group_obs = list(next_group_obs)
        self.agent_id = agent_id
        self.behavior_id = behavior_id

    def __len__(self) -> int:
        return len(self.columns)

    @cached_property
    def steps(self) -> List[AgentExperience]:
        """The steps as objects, made when first asked for."""
        return [self.columns.step(t) for t in range(len(self.columns))]

    @property
    def done_reached(self) -> bool:
        """Whether the last step ended the agent's episode."""
        return bool(self.columns.done[-1])

    @property
    def all_group_dones_reached(self) -> bool:
        """Whether the episode is over for every member of the agent's group."""
        return self.done_reached and all(mate.done for mate in self.steps[-1].group_status)

    @property
    def interrupted(self) -> bool:
        """Whether the last step was cut by a maximum rather than finished."""
        return bool(self.columns.interrupted[-1])

    @property
    def ending(self) -> TrajectoryEnding:
        """What is to be known of it besides its rows in a buffer."""
        return TrajectoryEnding(len(self), self.agent_id, self.done_reached, self.interrupted)

    def to_agentbuffer(self) -> AgentBuffer:
        """Return the trajectory as training data, T rows, in columns of its own.

        Trainers write to them (that an interrupted episode is not done, say); the trajectory stays as it was.
        """
        buffer = joined([self])
        buffer.agent_id = self.agent_id
        buffer.ends_episode = self.done_reached
        return buffer


def can_be_joined(trajectories: Sequence[Trajectory]) -> bool:
    """Return whether each has the columns that the others have."""
    return len({tuple(getattr(it.columns, name) is None for name in _OPTIONAL) for it in trajectories}) == 1


_OPTIONAL = ("continuous_log_probs", "discrete_log_probs", "memory")


def joined(trajectories: Sequence[Trajectory]) -> AgentBuffer:
    """Return trajectories of one behaviour as training data, one behind the other; see `Trajectory.to_agentbuffer`."""
    columns = [trajectory.columns for trajectory in trajectories]
    ends = list(itertools.accumulate(map(len, columns)))
    buffer = AgentBuffer()

    def put(key: AgentBufferKey, values: np.ndarray, padding_value: float = 0.0) -> None:
        buffer[key] = AgentBufferField.holding(values, padding_value)

    def all_of(name: str) -> np.ndarray:
        return _one_behind_the_other([getattr(it, name) for it in columns])

    for index in range(len(columns[0].obs)):
        obs = _one_behind_the_other([it.obs[index] for it in columns])
        put(ObsUtil.get_name_at(index), obs)
        put(ObsUtil.get_name_at_next(index), _shifted(obs, ends, [it.next_obs[index] for it in trajectories]))
    put(BufferKey.MASKS, np.ones(ends[-1], dtype=np.float32))
    done, continuous, discrete = all_of("done"), all_of("continuous"), all_of("discrete")
    put(BufferKey.DONE, done)
    put(BufferKey.GROUP_DONES, done.copy())
    put(BufferKey.CONTINUOUS_ACTION, continuous)
    put(BufferKey.DISCRETE_ACTION, discrete)
    put(BufferKey.NEXT_CONT_ACTION, _shifted(continuous, ends, itertools.repeat(0)))
    put(BufferKey.NEXT_DISC_ACTION, _shifted(discrete, ends, itertools.repeat(0)))
    if columns[0].continuous_log_probs is not None:
        put(BufferKey.CONTINUOUS_LOG_PROBS, all_of("continuous_log_probs"))
    if columns[0].discrete_log_probs is not None:
        put(BufferKey.DISCRETE_LOG_PROBS, all_of("discrete_log_probs"))
    put(BufferKey.ACTION_MASK, 1.0 - all_of("action_mask").astype(np.float32), padding_value=1.0)
    put(BufferKey.PREV_ACTION, all_of("prev_discrete"))
    if columns[0].memory is not None:
        put(BufferKey.MEMORY, all_of("memory"))
    put(BufferKey.ENVIRONMENT_REWARDS, all_of("reward"))
    put(BufferKey.GROUP_REWARD, all_of("group_reward"))
    return buffer


def _one_behind_the_other(parts: Sequence[np.ndarray]) -> np.ndarray:
    return parts[0].copy() if len(parts) == 1 else np.concatenate(parts)


def _shifted(column: np.ndarray, ends: Sequence[int], after: Iterable[Any]) -> np.ndarray:
    """Return `column` one step later, with what comes `after` in the last row of each trajectory."""
    shifted = np.empty_like(column)
    shifted[:-1] = column[1:]
    for end, row in zip(ends, after):
        shifted[end - 1] = row
    return shifted
