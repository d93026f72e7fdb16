"""A `BaseEnv` as a parallel environment of PettingZoo's."""

from __future__ import annotations

from typing import Any, Dict, Optional, Tuple

from pettingzoo import ParallelEnv

from mlagents_envs.base_env import BaseEnv
from mlagents_envs.envs.unity_pettingzoo_base_env import UnityPettingzooBaseEnv


class UnityParallelEnv(UnityPettingzooBaseEnv, ParallelEnv):  # type: ignore[misc]
    """All agents that are there act together; see `UnityPettingzooBaseEnv`.

    :param env: the environment, which is closed with this one.
    :param seed: of the first reset, unless that has its own.
    """

    def __init__(self, env: BaseEnv, seed: Optional[int] = None):
        super().__init__(env, seed, {"name": "unity_parallel_env"})

    def reset(
        self, seed: Optional[int] = None, options: Optional[Dict[str, Any]] = None
    ) -> Tuple[Dict[str, Any], Dict[str, Dict[str, Any]]]:
        """Begin all episodes anew; return observations and infos by agent."""
        self._begin(self._use_seed(seed))
        return dict(self._seen), dict(self.infos)

    def step(
        self, actions: Dict[str, Any]
    ) -> Tuple[Dict[str, Any], Dict[str, float], Dict[str, bool], Dict[str, bool], Dict[str, Dict[str, Any]]]:
        """Act for all agents.

        :returns: observations, rewards, who has terminated, who was truncated, and infos, by agent: of those that were
            there, and of those that have just joined.
        """
        if not self.agents:
            return {}, {}, {}, {}, {}
        self._step(actions)
        there = list(self.agents)
        results = (
            {agent: self._seen[agent] for agent in there},
            {agent: self.rewards[agent] for agent in there},
            {agent: self.terminations[agent] for agent in there},
            {agent: self.truncations[agent] for agent in there},
            {agent: self.infos[agent] for agent in there},
        )
        self.agents = [agent for agent in there if self._is_live(agent)]
        return results
