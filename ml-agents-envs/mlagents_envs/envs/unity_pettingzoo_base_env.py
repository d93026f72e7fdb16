"""What the two PettingZoo forms of a `BaseEnv` share: agents by name, and what each sees and has earned."""

from __future__ import annotations

from typing import Any, Dict, List, Optional, Tuple

import numpy as np
from gymnasium import spaces

from mlagents_envs.base_env import BaseEnv, BehaviorSpec
from mlagents_envs.envs.spaces import (
    MAX_SILENT_STEPS,
    action_space,
    action_tuple,
    allowed,
    box,
    mask_space,
    observation_names,
    seed_environment,
)
from mlagents_envs.exception import UnityEnvironmentException
from mlagents_envs.external.spaces import MASK

_AGENT = "?agent_id="


class UnityPettingzooBaseEnv:
    """Agents of all behaviours of an environment, by name: ``BEHAVIOR?team=0?agent_id=3``.

    An agent's observation is what its behaviour observes: an array, or a dict of them by name where that is more than
    one. With discrete actions it is in a dict, as PettingZoo's environments have it: ``observation``, and
    ``action_mask``, int8, 1 = allowed, in the form that ``action_space(agent).sample(mask)`` takes. The mask is in the
    agent's info too.

    An agent whose episode has ended is gone until the next `reset`, at which all agents begin anew. Where the
    environment lets it go on at once, as Unity does, it acts with zeros and is not shown. Agents with new ids join. An
    agent that asks for no decision in a step sees what it saw last, and its action is not used.

    Environments that simulate in this process are seeded by ``reset(seed=...)`` and then repeat; a Unity build takes
    its seed when it is started.

    :param env: the environment, which is closed with this one.
    :param seed: of the first reset, unless that has its own.
    :param metadata: of the environment, for PettingZoo.
    """

    def __init__(self, env: BaseEnv, seed: Optional[int] = None, metadata: Optional[Dict[str, Any]] = None):
        self._env = env
        self._seed = seed
        self.metadata: Dict[str, Any] = {"name": "unity", "render_modes": [], "is_parallelizable": True}
        self.metadata.update(metadata or {})
        self.render_mode = None
        self.possible_agents: List[str] = []
        self.agents: List[str] = []
        self.rewards: Dict[str, float] = {}
        self.terminations: Dict[str, bool] = {}
        self.truncations: Dict[str, bool] = {}
        self.infos: Dict[str, Dict[str, Any]] = {}
        self._seen: Dict[str, Any] = {}
        """What each agent saw last; of those that have gone since the last reset too, which are not to join again."""
        self._waiting: Dict[str, Tuple[str, int]] = {}
        """The agents that ask for a decision, with their behaviour and row."""
        self._observation_spaces: Dict[str, spaces.Space[Any]] = {}
        self._action_spaces: Dict[str, spaces.Space[Any]] = {}
        self._begin(seed)

    def _begin(self, seed: Optional[int]) -> None:
        """Reset the environment; all agents that ask for a decision then are there."""
        if seed is not None:
            seed_environment(self._env, seed)
        self._env.reset()
        for name, spec in self._env.behavior_specs.items():
            self._meet_behavior(name, spec)
        self.agents = []
        self.rewards, self.terminations, self.truncations, self.infos, self._seen = {}, {}, {}, {}, {}
        self._observe()
        for _ in range(MAX_SILENT_STEPS):
            if self.agents:
                return
            self._env.step()
            self._observe()
        raise UnityEnvironmentException(f"No agent has asked for a decision in {MAX_SILENT_STEPS} steps.")

    def _meet_behavior(self, name: str, spec: BehaviorSpec) -> None:
        if name in self._action_spaces:
            return
        self._action_spaces[name] = action_space(spec.action_spec)
        boxes = [box(observation) for observation in spec.observation_specs]
        space: spaces.Space[Any] = boxes[0]
        if len(boxes) > 1:
            space = spaces.Dict(dict(zip(observation_names(spec), boxes)))
        if spec.action_spec.discrete_size:
            space = spaces.Dict({"observation": space, MASK: mask_space(spec.action_spec)})
        self._observation_spaces[name] = space

    def _observe(self) -> bool:
        """Take the environment's steps; return whether an agent that is there asks for a decision or has ended."""
        self._waiting = {}
        something_happened = False
        for behavior in list(self._env.behavior_specs):
            spec = self._env.behavior_specs[behavior]
            self._meet_behavior(behavior, spec)
            decisions, terminals = self._env.get_steps(behavior)
            for row, agent_id in enumerate(terminals):
                agent = f"{behavior}{_AGENT}{agent_id}"
                if self._is_live(agent):
                    something_happened = True
                    self._note(agent, spec, [column[row] for column in terminals.obs], None, terminals.reward[row])
                    self.terminations[agent] = not terminals.interrupted[row]
                    self.truncations[agent] = bool(terminals.interrupted[row])
            for row, agent_id in enumerate(decisions):
                agent = f"{behavior}{_AGENT}{agent_id}"
                if agent not in self._seen:
                    self._join(agent)
                if self._is_live(agent):
                    something_happened = True
                    self._waiting[agent] = behavior, row
                    masks = None if decisions.action_mask is None else [mask[row] for mask in decisions.action_mask]
                    self._note(agent, spec, [column[row] for column in decisions.obs], masks, decisions.reward[row])
        return something_happened

    def _is_live(self, agent: str) -> bool:
        return agent in self.rewards and not (self.terminations[agent] or self.truncations[agent])

    def _join(self, agent: str) -> None:
        if agent not in self.possible_agents:
            self.possible_agents.append(agent)
        self.agents.append(agent)
        self.rewards[agent] = 0.0
        self.terminations[agent] = self.truncations[agent] = False
        self.infos[agent] = {}

    def _note(self, agent: str, spec: BehaviorSpec, obs: List[np.ndarray], masks: Any, reward: float) -> None:
        seen: Any = obs[0] if len(obs) == 1 else dict(zip(observation_names(spec), obs))
        if spec.action_spec.discrete_size:
            mask = allowed(masks, spec.action_spec)
            seen = {"observation": seen, MASK: mask}
            self.infos[agent] = {MASK: mask}
        self._seen[agent] = seen
        self.rewards[agent] = self.rewards[agent] + float(reward)

    def _step(self, actions: Dict[str, Any]) -> None:
        """Act for the agents that ask for a decision; step until an agent asks again or has ended."""
        self._set_actions(actions)
        for agent in self.rewards:
            self.rewards[agent] = 0.0
        for _ in range(MAX_SILENT_STEPS):
            self._env.step()
            if self._observe():
                return
        raise UnityEnvironmentException(f"No agent has asked for a decision or ended in {MAX_SILENT_STEPS} steps.")

    def _set_actions(self, actions: Dict[str, Any]) -> None:
        rows = {
            behavior: spec.action_spec.empty_action(len(self._env.get_steps(behavior)[0]))
            for behavior, spec in self._env.behavior_specs.items()
        }
        for agent, (behavior, row) in self._waiting.items():
            if agent in actions:
                action = action_tuple(self._env.behavior_specs[behavior].action_spec, actions[agent])
                rows[behavior].continuous[row] = action.continuous[0]
                rows[behavior].discrete[row] = action.discrete[0]
        for behavior, its_rows in rows.items():
            self._env.set_actions(behavior, its_rows)

    def observation_space(self, agent: str) -> spaces.Space[Any]:
        """Return the space of what an agent, or an agent of a behaviour, sees: the same object every time."""
        return self._observation_spaces[agent.partition(_AGENT)[0]]

    def action_space(self, agent: str) -> spaces.Space[Any]:
        """Return the space of what an agent, or an agent of a behaviour, does: the same object every time."""
        return self._action_spaces[agent.partition(_AGENT)[0]]

    @property
    def observation_spaces(self) -> Dict[str, spaces.Space[Any]]:
        """The spaces of all possible agents by name."""
        return {agent: self.observation_space(agent) for agent in self.possible_agents}

    @property
    def action_spaces(self) -> Dict[str, spaces.Space[Any]]:
        """The spaces of all possible agents by name."""
        return {agent: self.action_space(agent) for agent in self.possible_agents}

    @property
    def dones(self) -> Dict[str, bool]:
        """Whether the episode of each agent is over, either way."""
        return {agent: self.terminations[agent] or self.truncations[agent] for agent in self.rewards}

    def seed(self, seed: Optional[int] = None) -> None:
        """Seed the next reset."""
        self._seed = seed

    def _use_seed(self, seed: Optional[int]) -> Optional[int]:
        """Return the seed of a reset: its own, or that which was set before, which is used up."""
        chosen = seed if seed is not None else self._seed
        self._seed = None
        return chosen

    def render(self) -> None:
        """Nothing: a Unity build shows itself."""

    def close(self) -> None:
        """Close the environment."""
        self._env.close()
