"""How much of the machine's processor this process may use."""

from __future__ import annotations

import os
from pathlib import Path

_CGROUP_QUOTA = Path("/sys/fs/cgroup/cpu.max")
_MAX_THREADS = 4


def get_num_threads_to_use() -> int:
    """Return how many threads torch should compute with: half of the available processors, 1 to 4.

    The other half is the environments'; networks of a few hundred units gain nothing from more. Where the variable
    OMP_NUM_THREADS is set, it says how many.
    """
    return _asked_for() or max(1, min(_available_cpus() // 2, _MAX_THREADS))


def get_num_threads_for_images() -> int:
    """Return how many threads torch should compute with where agents see images: all available processors, 1 to 4.

    Convolutions take so long that environments wait for the trainer rather than the other way round. Where the variable
    OMP_NUM_THREADS is set, it says how many.
    """
    return _asked_for() or max(1, min(_available_cpus(), _MAX_THREADS))


def _asked_for() -> int | None:
    """Return the number of threads that the user wants, as OpenMP's programs are told; None if there is no wish."""
    wish = os.environ.get("OMP_NUM_THREADS", "").split(",")[0].strip()
    return int(wish) if wish.isdigit() and int(wish) > 0 else None


def _available_cpus() -> int:
    """Return the processors that this process may run on, within its container's quota."""
    if hasattr(os, "sched_getaffinity"):
        count = len(os.sched_getaffinity(0))
    else:  # macOS and Windows
        count = os.cpu_count() or 1
    quota = _container_quota()
    return count if quota is None else min(count, quota)


def _container_quota() -> int | None:
    """Return the processors' worth of time that the control group (Linux, v2) grants; None for no limit."""
    try:
        quota_us, period_us = _CGROUP_QUOTA.read_text().split()
        return int(quota_us) // int(period_us)
    except (OSError, ValueError):  # no control group, or "max"
        return None
