"""How often an environment may fail before a run gives up."""

from __future__ import annotations

import time
from collections import defaultdict, deque
from typing import Any, Callable, Deque, Dict, Mapping, Optional

from mlagents.trainers.settings import EnvironmentSettings

UNLIMITED = -1


class RestartLimits:
    """Counts the restarts of each worker against the limits of `env_settings`.

    :param clock: seconds, from whenever.
    """

    def __init__(self, settings: EnvironmentSettings, clock: Callable[[], float] = time.monotonic):
        self._settings = settings
        self._clock = clock
        self.counts: Dict[int, int] = defaultdict(int)
        self._recent: Dict[int, Deque[float]] = defaultdict(deque)

    def state_dict(self) -> Dict[str, Any]:
        """Return how often each worker was started anew in this run."""
        return {"counts": dict(self.counts)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Count on from what `state_dict` told."""
        self.counts.update(state["counts"])

    def count(self, worker_id: int) -> Optional[str]:
        """Count a restart; return which limit it goes beyond, None if none."""
        settings, now = self._settings, self._clock()
        self.counts[worker_id] += 1
        recent = self._recent[worker_id]
        recent.append(now)
        while now - recent[0] > settings.restarts_rate_limit_period_s:
            recent.popleft()
        if settings.max_lifetime_restarts != UNLIMITED and self.counts[worker_id] > settings.max_lifetime_restarts:
            return (
                f"it was restarted {settings.max_lifetime_restarts} times in this run, which is the limit "
                "(max_lifetime_restarts; -1 for no limit)"
            )
        if settings.restarts_rate_limit_n != UNLIMITED and len(recent) > settings.restarts_rate_limit_n:
            return (
                f"it failed {len(recent)} times within {settings.restarts_rate_limit_period_s} seconds, and the limit "
                f"is {settings.restarts_rate_limit_n} restarts (restarts_rate_limit_n, -1 for no limit; "
                "restarts_rate_limit_period_s)"
            )
        return None
