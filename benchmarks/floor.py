"""The arithmetic in bare torch, timed while training runs."""

from __future__ import annotations

import itertools
import statistics
import time
from typing import Any, Callable, Dict, List, Tuple

import torch

from benchmarks.tables import seconds_per_call

CALLS_PER_INTERLUDE = {"environment": 50, "act": 30, "values": 10, "update": 10}


class BareCalls:
    """The calls of a bare trainer, each with the setting of threads and Adam that is best for it.

    The machine's speed may drift within seconds. So they are not timed before or after a training but in between: now
    and then it pauses, and `run` times some of each.

    :param make_bare: makes what has some of the methods that `CALLS_PER_INTERLUDE` names, with torch's fused or foreach
        Adam.
    """

    def __init__(self, make_bare: Callable[[str], Any]):
        best: Dict[str, Tuple[float, int, Any]] = {}
        for n_threads, adam in itertools.product((1, 2), ("fused", "foreach")):
            torch.set_num_threads(n_threads)
            bare = make_bare(adam)
            for name in CALLS_PER_INTERLUDE:
                if hasattr(bare, name):
                    found = (seconds_per_call(getattr(bare, name), 0.1), n_threads, bare)
                    best[name] = min(best.get(name, found), found, key=lambda entry: entry[0])
        self._best = {name: (n_threads, getattr(bare, name)) for name, (_, n_threads, bare) in best.items()}
        self._times: Dict[str, List[float]] = {name: [] for name in best}

    def run(self) -> None:
        """Time each of them."""
        threads_before = torch.get_num_threads()
        for name, (n_threads, call) in self._best.items():
            torch.set_num_threads(n_threads)
            call()
            start = time.perf_counter()
            for _ in range(CALLS_PER_INTERLUDE[name]):
                call()
            self._times[name].append((time.perf_counter() - start) / CALLS_PER_INTERLUDE[name])
        torch.set_num_threads(threads_before)

    def mean(self, name: str) -> float:
        """Return the mean time of a call, over the whole training, in seconds."""
        return statistics.fmean(self._times[name])
