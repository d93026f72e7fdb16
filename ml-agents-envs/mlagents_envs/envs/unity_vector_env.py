"""All agents of a behaviour, in any number of environments, as one vector environment of Gymnasium's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from mlagents_envs.base_env import ActionTuple, BaseEnv, BehaviorSpec, DecisionSteps, TerminalSteps
from mlagents_envs.envs.spaces import MAX_SILENT_STEPS, action_space, action_tuple, observation_space, seed_environment
from mlagents_envs.exception import UnityEnvironmentException
from mlagents_envs.external.spaces import MASK

Observations = Any
"""An array (N, *shape), or a tuple of them where an agent has several observations."""


class UnityVectorEnv(VectorEnv[Any, Any, Any]):
    """The agents of one behaviour, those of all environments one after the other.

    A step acts for all agents and returns when all ask for the next decision. Usually that is one step of the
    environments. Where agents are not in time with each other (decision periods, pauses between episodes), environments
    step on: an action waits until its agent asks for one, agents that ask again sooner than others repeat theirs, and
    rewards add up. An agent that is gone for good leaves its place to one that is new.

    The next episode's first observation comes in the step in which an episode ends (`AutoresetMode.SAME_STEP`):
    ``infos["final_obs"]`` has the last ones, ``infos["_final_obs"]`` says whose. With discrete actions
    ``infos["action_mask"]``, int8 (N, sum of branches), says what is allowed (1).

    Environments that simulate in this process are seeded by ``reset(seed=...)``, each by a seed of its own; Unity
    builds take theirs when they are started.

    :param envs: the environment or environments, which are closed with this one. Those that have `step_async`, as
        `UnityEnvironment`, all simulate at once.
    :param behavior: its name with the team; needed where there are several.
    :raises UnityEnvironmentException: the environments differ, or have no such behaviour, or it has no agent.
    """

    def __init__(self, envs: BaseEnv | Sequence[BaseEnv], behavior: str | None = None):
        self.metadata = {"render_modes": [], "autoreset_mode": AutoresetMode.SAME_STEP}
        self._envs = [envs] if isinstance(envs, BaseEnv) else list(envs)
        for env in self._envs:
            env.reset()
        self.behavior_name = self._find_behavior(behavior)
        self.behavior_spec: BehaviorSpec = self._envs[0].behavior_specs[self.behavior_name]
        self._crews = [_Crew(env, self.behavior_name) for env in self._envs]
        self.num_envs = sum(len(crew) for crew in self._crews)
        self._splits = np.cumsum([len(crew) for crew in self._crews])[:-1]
        self.single_observation_space = observation_space(self.behavior_spec)
        self.single_action_space = action_space(self.behavior_spec.action_spec)
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)

    def _find_behavior(self, behavior: str | None) -> str:
        for number, env in enumerate(self._envs):
            names = list(env.behavior_specs)
            if behavior is None and len(names) == 1:
                behavior = names[0]
            if behavior not in names:
                raise UnityEnvironmentException(
                    f"UnityVectorEnv needs the name of one behavior: environment {number} has "
                    f"{', '.join(names) or 'none'}{f', not {behavior}' if behavior else ''}."
                )
            if env.behavior_specs[behavior] != self._envs[0].behavior_specs[behavior]:
                raise UnityEnvironmentException(
                    f"UnityVectorEnv needs environments of one kind: {behavior} of environment {number} observes or "
                    "acts otherwise than that of environment 0."
                )
        if behavior is None:
            raise UnityEnvironmentException("UnityVectorEnv needs at least one environment.")
        return behavior

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observations, dict[str, Any]]:
        """Begin all episodes anew.

        :param seed: of the environments, where they can be seeded anew, and of the spaces.
        """
        super().reset(seed=seed)
        if seed is not None:
            for number, env in enumerate(self._envs):
                seed_environment(env, seed + number)
            self.action_space.seed(seed)
            self.observation_space.seed(seed)
        for env in self._envs:
            env.reset()
        for crew in self._crews:
            crew.begin()
        return self._observations([crew.obs for crew in self._crews]), self._infos()

    def step(self, actions: Any) -> tuple[Observations, NDArray[Any], NDArray[Any], NDArray[Any], dict[str, Any]]:
        """Act for all agents.

        :param actions: of `action_space`.
        :returns: observations; rewards float32 (N,); who has terminated and who was truncated, bool (N,); infos.
        """
        everybody = action_tuple(self.behavior_spec.action_spec, actions, self.num_envs)
        continuous = np.split(everybody.continuous, self._splits)
        discrete = np.split(everybody.discrete, self._splits)
        for crew, its_continuous, its_discrete in zip(self._crews, continuous, discrete):
            crew.act(ActionTuple(its_continuous, its_discrete))
        for crew in self._crews:
            crew.finish()
        rewards = np.concatenate([crew.reward for crew in self._crews])
        terminated = np.concatenate([crew.terminated for crew in self._crews])
        truncated = np.concatenate([crew.truncated for crew in self._crews])
        infos = self._infos()
        ended = terminated | truncated
        if ended.any():
            infos.update(self._final_infos(ended))
        return self._observations([crew.obs for crew in self._crews]), rewards, terminated, truncated, infos

    def _observations(self, parts: Sequence[Sequence[NDArray[np.float32]]]) -> Observations:
        columns = [np.concatenate(column) for column in zip(*parts)]
        return columns[0] if len(columns) == 1 else tuple(columns)

    def _infos(self) -> dict[str, Any]:
        branches = self.behavior_spec.action_spec.discrete_branches
        if not branches:
            return {}
        allowed = [
            np.ones((len(crew), sum(branches)), dtype=np.int8)
            if crew.masks is None
            else (~np.concatenate(crew.masks, axis=1)).astype(np.int8)
            for crew in self._crews
        ]
        return {MASK: np.concatenate(allowed), f"_{MASK}": np.ones(self.num_envs, dtype=np.bool_)}

    def _final_infos(self, ended: NDArray[np.bool_]) -> dict[str, Any]:
        finals: list[Any] = []
        for crew in self._crews:
            finals += crew.finals
        final_obs = np.full(self.num_envs, None, dtype=object)
        for index in ended.nonzero()[0]:
            obs = finals[index]
            final_obs[index] = obs[0] if len(obs) == 1 else tuple(obs)
        return {"final_obs": final_obs, "_final_obs": ended, "final_info": {}, "_final_info": ended.copy()}

    def close_extras(self, **kwargs: Any) -> None:
        """Close the environments."""
        for env in self._envs:
            env.close()


class _Crew:
    """The agents of one environment, each in a place of its own.

    :ivar obs: what each sees now, per observation (N, *shape).
    :ivar masks: what each may not do now; None where nothing is forbidden.
    :ivar reward: float32 (N,), of the last step; so are `terminated` and `truncated`, bool (N,).
    :ivar finals: per place, the last observations of an episode that has ended in the last step.
    """

    def __init__(self, env: BaseEnv, behavior: str):
        self._env = env
        self._behavior = behavior
        decisions, _ = self._steps()
        if not len(decisions):
            raise UnityEnvironmentException(f"UnityVectorEnv: no agent of {behavior} asks for a decision at the start.")
        self._ids = decisions.agent_id
        self._acted = np.ones(len(self._ids), dtype=np.bool_)
        """Whose action of this step has reached the environment."""
        self.begin()

    def __len__(self) -> int:
        return len(self._ids)

    def _steps(self) -> tuple[DecisionSteps, TerminalSteps]:
        return self._env.get_steps(self._behavior)

    def begin(self) -> None:
        """Take what the environment says after a reset."""
        self._forget()
        decisions, terminals = self._steps()
        if np.array_equal(decisions.agent_id, self._ids):
            self.obs, self.masks = list(decisions.obs), decisions.action_mask
            return
        self._given = self._env.behavior_specs[self._behavior].action_spec.empty_action(len(self._ids))
        self._acted[:] = True
        self._gather(decisions, terminals, is_reset=True)
        self._forget()

    def _forget(self) -> None:
        n_agents = len(self._ids)
        self.reward = np.zeros(n_agents, dtype=np.float32)
        self.terminated, self.truncated = np.zeros((2, n_agents), dtype=np.bool_)
        self.finals: list[Any] = [None] * n_agents

    def act(self, actions: ActionTuple) -> None:
        """Set the actions of all places, and begin the step where the environment simulates elsewhere."""
        self._given = actions
        self._acted[:] = False
        self._set_actions(self._steps()[0])
        if hasattr(self._env, "step_async"):
            self._env.step_async()
        else:
            self._env.step()

    def _set_actions(self, decisions: DecisionSteps) -> None:
        """Set the actions of the agents that wait; those without a place act with zeros."""
        actions = self._given
        if np.array_equal(decisions.agent_id, self._ids):
            self._acted[:] = True
        else:
            actions = self._env.behavior_specs[self._behavior].action_spec.empty_action(len(decisions))
            for row, place in enumerate(self._places(decisions.agent_id)):
                if place is not None:
                    actions.continuous[row] = self._given.continuous[place]
                    actions.discrete[row] = self._given.discrete[place]
                    self._acted[place] = True
        self._env.set_actions(self._behavior, actions)

    def _places(self, agents: NDArray[np.int32]) -> list[int | None]:
        places = {int(agent): place for place, agent in enumerate(self._ids)}
        return [places.get(int(agent)) for agent in agents]

    def finish(self) -> None:
        """End the step: all places wait for an action."""
        if hasattr(self._env, "step_wait"):
            self._env.step_wait()
        self._forget()
        decisions, terminals = self._steps()
        if not (self._acted.all() and np.array_equal(decisions.agent_id, self._ids)):
            self._gather(decisions, terminals)
            return
        self.obs, self.masks = list(decisions.obs), decisions.action_mask
        self.reward = decisions.reward
        if len(terminals):
            self.reward = self.reward.copy()
            self._end(terminals, range(len(terminals)), self._places(terminals.agent_id))

    def _end(self, terminals: TerminalSteps, rows: Sequence[int], places: Sequence[int | None]) -> None:
        """Note the ends of episodes; of one place that ends twice in a step, the first."""
        for row in rows:
            place = places[row]
            if place is None or self.finals[place] is not None:
                continue
            self.finals[place] = [column[row] for column in terminals.obs]
            self.reward[place] += terminals.reward[row]
            self.truncated[place] = terminals.interrupted[row]
            self.terminated[place] = not terminals.interrupted[row]

    def _gather(self, decisions: DecisionSteps, terminals: TerminalSteps, is_reset: bool = False) -> None:
        """Step on until every place waits for its next action, and add up what happens.

        :param is_reset: whether all episodes have just begun, so that every place may be taken.
        """
        spec = self._env.behavior_specs[self._behavior]
        self.obs = [np.zeros((len(self._ids), *each.shape), np.float32) for each in spec.observation_specs]
        self.masks = None
        waits, gone = np.zeros((2, len(self._ids)), dtype=np.bool_)
        gone[:] = is_reset
        for _ in range(MAX_SILENT_STEPS):
            ends = self._places(terminals.agent_id)
            self._end(terminals, range(len(terminals)), ends)
            over = [place for place in ends if place is not None]
            gone[over], waits[over] = True, False  # what it saw when it last asked is of the old episode
            self._take_places(decisions.agent_id, gone)
            for row, place in enumerate(self._places(decisions.agent_id)):
                if place is None:
                    continue
                gone[place] = False
                is_new = self.finals[place] is not None
                if not is_new:  # what a new episode has paid by now would count for the old one
                    self.reward[place] += decisions.reward[row]
                if is_new or self._acted[place]:
                    waits[place] = True
                    self._see(place, row, decisions)
            if waits.all():
                return
            self._set_actions(decisions)
            self._env.step()
            decisions, terminals = self._steps()
        raise UnityEnvironmentException(
            f"UnityVectorEnv: agent {self._ids[~waits][0]} of {self._behavior} has asked for no decision in "
            f"{MAX_SILENT_STEPS} steps of its environment, and no new agent has come in its place."
        )

    def _take_places(self, agents: NDArray[np.int32], gone: NDArray[np.bool_]) -> None:
        """Give places whose agent has ended its episode, and is not there, to agents that have none."""
        strangers = [agent for agent, place in zip(agents, self._places(agents)) if place is None]
        present = np.isin(self._ids, agents)
        free = (gone & ~present).nonzero()[0]
        if strangers and free.size:
            self._ids = self._ids.copy()
            for place, agent in zip(free, strangers):
                self._ids[place] = agent

    def _see(self, place: int, row: int, decisions: DecisionSteps) -> None:
        """Copy what an agent sees, and may not do, to its place."""
        for column, values in zip(self.obs, decisions.obs):
            column[place] = values[row]
        if decisions.action_mask is None:
            for mask in self.masks or ():
                mask[place] = False
            return
        if self.masks is None:
            self.masks = [np.zeros((len(self._ids), mask.shape[1]), np.bool_) for mask in decisions.action_mask]
        for mask, its_mask in zip(self.masks, decisions.action_mask):
            mask[place] = its_mask[row]
