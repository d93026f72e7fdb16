"""A behaviour's part of a message that differs from the last one in nothing but its values.

That is how nearly all messages are as long as nobody's episode ends: the same agents, with the same fields. What then
is the same is compared as a whole, and the values are picked out as a whole, not agent by agent or layout by layout.
"""

from __future__ import annotations

from typing import Iterable, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np
from numpy.typing import NDArray

from mlagents_envs.base_env import BehaviorSpec
from mlagents_envs.wire.layout import Layout, Span
from mlagents_envs.wire.messages import RawAgentInfos

MAX_BYTES = 1 << 14
"""Longer messages are not compared as a whole: what it saves is the same, and what it costs grows."""

_FLOAT = np.dtype("<f4")

_Places = Sequence[Tuple[NDArray[np.intp], Span]]
"""Where in their agents' messages the values of some rows (K,) are."""
_Where = Tuple[NDArray[np.intp], NDArray[np.intp]]
"""The rows (K,) that have a value, ascending, and where in the whole message its bytes are (K, size)."""


class Values(NamedTuple):
    """The values of N agents that wait for a decision.

    :param obs: per observation (N, *shape).
    :param reward: (N,), like `group_reward`.
    """

    obs: List[NDArray[np.float32]]
    reward: NDArray[np.float32]
    group_reward: NDArray[np.float32]


class Repetition:
    """Reads messages that repeat one; integers, and so agents' ids, count as what has to be the same.

    :param infos: of the message that was read.
    :param layouts: of its agents, with the rows (K,) that have each; such that `suits` agrees.
    :param agent_id: of its agents (N,), as `group_id`.
    """

    def __init__(
        self,
        infos: RawAgentInfos,
        layouts: Sequence[Tuple[NDArray[np.intp], Layout]],
        spec: BehaviorSpec,
        agent_id: NDArray[np.int32],
        group_id: NDArray[np.int32],
    ):
        self.agent_id, self.group_id = agent_id, group_id
        self._shapes = [observation.shape for observation in spec.observation_specs]
        self._starts = infos.starts
        self._ends = infos.ends - infos.starts[0]
        self._length = int(self._ends[-1])
        offsets = infos.starts - infos.starts[0]
        places: List[_Places] = [
            [(rows, layout.observations[index].values) for rows, layout in layouts]
            for index in range(len(self._shapes))
        ]
        rewards = [(rows, layout.reward) for rows, layout in layouts if layout.reward is not None]
        group_rewards = [(rows, layout.group_reward) for rows, layout in layouts if layout.group_reward is not None]
        self._obs = [_where(offsets, column) for column in places]
        self._reward, self._group_reward = _where(offsets, rewards), _where(offsets, group_rewards)
        bits = np.full(self._length, 0xFF, dtype=np.uint8)
        for _, positions in [*self._obs, self._reward, self._group_reward]:
            bits[positions] = 0
        self._bits, self._expected = bits, self._bytes_of(infos) & bits

    @staticmethod
    def suits(infos: RawAgentInfos, layouts: Iterable[Tuple[NDArray[np.intp], Layout]]) -> bool:
        """Return whether a message with these layouts is one that can be read when it is repeated."""
        return int(infos.ends[-1] - infos.starts[0]) <= MAX_BYTES and all(
            layout.mask is None and not any(place.is_png or place.is_channel_last for place in layout.observations)
            for _, layout in layouts
        )

    def is_as_long(self, infos: RawAgentInfos) -> bool:
        """Return whether the messages of as many agents are as long as here."""
        if infos.starts is self._starts:  # `MessageReader` found them where they were
            return True
        return len(infos) == len(self._ends) and bool((infos.ends - infos.starts[0] == self._ends).all())

    def read(self, infos: RawAgentInfos) -> Optional[Values]:
        """Return the values of a message that `is_as_long`; None where it does not repeat the one that was read."""
        data = self._bytes_of(infos)
        if ((data & self._bits) != self._expected).any():
            return None
        n_agents = len(self._ends)
        obs = [
            data[positions].view(_FLOAT).reshape(n_agents, *shape)
            for (_, positions), shape in zip(self._obs, self._shapes)
        ]
        return Values(obs, self._scalars(data, self._reward), self._scalars(data, self._group_reward))

    def _bytes_of(self, infos: RawAgentInfos) -> NDArray[np.uint8]:
        return np.frombuffer(infos.data, np.uint8, self._length, int(infos.starts[0]))

    def _scalars(self, data: NDArray[np.uint8], where: _Where) -> NDArray[np.float32]:
        rows, positions = where
        column = np.zeros(len(self._ends), dtype=np.float32)
        if len(rows):
            column[rows] = data[positions].view(_FLOAT)[:, 0]
        return column


def _where(offsets: NDArray[np.int64], places: _Places) -> _Where:
    """Find values in the whole message.

    :param offsets: where in it each agent's message begins.
    """
    if not places:
        return np.zeros(0, dtype=np.intp), np.zeros((0, 0), dtype=np.intp)
    rows = np.concatenate([rows for rows, _ in places])
    positions = np.concatenate([offsets[rows][:, None] + np.arange(*span) for rows, span in places])
    order = rows.argsort()
    return rows[order], positions[order]
