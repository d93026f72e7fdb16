"""Statistics that an environment reports to the trainer."""

import uuid
from collections import defaultdict
from enum import Enum
from typing import Dict, List, Mapping, Tuple

from mlagents_envs.exception import UnitySideChannelException
from mlagents_envs.side_channel.incoming_message import IncomingMessage
from mlagents_envs.side_channel.side_channel import SideChannel


class StatsAggregationMethod(Enum):
    """How the values of a statistic become one figure per summary."""

    AVERAGE = 0
    MOST_RECENT = 1
    SUM = 2
    HISTOGRAM = 3


StatList = List[Tuple[float, StatsAggregationMethod]]
EnvironmentStats = Mapping[str, StatList]


class StatsSideChannel(SideChannel):
    """Collects the values that the environment reports until somebody takes them."""

    CHANNEL_ID = uuid.UUID("a1d8f7b7-cec8-50f9-b78b-d3e165a78520")

    def __init__(self) -> None:
        super().__init__(self.CHANNEL_ID)
        self.stats: Dict[str, StatList] = defaultdict(list)

    def on_message_received(self, msg: IncomingMessage) -> None:
        """Keep a value for `get_and_reset_stats`."""
        fields = msg.strict()
        key = fields.read_string()
        value = fields.read_float32()
        aggregation = fields.read_int32()
        try:
            method = StatsAggregationMethod(aggregation)
        except ValueError:
            raise UnitySideChannelException(
                f"the statistic {key!r} has the unknown aggregation {aggregation}; there are "
                + ", ".join(f"{m.value} ({m.name})" for m in StatsAggregationMethod)
            ) from None
        self.stats[key].append((value, method))

    def get_and_reset_stats(self) -> EnvironmentStats:
        """Return what came since the last call."""
        stats, self.stats = self.stats, defaultdict(list)
        return stats
