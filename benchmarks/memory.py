"""How much memory a million steps of training add once the first buffer is full, and how much replayed images take."""

from __future__ import annotations

import multiprocessing
import tracemalloc

import numpy as np

from benchmarks.probe import INTERVAL, Probed, peak_memory_mib
from benchmarks.tables import print_table, seconds_per_call
from benchmarks.training import train
from mlagents.trainers.buffer import AgentBuffer, BufferKey
from mlagents.trainers.replay_buffer import ReplayBuffer
from mlagents.trainers.trainer.off_policy_trainer import BUFFER_TRUNCATE_PERCENT
from mlagents.trainers.trajectory import ObsUtil

MAX_STEPS = 1_000_000
DECISIONS_TO_FIRST_UPDATE = 12_000 // 12
CLAIM_MIB = 50

IMAGE_SHAPE = (3, 84, 84)
IMAGES = 50_000
TIME_HORIZON = 64
BATCH_SIZE = 128
CLAIM_GB = 1.2


def _measure() -> tuple[float, float]:
    train(MAX_STEPS)
    # A little later than the first update, which has costs of its own, once.
    first = Probed.peak_mib[2 * DECISIONS_TO_FIRST_UPDATE // INTERVAL]
    return first, Probed.peak_mib[-1]


def _trajectory(number: int, pixels: np.ndarray) -> AgentBuffer:
    """Return a trajectory whose images no other one has."""
    images = np.roll(pixels, number, axis=-1) / np.float32(255)
    buffer = AgentBuffer()
    buffer[ObsUtil.get_name_at(0)], buffer[ObsUtil.get_name_at_next(0)] = images[:-1], images[1:]
    buffer[BufferKey.CONTINUOUS_ACTION] = np.zeros((TIME_HORIZON, 2), dtype=np.float32)
    buffer[BufferKey.DONE] = np.zeros(TIME_HORIZON, dtype=bool)
    return buffer


def _replay() -> tuple[float, float, float]:
    """Fill a replay buffer, cut it, and fill it again, with samples in between.

    :return: what the process grew by at its peak and what the arrays took at theirs, GB; seconds per sample.
    """
    pixels = np.random.default_rng(0).integers(0, 256, (TIME_HORIZON + 1, *IMAGE_SHAPE), dtype=np.uint8)
    buffer = ReplayBuffer()
    peak_before = peak_memory_mib()
    tracemalloc.start()
    for number in range(int(1.5 * IMAGES) // TIME_HORIZON):
        _trajectory(number, pixels).resequence_and_append(buffer)
        if buffer.num_experiences > IMAGES:
            buffer.truncate(int(IMAGES * BUFFER_TRUNCATE_PERCENT))
        buffer.sample_mini_batch(BATCH_SIZE)
    arrays = tracemalloc.get_traced_memory()[1] / 1e9
    tracemalloc.stop()
    resident = (peak_memory_mib() - peak_before) * 2**20 / 1e9
    return resident, arrays, seconds_per_call(lambda: buffer.sample_mini_batch(BATCH_SIZE))


def run() -> None:
    """Train, and fill a replay buffer, in processes of their own; print the tables."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        first, last = pool.apply(_measure)
    print_table(
        f"Memory of {MAX_STEPS:,} steps of 3DBall (claim: under {CLAIM_MIB} MiB added)",
        ["after the first buffer, MiB", "at the end, MiB", "added, MiB"],
        [[f"{first:.0f}", f"{last:.0f}", f"{last - first:.1f}"]],
    )
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        resident, arrays, seconds = pool.apply(_replay)
    size = "x".join(str(length) for length in IMAGE_SHAPE)
    print_table(
        f"A replay buffer of {IMAGES:,} {size} images of 8 bits (claim: at most {CLAIM_GB} GB)",
        ["the process grew by, GB", "arrays at their peak, GB", f"a sample of {BATCH_SIZE} with next images, ms"],
        [[f"{resident:.2f}", f"{arrays:.2f}", f"{seconds * 1e3:.1f}"]],
    )
