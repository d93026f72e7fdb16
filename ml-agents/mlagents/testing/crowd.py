"""A crowd: many agents that come and go, each in its own time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mlagents_envs.base_env import (
    ActionSpec,
    ActionTuple,
    AgentId,
    BaseEnv,
    BehaviorMapping,
    BehaviorName,
    BehaviorSpec,
    DecisionSteps,
    TerminalSteps,
    vector_observation,
)
from mlagents_envs.exception import UnityActionException
from mlagents_envs.side_channel.side_channel import SideChannel


class CrowdEnv(BaseEnv):
    """Waves of agents, each with an id that never was before, which decide a few times and leave.

    A wave of 32 agents per area comes every 12 steps. Each agent waits up to three steps for its first decision, takes
    one to four decisions, at every step or at every second one, and ends; half of the ends are interruptions. So the
    agents that decide are others at every step, in any order, and at the end of a wave there are none.

    A branch of three has to repeat what is observed one-hot, drawn anew for each decision. An agent's reward, which
    comes with its next decision or its end, is its share of right choices. The best return is 1; random choices earn
    1/3.

    :param seed: of everything random.
    :param num_areas: crowds beside each other.
    :param side_channels: taken for the sake of other environments, and unused.
    """

    WAVE_SIZE, WAVE_STEPS = 32, 12
    MAX_DELAY, MAX_PERIOD, MAX_DECISIONS = 3, 2, 4
    N_CHOICES = 3

    behavior_name = "Crowd?team=0"

    def __init__(self, seed: int = 0, num_areas: int = 1, side_channels: Sequence[SideChannel] | None = None):
        action_spec = ActionSpec.create_discrete((self.N_CHOICES,))
        self._spec = BehaviorSpec([vector_observation(self.N_CHOICES, "Crowd")], action_spec)
        self._specs = BehaviorMapping({self.behavior_name: self._spec})
        self._rng = np.random.default_rng(seed)
        self._wave_size = self.WAVE_SIZE * num_areas
        self._next_id = 0
        self._begin_wave()

    def _begin_wave(self) -> None:
        """Let new agents take the place of those that are gone, in columns (W,) of the wave."""
        size = self._wave_size
        self._ids = np.arange(self._next_id, self._next_id + size, dtype=np.int32)
        self._next_id += size
        self._time = 0
        self._decides_at = self._rng.integers(self.MAX_DELAY + 1, size=size)
        self._period = self._rng.integers(1, self.MAX_PERIOD + 1, size=size)
        self._n_decisions = self._rng.integers(1, self.MAX_DECISIONS + 1, size=size)
        self._n_left = self._n_decisions.copy()
        self._is_interrupted = self._rng.random(size) < 0.5
        self._shown = self._rng.integers(self.N_CHOICES, size=size)
        self._reward = np.zeros(size)
        self._ended = np.zeros(0, dtype=np.intp)
        self._choose_who_decides()

    def _choose_who_decides(self) -> None:
        """Find the agents whose time to decide has come, in an order of their own."""
        (deciding,) = ((self._decides_at == self._time) & (self._n_left > 0)).nonzero()
        self._deciding = self._rng.permutation(deciding)
        self._actions = self._spec.action_spec.empty_action(len(deciding))

    @property
    def behavior_specs(self) -> BehaviorMapping:
        """The one behaviour, known from the start."""
        return self._specs

    def reset(self) -> None:
        """Send everyone away, and begin a new wave."""
        self._begin_wave()

    def step(self) -> None:
        """Pay those that decided, let those leave that are done, and begin a new wave when it is time."""
        acted = self._deciding
        right = self._actions.discrete[:, 0] == self._shown[acted]
        self._reward[acted] = right / self._n_decisions[acted]
        self._shown[acted] = self._rng.integers(self.N_CHOICES, size=len(acted))
        self._decides_at[acted] += self._period[acted]
        self._n_left[acted] -= 1
        self._ended = acted[self._n_left[acted] == 0]
        self._time += 1
        if self._time == self.WAVE_STEPS:
            self._begin_wave()
        else:
            self._choose_who_decides()

    def close(self) -> None:
        """Nothing to free."""

    def set_actions(self, behavior_name: BehaviorName, action: ActionTuple) -> None:
        """Set the actions of all agents of the last `DecisionSteps`, in their order.

        :raises UnityActionException: the behaviour is unknown or the shapes are not those of its agents.
        """
        self._check_behavior(behavior_name)
        self._spec.action_spec.check(action, len(self._deciding), behavior_name)
        self._actions = action

    def set_action_for_agent(self, behavior_name: BehaviorName, agent_id: AgentId, action: ActionTuple) -> None:
        """Set the action, of one row, of one agent of the last `DecisionSteps`.

        :raises UnityActionException: the behaviour or the agent is unknown, or the shapes are not those of one agent.
        """
        self._check_behavior(behavior_name)
        self._spec.action_spec.check(action, 1, behavior_name)
        (row,) = (self._ids[self._deciding] == agent_id).nonzero()
        if not row.size:
            raise UnityActionException(f"Agent {agent_id} of {behavior_name} does not wait for a decision.")
        discrete = self._actions.discrete.copy()
        discrete[row] = action.discrete
        self._actions = ActionTuple(discrete=discrete)

    def get_steps(self, behavior_name: BehaviorName) -> tuple[DecisionSteps, TerminalSteps]:
        """Return the agents that want a decision and those that have just left.

        :raises UnityActionException: the behaviour is unknown.
        """
        self._check_behavior(behavior_name)
        return self._decision_steps(), self._terminal_steps()

    def _decision_steps(self) -> DecisionSteps:
        rows = self._deciding
        return DecisionSteps(
            obs=self._observe(rows),
            reward=self._reward[rows].astype(np.float32),
            agent_id=self._ids[rows],
            action_mask=None,
            group_id=np.zeros(len(rows), dtype=np.int32),
            group_reward=np.zeros(len(rows), dtype=np.float32),
        )

    def _terminal_steps(self) -> TerminalSteps:
        rows = self._ended
        return TerminalSteps(
            obs=self._observe(rows),
            reward=self._reward[rows].astype(np.float32),
            interrupted=self._is_interrupted[rows],
            agent_id=self._ids[rows],
            group_id=np.zeros(len(rows), dtype=np.int32),
            group_reward=np.zeros(len(rows), dtype=np.float32),
        )

    def _observe(self, rows: NDArray[np.intp]) -> list[NDArray[np.float32]]:
        return [np.eye(self.N_CHOICES, dtype=np.float32)[self._shown[rows]]]

    def _check_behavior(self, behavior_name: BehaviorName) -> None:
        if behavior_name != self.behavior_name:
            raise UnityActionException(
                f"The environment has no behavior {behavior_name}: its only one is {self.behavior_name}."
            )
