"""A `BaseEnv` as an environment of PettingZoo's in which one agent acts after the other (AEC)."""

from __future__ import annotations

from typing import Any, Dict, List, Optional

from pettingzoo import AECEnv

from mlagents_envs.base_env import BaseEnv
from mlagents_envs.envs.unity_pettingzoo_base_env import UnityPettingzooBaseEnv


class UnityAECEnv(UnityPettingzooBaseEnv, AECEnv):  # type: ignore[misc]
    """Each agent that asks for a decision acts in its turn, then the environment steps; see `UnityPettingzooBaseEnv`.

    :param env: the environment, which is closed with this one.
    :param seed: of the first reset, unless that has its own.
    """

    def __init__(self, env: BaseEnv, seed: Optional[int] = None):
        super().__init__(env, seed, {"name": "unity_aec_env"})
        self._line_up()

    def _line_up(self) -> None:
        self._actions: Dict[str, Any] = {}
        self._queue: List[str] = list(self._waiting)
        self._cumulative_rewards = dict.fromkeys(self.agents, 0.0)
        self.agent_selection: Optional[str] = self._queue[0]

    def reset(self, seed: Optional[int] = None, options: Optional[Dict[str, Any]] = None) -> None:
        """Begin all episodes anew."""
        self._begin(self._use_seed(seed))
        self._line_up()

    def step(self, action: Any) -> None:
        """Act for `agent_selection`; of an agent that is dead the action is None, and it leaves."""
        agent = self.agent_selection
        if agent is None:
            return
        if self.dones[agent]:
            self._was_dead_step(action)
        else:
            self._cumulative_rewards[agent] = 0.0
            self._actions[agent] = action
            self._queue.pop(0)
            self._clear_rewards()
        self._select()

    def _select(self) -> None:
        """Choose who is next: first the dead, then who waits; the environment steps when there is neither."""
        if not self.agents:
            self.agent_selection = None
            return
        if not self._queue and not any(self.dones.values()):
            self._step(self._actions)
            self._actions = {}
            self._queue = list(self._waiting)
            for agent in self.agents:
                self._cumulative_rewards.setdefault(agent, 0.0)
            self._accumulate_rewards()
        dead = [agent for agent in self.agents if self.dones[agent]]
        self.agent_selection = dead[0] if dead else self._queue[0]

    def observe(self, agent: str) -> Any:
        """Return what an agent saw last."""
        return self._seen[agent]
