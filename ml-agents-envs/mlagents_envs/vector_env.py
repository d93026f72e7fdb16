"""Turn a vectorised simulator into an environment: the base of the built-ins and of your own.

`VectorEnv` serves N agents of one behaviour that all act at every step, whose ids are 0 to N-1, and whose episodes
follow each other without a pause. A subclass says what the agents see and do (a `BehaviorSpec`) and writes two methods
over arrays of agents: `VectorEnv.reset_agents` and `VectorEnv.step_agents`. A complete environment, in which pucks on a
line are pushed to the middle:

>>> import numpy as np
>>> from mlagents_envs.base_env import ActionSpec, ActionTuple, BehaviorSpec, vector_observation
>>> from mlagents_envs.vector_env import VectorEnv
>>>
>>> class PuckEnv(VectorEnv):
...     def __init__(self, seed=0, num_areas=1, side_channels=None):
...         spec = BehaviorSpec([vector_observation(2, "PositionAndVelocity")], ActionSpec.create_continuous(1))
...         super().__init__("Puck", spec, 4 * num_areas, seed=seed, side_channels=side_channels)
...         self.position, self.velocity, self.age = np.zeros((3, self.n_agents))
...
...     def reset_agents(self, indices):
...         self.position[indices] = self.rng.uniform(-1, 1, len(indices))
...         self.velocity[indices] = 0
...         self.age[indices] = 0
...         return [self.observation()[indices]]
...
...     def step_agents(self, actions):
...         push = np.clip(actions.continuous[:, 0], -1, 1) / self.parameters.get_with_default("mass", 1.0)
...         self.velocity += 0.1 * push
...         self.position += 0.1 * self.velocity
...         self.age += 1
...         arrived = (np.abs(self.position) < 0.1) & (np.abs(self.velocity) < 0.1)
...         return [self.observation()], np.where(arrived, 1.0, -0.01), arrived, self.age >= 100
...
...     def observation(self):
...         return np.stack([self.position, self.velocity], axis=1)

Saved as ``my_module.py`` it trains with ``mlagents-learn CONFIG --env module:my_module:PuckEnv``. It is used like any
other environment; here all four agents brake and push towards the middle:

>>> env = PuckEnv(seed=1)
>>> env.reset()
>>> episodes = 0
>>> for _ in range(100):
...     decisions, terminals = env.get_steps("Puck?team=0")
...     position, velocity = decisions.obs[0].T
...     env.set_actions("Puck?team=0", ActionTuple(continuous=(-position - 2 * velocity)[:, None]))
...     env.step()
...     episodes += len(env.get_steps("Puck?team=0")[1])
>>> len(decisions), episodes > 4
(4, True)
>>> env.close()
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mlagents_envs.base_env import (
    ActionTuple,
    AgentId,
    BaseEnv,
    BehaviorMapping,
    BehaviorName,
    BehaviorSpec,
    DecisionSteps,
    TerminalSteps,
)
from mlagents_envs.exception import UnityActionException, UnityEnvironmentException, UnityObservationException
from mlagents_envs.side_channel.environment_side import EnvironmentSideChannels
from mlagents_envs.side_channel.side_channel import SideChannel

_Scalar = TypeVar("_Scalar", bound=np.generic)


class VectorEnv(BaseEnv):
    """N agents of one behaviour that step together.

    In the step that ends an agent's episode, `get_steps` returns its final observation and reward in `TerminalSteps`,
    and the first observation of its next episode, with reward 0, in `DecisionSteps`, which therefore always holds all
    agents in the order of their ids. Agents that were given no action act with zeros. The arrays of a step are its own:
    later steps leave them as they are.

    :param name: the behaviour's name, to which its team is added: ``NAME?team=0``.
    :param spec: what the agents observe and how they act.
    :param n_agents: N, at least 1.
    :param seed: of `rng`.
    :param side_channels: the trainer's ends of the side channels.
    :raises UnityEnvironmentException: `n_agents` is below 1.

    For subclasses: `n_agents`; `behavior_name`, with the team; `rng`, the one source of randomness; `parameters`, the
    environment parameters that the trainer sets; `side_channels`, on which statistics go to the trainer.
    """

    def __init__(
        self,
        name: str,
        spec: BehaviorSpec,
        n_agents: int,
        *,
        seed: int = 0,
        side_channels: Sequence[SideChannel] | None = None,
    ):
        if n_agents < 1:
            raise UnityEnvironmentException(f"{type(self).__name__} needs at least 1 agent but was given {n_agents}.")
        self.n_agents = n_agents
        self.behavior_name = f"{name}?team=0"
        self.rng = np.random.default_rng(seed)
        self._spec = spec
        self._specs = BehaviorMapping({self.behavior_name: spec})
        self.side_channels = EnvironmentSideChannels(side_channels)
        self.parameters = self.side_channels.parameters
        self._no_actions = spec.action_spec.empty_action(n_agents)
        self._actions = self._no_actions
        self._steps: tuple[DecisionSteps, TerminalSteps] | None = None
        self._closed = False
        # The same for every step, so shared by all of them; read-only, lest one step's reader changes another's.
        self._agent_id = _read_only(np.arange(n_agents, dtype=np.int32))
        self._group_id = _read_only(np.zeros(n_agents, dtype=np.int32))
        self._group_reward = _read_only(np.zeros(n_agents, dtype=np.float32))
        self._none_ended = TerminalSteps.empty(spec)

    @abstractmethod
    def reset_agents(self, indices: NDArray[np.intp]) -> Sequence[ArrayLike]:
        """Begin a new episode for some agents.

        :param indices: (K,), ascending, without repeats.
        :returns: their first observations: per observation (K, *shape), of any numeric type. They are copied.
        """

    @abstractmethod
    def step_agents(self, actions: ActionTuple) -> tuple[Sequence[ArrayLike], ArrayLike, ArrayLike, ArrayLike]:
        """Simulate one decision of all agents.

        :param actions: of all agents, of the specified shape; to be read, not written.
        :returns: ``(obs, reward, terminated, truncated)``: per observation (N, *shape), then three arrays (N,):
            the reward, whether the episode came to its end, and whether it was cut short, say by a time limit.
            They are copied. The base class then calls `reset_agents` for the agents that ended either way.
        """

    def action_masks(self) -> Sequence[ArrayLike] | None:
        """Return the choices now forbidden (True), per discrete branch (N, size); None, the default, where none is."""
        return None

    @property
    def behavior_specs(self) -> BehaviorMapping:
        """The one behaviour, known from the start."""
        return self._specs

    def reset(self) -> None:
        """Start every agent's episode anew; actions that were set are forgotten.

        :raises UnityEnvironmentException: the environment is closed.
        """
        self._check_open()
        self.side_channels.exchange()
        obs = self._observations(self.reset_agents(np.arange(self.n_agents)), self.n_agents, "reset_agents")
        self._publish(obs, np.zeros(self.n_agents, dtype=np.float32), self._none_ended)

    def step(self) -> None:
        """Simulate one decision of all agents.

        :raises UnityEnvironmentException: the environment is closed or was never reset, or the simulator returned
            columns of a wrong shape.
        :raises UnityObservationException: the simulator returned observations that do not fit the specification.
        """
        self._check_started()
        self.side_channels.exchange()
        raw_obs, raw_reward, raw_terminated, raw_truncated = self.step_agents(self._actions)
        obs = self._observations(raw_obs, self.n_agents, "step_agents")
        reward = self._column(np.array(raw_reward, dtype=np.float32), "reward")
        terminated = self._column(np.asarray(raw_terminated, dtype=np.bool_), "terminated")
        truncated = self._column(np.asarray(raw_truncated, dtype=np.bool_), "truncated")
        (ended,) = (terminated | truncated).nonzero()
        terminal_steps = self._none_ended
        if ended.size:
            terminal_steps = TerminalSteps(
                obs=[column[ended] for column in obs],
                reward=reward[ended],
                interrupted=~terminated[ended],
                agent_id=self._agent_id[ended],
                group_id=self._group_id[ended],
                group_reward=self._group_reward[ended],
            )
            first_obs = self._observations(self.reset_agents(ended), ended.size, "reset_agents")
            for column, first in zip(obs, first_obs):
                column[ended] = first
            reward[ended] = 0.0
        self._publish(obs, reward, terminal_steps)

    def close(self) -> None:
        """End the environment; doing so again does nothing. A subclass that holds resources frees them here too."""
        self._closed = True

    def set_actions(self, behavior_name: BehaviorName, action: ActionTuple) -> None:
        """Set the actions of all agents, in the order of their ids, for the next step.

        :raises UnityActionException: the behaviour is unknown or the shapes are not those of N agents.
        :raises UnityEnvironmentException: the environment is closed or was never reset.
        """
        self._check_behavior(behavior_name)
        self._check_started()
        self._spec.action_spec.check(action, self.n_agents, behavior_name)
        self._actions = action

    def set_action_for_agent(self, behavior_name: BehaviorName, agent_id: AgentId, action: ActionTuple) -> None:
        """Set the action, of one row, of one agent for the next step.

        :raises UnityActionException: the behaviour or the agent is unknown, or the shapes are not those of one agent.
        :raises UnityEnvironmentException: the environment is closed or was never reset.
        """
        self._check_behavior(behavior_name)
        self._check_started()
        if not 0 <= agent_id < self.n_agents:
            raise UnityActionException(
                f"The behavior {behavior_name} has no agent {agent_id}: its agents are 0 to {self.n_agents - 1}."
            )
        self._spec.action_spec.check(action, 1, behavior_name)
        continuous, discrete = self._actions.continuous.copy(), self._actions.discrete.copy()
        continuous[agent_id], discrete[agent_id] = action.continuous[0], action.discrete[0]
        self._actions = ActionTuple(continuous, discrete)

    def get_steps(self, behavior_name: BehaviorName) -> tuple[DecisionSteps, TerminalSteps]:
        """Return all agents, which want a decision, and those among them whose previous episode has just ended.

        :raises UnityActionException: the behaviour is unknown.
        :raises UnityEnvironmentException: the environment is closed or was never reset.
        """
        self._check_behavior(behavior_name)
        return self._check_started()

    def _publish(self, obs: list[NDArray[np.float32]], reward: NDArray[np.float32], ended: TerminalSteps) -> None:
        """Make these what `get_steps` returns, and wait for new actions."""
        masks = self.action_masks()
        decision_steps = DecisionSteps(
            obs=obs,
            reward=reward,
            agent_id=self._agent_id,
            action_mask=None if masks is None else self._masks(masks),
            group_id=self._group_id,
            group_reward=self._group_reward,
        )
        self._steps = decision_steps, ended
        self._actions = self._no_actions

    def _observations(self, obs: Sequence[ArrayLike], rows: int, hook: str) -> list[NDArray[np.float32]]:
        """Copy what a hook returned, checked against the specification."""
        columns = [np.array(values, dtype=np.float32, order="C") for values in obs]
        wanted = [(rows, *spec.shape) for spec in self._spec.observation_specs]
        given = [column.shape for column in columns]
        if given != wanted:
            raise UnityObservationException(
                f"{type(self).__name__}.{hook} must return observations of shapes {wanted} but returned {given}."
            )
        return columns

    def _masks(self, masks: Sequence[ArrayLike]) -> list[NDArray[np.bool_]]:
        """Copy what `action_masks` returned, checked against the specification."""
        columns = [np.array(mask, dtype=np.bool_) for mask in masks]
        wanted = [(self.n_agents, size) for size in self._spec.action_spec.discrete_branches]
        given = [column.shape for column in columns]
        if given != wanted:
            raise UnityActionException(
                f"{type(self).__name__}.action_masks must return masks of shapes {wanted} but returned {given}."
            )
        return columns

    def _column(self, column: NDArray[_Scalar], what: str) -> NDArray[_Scalar]:
        """Return a column that `step_agents` returned, checked to be (N,)."""
        if column.shape != (self.n_agents,):
            raise UnityEnvironmentException(
                f"{type(self).__name__}.step_agents must return {what} of shape {(self.n_agents,)} "
                f"but returned {column.shape}."
            )
        return column

    def _check_behavior(self, behavior_name: BehaviorName) -> None:
        if behavior_name != self.behavior_name:
            raise UnityActionException(
                f"The environment has no behavior {behavior_name}: its only one is {self.behavior_name}."
            )

    def _check_open(self) -> None:
        if self._closed:
            raise UnityEnvironmentException(f"{type(self).__name__} is closed: make a new one.")

    def _check_started(self) -> tuple[DecisionSteps, TerminalSteps]:
        """Return the current steps, which exist from the first reset until the close."""
        self._check_open()
        if self._steps is None:
            raise UnityEnvironmentException(f"{type(self).__name__} has not started: call reset() first.")
        return self._steps


def _read_only(array: NDArray[_Scalar]) -> NDArray[_Scalar]:
    array.flags.writeable = False
    return array
