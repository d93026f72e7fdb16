"""The low-level API: what an environment is to a trainer.

An environment holds *behaviours* by name; every agent acts under one behaviour, and all agents of a behaviour share one
`BehaviorSpec`. After `BaseEnv.reset` or `BaseEnv.step`, `BaseEnv.get_steps` returns for a behaviour the agents that
want an action (`DecisionSteps`) and those whose episode has just ended (`TerminalSteps`), in columns: one array per
field over all agents. Axis letters: N agents, C continuous actions, D discrete branches.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from enum import Enum, IntFlag
from functools import cached_property
from typing import Any, Dict, List, NamedTuple, Optional, Tuple
from typing import Mapping as MappingType

import numpy as np
from numpy.typing import DTypeLike, NDArray

from mlagents_envs.exception import UnityActionException, UnityEnvironmentException

AgentId = int
GroupId = int
BehaviorName = str


class DecisionStep(NamedTuple):
    """One agent that waits for an action."""

    obs: List[np.ndarray]
    reward: float
    agent_id: AgentId
    action_mask: Optional[List[np.ndarray]]
    group_id: int
    group_reward: float


class TerminalStep(NamedTuple):
    """One agent whose episode has just ended."""

    obs: List[np.ndarray]
    reward: float
    interrupted: bool
    agent_id: AgentId
    group_id: GroupId
    group_reward: float


class _Steps(Mapping):  # type: ignore[type-arg]
    """What `DecisionSteps` and `TerminalSteps` share: a batch of agents, by position and by id."""

    agent_id: NDArray[np.int32]

    @cached_property
    def agent_id_to_index(self) -> Dict[AgentId, int]:
        """The position of each agent in the arrays."""
        return {int(agent_id): index for index, agent_id in enumerate(self.agent_id)}

    def _index_of(self, agent_id: AgentId) -> int:
        try:
            return self.agent_id_to_index[agent_id]
        except KeyError:
            raise KeyError(f"agent_id {agent_id} is not present in the {type(self).__name__}") from None

    def __len__(self) -> int:
        return len(self.agent_id)

    def __iter__(self) -> Iterator[Any]:
        yield from self.agent_id


class DecisionSteps(_Steps):
    """The agents of a behaviour that wait for an action, N of them, in columns.

    :param obs: per observation, float32 (N, *shape).
    :param reward: float32 (N,), earned since each agent's last step.
    :param agent_id: int32 (N,), unique within the batch.
    :param action_mask: per discrete branch, bool (N, size), True = forbidden; None where nothing is.
    :param group_id: int32 (N,); 0 is no group.
    :param group_reward: float32 (N,).
    """

    def __init__(
        self,
        obs: List[np.ndarray],
        reward: np.ndarray,
        agent_id: np.ndarray,
        action_mask: Optional[List[np.ndarray]],
        group_id: np.ndarray,
        group_reward: np.ndarray,
    ):
        self.obs = obs
        self.reward = reward
        self.agent_id = agent_id
        self.action_mask = action_mask
        self.group_id = group_id
        self.group_reward = group_reward

    def __getitem__(self, agent_id: AgentId) -> DecisionStep:
        index = self._index_of(agent_id)
        return DecisionStep(
            obs=[values[index] for values in self.obs],
            reward=self.reward[index],
            agent_id=agent_id,
            action_mask=None if self.action_mask is None else [mask[index] for mask in self.action_mask],
            group_id=self.group_id[index],
            group_reward=self.group_reward[index],
        )

    @staticmethod
    def empty(spec: BehaviorSpec) -> DecisionSteps:
        """Return a batch of no agents that fits `spec`."""
        return DecisionSteps(
            obs=[np.zeros((0, *o.shape), dtype=np.float32) for o in spec.observation_specs],
            reward=np.zeros(0, dtype=np.float32),
            agent_id=np.zeros(0, dtype=np.int32),
            action_mask=None,
            group_id=np.zeros(0, dtype=np.int32),
            group_reward=np.zeros(0, dtype=np.float32),
        )


class TerminalSteps(_Steps):
    """The agents of a behaviour whose episode has just ended, N of them, in columns.

    :param interrupted: bool (N,): cut by a maximum of steps or the like, rather than finished.

    The other fields are those of `DecisionSteps`.
    """

    def __init__(
        self,
        obs: List[np.ndarray],
        reward: np.ndarray,
        interrupted: np.ndarray,
        agent_id: np.ndarray,
        group_id: np.ndarray,
        group_reward: np.ndarray,
    ):
        self.obs = obs
        self.reward = reward
        self.interrupted = interrupted
        self.agent_id = agent_id
        self.group_id = group_id
        self.group_reward = group_reward

    def __getitem__(self, agent_id: AgentId) -> TerminalStep:
        index = self._index_of(agent_id)
        return TerminalStep(
            obs=[values[index] for values in self.obs],
            reward=self.reward[index],
            interrupted=self.interrupted[index],
            agent_id=agent_id,
            group_id=self.group_id[index],
            group_reward=self.group_reward[index],
        )

    @staticmethod
    def empty(spec: BehaviorSpec) -> TerminalSteps:
        """Return a batch of no agents that fits `spec`."""
        return TerminalSteps(
            obs=[np.zeros((0, *o.shape), dtype=np.float32) for o in spec.observation_specs],
            reward=np.zeros(0, dtype=np.float32),
            interrupted=np.zeros(0, dtype=bool),
            agent_id=np.zeros(0, dtype=np.int32),
            group_id=np.zeros(0, dtype=np.int32),
            group_reward=np.zeros(0, dtype=np.float32),
        )


class _ActionTupleBase(ABC):
    """Continuous values (N, C) float32 beside discrete ones (N, D); what is absent has width 0."""

    def __init__(self, continuous: Optional[np.ndarray] = None, discrete: Optional[np.ndarray] = None):
        self._continuous: np.ndarray | None = None
        self._discrete: np.ndarray | None = None
        if continuous is not None:
            self.add_continuous(continuous)
        if discrete is not None:
            self.add_discrete(discrete)

    @property
    def continuous(self) -> np.ndarray:
        """Float32 (N, C)."""
        if self._continuous is not None:
            return self._continuous
        rows = 0 if self._discrete is None else len(self._discrete)
        return np.zeros((rows, 0), dtype=np.float32)

    @property
    def discrete(self) -> np.ndarray:
        """(N, D), of `discrete_dtype`."""
        if self._discrete is not None:
            return self._discrete
        rows = 0 if self._continuous is None else len(self._continuous)
        return np.zeros((rows, 0), dtype=self.discrete_dtype)

    def add_continuous(self, continuous: np.ndarray) -> None:
        """Set the continuous half, as float32."""
        self._continuous = np.asarray(continuous, dtype=np.float32)

    def add_discrete(self, discrete: np.ndarray) -> None:
        """Set the discrete half, as `discrete_dtype`."""
        self._discrete = np.asarray(discrete, dtype=self.discrete_dtype)

    @property
    @abstractmethod
    def discrete_dtype(self) -> DTypeLike:
        """The type of the discrete half."""


class ActionTuple(_ActionTupleBase):
    """Actions of N agents: `continuous` float32 (N, C) and `discrete` int32 (N, D), the chosen index per branch."""

    @property
    def discrete_dtype(self) -> DTypeLike:
        """Indices are int32."""
        return np.int32

    def copy(self) -> ActionTuple:
        """Return the same in memory of its own."""
        copied = ActionTuple()
        if self._continuous is not None:
            copied._continuous = self._continuous.copy()
        if self._discrete is not None:
            copied._discrete = self._discrete.copy()
        return copied


class ActionSpec(NamedTuple):
    """How agents of a behaviour act.

    :param continuous_size: number of continuous actions (C).
    :param discrete_branches: number of choices of each discrete branch (D entries).
    """

    continuous_size: int
    discrete_branches: Tuple[int, ...]

    def is_discrete(self) -> bool:
        """Whether there are discrete branches and nothing else."""
        return self.discrete_size > 0 and self.continuous_size == 0

    def is_continuous(self) -> bool:
        """Whether there are continuous actions and nothing else."""
        return self.discrete_size == 0 and self.continuous_size > 0

    @property
    def discrete_size(self) -> int:
        """The number of branches (D), not of choices."""
        return len(self.discrete_branches)

    def empty_action(self, n_agents: int) -> ActionTuple:
        """Return zeros for `n_agents`."""
        return ActionTuple(
            np.zeros((n_agents, self.continuous_size), dtype=np.float32),
            np.zeros((n_agents, self.discrete_size), dtype=np.int32),
        )

    def random_action(self, n_agents: int) -> ActionTuple:
        """Return uniform actions for `n_agents`: continuous in [-1, 1], each branch over its choices."""
        continuous = np.random.uniform(-1.0, 1.0, size=(n_agents, self.continuous_size))
        discrete = np.zeros((n_agents, self.discrete_size), dtype=np.int32)
        for branch, size in enumerate(self.discrete_branches):
            discrete[:, branch] = np.random.randint(size, size=n_agents, dtype=np.int32)
        return ActionTuple(continuous.astype(np.float32), discrete)

    def check(self, actions: ActionTuple, n_agents: int, behavior_name: BehaviorName) -> None:
        """Raise where `actions` are not those of `n_agents` agents of this specification.

        :raises UnityActionException: naming the behaviour, the shape wanted and the shape given.
        """
        wanted = ((n_agents, self.continuous_size), (n_agents, self.discrete_size))
        given = (actions.continuous.shape, actions.discrete.shape)
        if given == wanted:
            return
        for kind, want, have in zip(("continuous", "discrete"), wanted, given):
            if want != have:
                raise UnityActionException(
                    f"The behavior {behavior_name} needs {kind} actions of shape {want} "
                    f"(agents, actions) but received {have}."
                )

    @staticmethod
    def create_continuous(continuous_size: int) -> ActionSpec:
        """Return a specification of continuous actions only."""
        return ActionSpec(continuous_size, ())

    @staticmethod
    def create_discrete(discrete_branches: Tuple[int, ...]) -> ActionSpec:
        """Return a specification of discrete branches only."""
        return ActionSpec(0, tuple(discrete_branches))

    @staticmethod
    def create_hybrid(continuous_size: int, discrete_branches: Tuple[int, ...]) -> ActionSpec:
        """Return a specification with both kinds."""
        return ActionSpec(continuous_size, tuple(discrete_branches))


class DimensionProperty(IntFlag):
    """What a dimension of an observation means to a network."""

    UNSPECIFIED = 0
    NONE = 1
    TRANSLATIONAL_EQUIVARIANCE = 2
    VARIABLE_SIZE = 4


class ObservationType(Enum):
    """What an observation is for."""

    DEFAULT = 0
    GOAL_SIGNAL = 1


class ObservationSpec(NamedTuple):
    """The shape and the meaning of one observation; images are channel first (C, H, W)."""

    shape: Tuple[int, ...]
    dimension_property: Tuple[DimensionProperty, ...]
    observation_type: ObservationType
    name: str


class BehaviorSpec(NamedTuple):
    """What agents of a behaviour observe and how they act."""

    observation_specs: List[ObservationSpec]
    action_spec: ActionSpec


class BehaviorMapping(Mapping):  # type: ignore[type-arg]
    """Behaviour names to their specifications, read-only."""

    def __init__(self, specs: Dict[BehaviorName, BehaviorSpec]):
        self._dict = specs

    def __len__(self) -> int:
        return len(self._dict)

    def __getitem__(self, behavior: BehaviorName) -> BehaviorSpec:
        return self._dict[behavior]

    def __iter__(self) -> Iterator[Any]:
        yield from self._dict


class BaseEnv(ABC):
    """An environment: any number of agents under any number of behaviours, stepped together."""

    @abstractmethod
    def step(self) -> None:
        """Apply the actions that were set and simulate until some agent wants a decision or ends its episode."""

    @abstractmethod
    def reset(self) -> None:
        """Start every agent's episode anew."""

    def get_state(self) -> Optional[Dict[str, Any]]:
        """Return all that decides what comes next, the steps that wait now included; None where that cannot be told.

        :returns: plain data: dictionaries by text, lists, text, numbers, None and arrays. They are copies.
        """
        return None

    def set_state(self, state: MappingType[str, Any]) -> None:
        """Go on from what `get_state` of another instance, made in the same way, has told.

        :raises UnityEnvironmentException: this environment cannot, or the state is of another one.
        """
        raise UnityEnvironmentException(f"{type(self).__name__} cannot go on from a state that was saved.")

    @abstractmethod
    def close(self) -> None:
        """Free what the environment holds; it cannot be used afterwards."""

    @property
    @abstractmethod
    def behavior_specs(self) -> MappingType[str, BehaviorSpec]:
        """The behaviours seen so far; more may appear during a run."""

    @abstractmethod
    def set_actions(self, behavior_name: BehaviorName, action: ActionTuple) -> None:
        """Set the actions of all agents of the last `DecisionSteps`, in their order.

        :raises UnityActionException: the behaviour is unknown or the shape is not that of its agents.
        """

    @abstractmethod
    def set_action_for_agent(self, behavior_name: BehaviorName, agent_id: AgentId, action: ActionTuple) -> None:
        """Set the action, of one row, of one agent of the last `DecisionSteps`.

        :raises UnityActionException: the behaviour or the agent is unknown, or the shape is wrong.
        """

    @abstractmethod
    def get_steps(self, behavior_name: BehaviorName) -> Tuple[DecisionSteps, TerminalSteps]:
        """Return the agents that want a decision and those that ended since the last step.

        An agent may be in both: its old episode ended and its next one begins.
        """


def vector_observation(size: int, name: str) -> ObservationSpec:
    """Return the specification of a plain vector observation of `size` floats."""
    return ObservationSpec((size,), (DimensionProperty.NONE,), ObservationType.DEFAULT, name)


def image_observation(n_channels: int, height: int, width: int, name: str) -> ObservationSpec:
    """Return the specification of an image (channels, height, width), whose values are between 0 and 1."""
    moves = DimensionProperty.TRANSLATIONAL_EQUIVARIANCE
    properties = (DimensionProperty.NONE, moves, moves)
    return ObservationSpec((n_channels, height, width), properties, ObservationType.DEFAULT, name)


def entities_observation(max_entities: int, size: int, name: str) -> ObservationSpec:
    """Return the specification of up to `max_entities` entities of `size` floats; a row of zeros is none."""
    properties = (DimensionProperty.VARIABLE_SIZE, DimensionProperty.NONE)
    return ObservationSpec((max_entities, size), properties, ObservationType.DEFAULT, name)


def goal_observation(size: int, name: str) -> ObservationSpec:
    """Return the specification of a goal, a vector of `size` floats."""
    return ObservationSpec((size,), (DimensionProperty.NONE,), ObservationType.GOAL_SIGNAL, name)
