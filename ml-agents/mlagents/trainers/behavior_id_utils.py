"""Names: of behaviours with their team, and of agents and groups within a run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple
from urllib.parse import parse_qs

import numpy as np

from mlagents_envs.base_env import AgentId, GroupId

GlobalGroupId = str
GlobalAgentId = str


class BehaviorIdentifiers(NamedTuple):
    """A behaviour's full id, and what it says.

    :param behavior_id: as the environment sends it, ``NAME?team=N``.
    :param brain_name: NAME, under which the behaviour is configured.
    :param team_id: N, 0 where the id names none.
    """

    behavior_id: str
    brain_name: str
    team_id: int

    @staticmethod
    def from_name_behavior_id(name_behavior_id: str) -> BehaviorIdentifiers:
        """Read ``NAME?team=N``; other ``key=value`` pairs may follow and say nothing here."""
        name, _, query = name_behavior_id.partition("?")
        team = parse_qs(query).get("team", ["0"])[0]
        return BehaviorIdentifiers(name_behavior_id, name, int(team))


def create_name_behavior_id(name: str, team_id: int) -> str:
    """Return ``NAME?team=N``."""
    return f"{name}?team={team_id}"


def get_global_agent_id(worker_id: int, agent_id: AgentId) -> GlobalAgentId:
    """Return an agent's id within the run."""
    return f"agent_{worker_id}-{agent_id}"


def get_global_group_id(worker_id: int, group_id: GroupId) -> GlobalGroupId:
    """Return a group's id within the run."""
    return f"group_{worker_id}-{group_id}"


class GlobalAgentIds(Sequence):  # type: ignore[type-arg]  # of str
    """The ids within the run of several agents of one worker, made when they are read.

    :param agent_ids: their ids in the worker, (N,).
    """

    def __init__(self, worker_id: int, agent_ids: np.ndarray):
        self.worker_id = worker_id
        self.agent_ids = agent_ids

    def __len__(self) -> int:
        return len(self.agent_ids)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return GlobalAgentIds(self.worker_id, self.agent_ids[index])
        return get_global_agent_id(self.worker_id, int(self.agent_ids[index]))
