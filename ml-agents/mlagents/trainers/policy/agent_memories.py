"""What the agents of a recurrent policy remember from one decision to the next."""

from __future__ import annotations

from typing import Any, Dict, Mapping, NamedTuple, Sequence

import numpy as np

from mlagents.trainers.behavior_id_utils import GlobalAgentIds
from mlagents_envs.base_env import AgentId


class _WorkerMemories(NamedTuple):
    """The memories of one worker's agents. Neither array is ever written to: a change makes new ones."""

    agent_ids: np.ndarray  # (K,) int32, unique
    memories: np.ndarray  # (K, M) float32; zeros are as good as not being known


class AgentMemories:
    """One memory, float32 (M,), per agent; agents are known by their worker and their id in it.

    Environments mostly ask for the same agents again and again: then a look-up is one comparison of ids.
    """

    def __init__(self) -> None:
        self._workers: Dict[int, _WorkerMemories] = {}

    def get(self, agents: GlobalAgentIds, size: int) -> np.ndarray:
        """Return what N agents remember, (N, `size`), read-only.

        Zeros stand for agents that are not known, and for all of a worker where what is known is of another size.
        """
        found = [self._get(worker_id, agent_ids, size) for worker_id, agent_ids in agents.by_worker]
        memories = found[0] if len(found) == 1 else np.concatenate(found)
        memories.flags.writeable = False
        return memories

    def _get(self, worker_id: int, wanted: np.ndarray, size: int) -> np.ndarray:
        known = self._workers.get(worker_id)
        if known is None or known.memories.shape[1] != size:
            memories = np.zeros((len(wanted), size), dtype=np.float32)
        elif np.array_equal(known.agent_ids, wanted):
            memories = known.memories
        else:
            memories = np.zeros((len(wanted), size), dtype=np.float32)
            _, rows, known_rows = np.intersect1d(wanted, known.agent_ids, assume_unique=True, return_indices=True)
            memories[rows] = known.memories[known_rows]
        return memories

    def set(self, agents: GlobalAgentIds, memories: np.ndarray) -> None:
        """Take in what N agents remember from now on, (N, M); it is copied.

        Their workers' other agents keep what they remember, unless it is of another size.
        """
        start = 0
        for worker_id, agent_ids in agents.by_worker:
            end = start + len(agent_ids)
            self._set(worker_id, agent_ids, memories[start:end])
            start = end

    def _set(self, worker_id: int, agent_ids: np.ndarray, memories: np.ndarray) -> None:
        given = _WorkerMemories(np.array(agent_ids, dtype=np.int32), np.array(memories, dtype=np.float32))
        known = self._workers.get(worker_id)
        if known is not None and not np.array_equal(known.agent_ids, given.agent_ids):
            kept = ~np.isin(known.agent_ids, given.agent_ids) & known.memories.any(axis=1)
            if kept.any() and known.memories.shape[1] == given.memories.shape[1]:
                given = _WorkerMemories(
                    np.concatenate([given.agent_ids, known.agent_ids[kept]]),
                    np.concatenate([given.memories, known.memories[kept]]),
                )
        self._workers[worker_id] = given

    def forget(self, worker_id: int, agent_ids: Sequence[AgentId] | np.ndarray) -> None:
        """Let some agents remember nothing; those that are not known are passed over."""
        known = self._workers.get(worker_id)
        if known is not None:
            # Their ids stay until others come: mostly it is the same agents that start again.
            memories = known.memories.copy()
            memories[np.isin(known.agent_ids, agent_ids)] = 0.0
            self._workers[worker_id] = known._replace(memories=memories)

    def state_dict(self) -> Dict[str, Any]:
        """Return what the agents of each worker remember."""
        return {"workers": {worker_id: tuple(known) for worker_id, known in self._workers.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Let agents remember what `state_dict` told."""
        self._workers = {worker_id: _WorkerMemories(*known) for worker_id, known in state["workers"].items()}

    def clear(self) -> None:
        """Let all agents of all workers remember nothing."""
        self._workers.clear()
