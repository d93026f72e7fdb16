"""What the collecting side of the training loop leaves for the learning side."""

from __future__ import annotations

from collections import deque
from typing import Deque, Generic, NamedTuple, Sequence, TypeVar, Union

from mlagents.trainers.behavior_id_utils import GlobalAgentId
from mlagents.trainers.trajectory import Trajectory

T = TypeVar("T")


class AgentManagerQueue(Generic[T]):
    """What one side of the training loop leaves for the other, in order."""

    class Empty(Exception):
        """Nothing waits."""

    def __init__(self, behavior_id: str, maxlen: int = 0):
        self._maxlen = maxlen
        self._items: Deque[T] = deque(maxlen=maxlen or None)
        self._behavior_id = behavior_id

    @property
    def maxlen(self) -> int:
        """How many items are kept at most, the newest ones; 0 is no bound."""
        return self._maxlen

    @property
    def behavior_id(self) -> str:
        """The behaviour that the items belong to."""
        return self._behavior_id

    def qsize(self) -> int:
        """How many items wait."""
        return len(self._items)

    def empty(self) -> bool:
        """Whether nothing waits."""
        return not self._items

    def get_nowait(self) -> T:
        """Take the oldest item.

        :raises AgentManagerQueue.Empty: nothing waits.
        """
        try:
            return self._items.popleft()
        except IndexError:
            raise self.Empty from None

    def put(self, item: T) -> None:
        """Add an item behind the others."""
        self._items.append(item)


class LostAgents(NamedTuple):
    """Agents whose worker was lost: their episodes are dropped, what was handed over of them stays.

    :param agent_ids: their ids within the run; agents that come under the same ids from now on are others.
    """

    agent_ids: Sequence[GlobalAgentId]


TrajectoryQueue = AgentManagerQueue[Union[Trajectory, LostAgents]]
"""What is collected of a behaviour, on its way to a trainer."""
