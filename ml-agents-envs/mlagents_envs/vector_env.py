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

from mlagents_envs.base_env import ActionTuple, BehaviorSpec, DecisionSteps, TerminalSteps
from mlagents_envs.exception import UnityActionException, UnityEnvironmentException, UnityObservationException
from mlagents_envs.local_env import LocalEnv
from mlagents_envs.side_channel.side_channel import SideChannel

_Scalar = TypeVar("_Scalar", bound=np.generic)


class VectorEnv(LocalEnv):
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

    For subclasses: `n_agents`; `behavior_name`, with the team; `rng`, `parameters` and `side_channels` of `LocalEnv`.
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
        super().__init__({self.behavior_name: spec}, seed=seed, side_channels=side_channels)
        self._spec = spec
        # The same for every step, so shared by all of them; read-only, lest one step's reader changes another's.
        self._agent_id = _read_only(np.arange(n_agents, dtype=np.int32))
        self._group_id = _read_only(np.zeros(n_agents, dtype=np.int32))
        self._group_reward = _read_only(np.zeros(n_agents, dtype=np.float32))

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

    def _begin_episodes(self) -> None:
        obs = self._observations(self.reset_agents(np.arange(self.n_agents)), self.n_agents, "reset_agents")
        self._publish_all(obs, np.zeros(self.n_agents, dtype=np.float32), None)

    def _simulate(self) -> None:
        raw_obs, raw_reward, raw_terminated, raw_truncated = self.step_agents(self._actions_of(self.behavior_name))
        obs = self._observations(raw_obs, self.n_agents, "step_agents")
        reward = self._column(np.array(raw_reward, dtype=np.float32), "reward")
        terminated = self._column(np.asarray(raw_terminated, dtype=np.bool_), "terminated")
        truncated = self._column(np.asarray(raw_truncated, dtype=np.bool_), "truncated")
        (ended,) = (terminated | truncated).nonzero()
        terminal_steps = None
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
        self._publish_all(obs, reward, terminal_steps)

    def _publish_all(
        self, obs: list[NDArray[np.float32]], reward: NDArray[np.float32], ended: TerminalSteps | None
    ) -> None:
        """Publish a step in which all agents want a decision."""
        masks = self.action_masks()
        decision_steps = DecisionSteps(
            obs=obs,
            reward=reward,
            agent_id=self._agent_id,
            action_mask=None if masks is None else self._masks(masks),
            group_id=self._group_id,
            group_reward=self._group_reward,
        )
        self._publish(self.behavior_name, decision_steps, ended)

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


def _read_only(array: NDArray[_Scalar]) -> NDArray[_Scalar]:
    array.flags.writeable = False
    return array
