"""Names: of behaviours with their team, and of agents and groups within a run."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cached_property
from itertools import groupby
from typing import Any, List, NamedTuple, Tuple
from urllib.parse import parse_qs

import numpy as np

from mlagents_envs.base_env import AgentId, GroupId
from mlagents_envs.exception import UnityCommunicationException

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
        """Read ``NAME?team=N``; other ``key=value`` pairs may follow and say nothing here.

        :raises UnityCommunicationException: N is no number.
        """
        name, _, query = name_behavior_id.partition("?")
        team = parse_qs(query).get("team", ["0"])[0]
        try:
            return BehaviorIdentifiers(name_behavior_id, name, int(team))
        except ValueError:
            raise UnityCommunicationException(
                f"The environment has a behavior {name_behavior_id!r}, whose team {team!r} is not a number. A "
                f"behavior's id is its name, or NAME?team=N: mend the environment."
            ) from None


def create_name_behavior_id(name: str, team_id: int) -> str:
    """Return ``NAME?team=N``."""
    return f"{name}?team={team_id}"


def get_global_agent_id(worker_id: int, agent_id: AgentId) -> GlobalAgentId:
    """Return an agent's id within the run."""
    return f"agent_{worker_id}-{agent_id}"


def get_global_group_id(worker_id: int, group_id: GroupId) -> GlobalGroupId:
    """Return a group's id within the run."""
    return f"group_{worker_id}-{group_id}"


_GLOBAL_AGENT_ID = re.compile(r"agent_(\d+)-(-?\d+)")


class GlobalAgentIds(Sequence):  # type: ignore[type-arg]  # of str
    """The ids within the run of N agents, of one or several workers; the strings are made when they are read.

    :param by_worker: a worker's id with its agents' ids in it, (K,), one after the other as the rows are.
    """

    def __init__(self, *by_worker: Tuple[int, np.ndarray]):
        self.by_worker = by_worker

    @staticmethod
    def of(names: Sequence[str]) -> GlobalAgentIds:
        """Return ids that may be given as strings.

        :raises ValueError: one of them is not as `get_global_agent_id` makes it.
        """
        if isinstance(names, GlobalAgentIds):
            return names
        found = [_GLOBAL_AGENT_ID.fullmatch(name) for name in names]
        if None in found:
            raise ValueError(f"{names[found.index(None)]!r} is not the id of an agent within a run.")
        pairs = [(int(match[1]), int(match[2])) for match in found if match]
        runs = [(worker_id, [pair[1] for pair in run]) for worker_id, run in groupby(pairs, key=lambda pair: pair[0])]
        return GlobalAgentIds(*((worker_id, np.array(agent_ids, dtype=np.int32)) for worker_id, agent_ids in runs))

    @cached_property
    def _names(self) -> List[GlobalAgentId]:
        return [
            get_global_agent_id(worker_id, agent_id)
            for worker_id, agent_ids in self.by_worker
            for agent_id in agent_ids.tolist()
        ]

    def __len__(self) -> int:
        return sum(len(agent_ids) for _, agent_ids in self.by_worker)

    def __getitem__(self, index: Any) -> Any:
        return self._names[index]
