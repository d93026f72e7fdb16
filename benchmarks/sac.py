"""SAC's learner on 3DBall's specification, against the same arithmetic in bare torch: updates per second.

An update is all that a trainer does for it: drawing the minibatch from a full replay buffer, evaluating the rewards
anew, the gradient steps and the statistics. The two take turns, since the machine's speed drifts.
"""

from __future__ import annotations

import itertools
import statistics
import tempfile
import time
from typing import List, Tuple

import numpy as np
import torch

from benchmarks.bare_sac import ACTIONS, HIDDEN, OBS, BareSAC
from benchmarks.tables import print_table, seconds_per_call
from mlagents.trainers.behavior_id_utils import BehaviorIdentifiers
from mlagents.trainers.sac.trainer import SACSettings, SACTrainer
from mlagents.trainers.settings import NetworkSettings, TrainerSettings
from mlagents.trainers.trajectory import Trajectory, TrajectoryColumns
from mlagents_envs.base_env import ActionSpec, BehaviorSpec, vector_observation

BATCH_SIZE = 128
REPLAY, HORIZON = 50_000, 1000
UPDATES_PER_TURN, TURNS = 25, 120
CLAIM = 0.85


def make_trainer(folder: str) -> SACTrainer:
    """Return a trainer with a full replay buffer."""
    settings = TrainerSettings(
        trainer_type="sac",
        hyperparameters=SACSettings(batch_size=BATCH_SIZE, buffer_size=REPLAY + 1),
        network_settings=NetworkSettings(normalize=True, hidden_units=HIDDEN, num_layers=2),
    )
    trainer = SACTrainer("3DBall", 10, settings, True, False, 0, folder)
    identifiers = BehaviorIdentifiers.from_name_behavior_id("3DBall?team=0")
    spec = BehaviorSpec([vector_observation(OBS, "ball")], ActionSpec.create_continuous(ACTIONS))
    trainer.add_policy(identifiers, trainer.create_policy(identifiers, spec))
    rng = np.random.default_rng(0)
    for _ in range(REPLAY // HORIZON):
        trainer._process_trajectory(_trajectory(rng))
    return trainer


def _trajectory(rng: np.random.Generator) -> Trajectory:
    columns = TrajectoryColumns(
        obs=[rng.normal(size=(HORIZON, OBS)).astype(np.float32)],
        reward=rng.normal(size=HORIZON).astype(np.float32),
        done=np.zeros(HORIZON, dtype=bool),
        interrupted=np.zeros(HORIZON, dtype=bool),
        continuous=rng.uniform(-1, 1, size=(HORIZON, ACTIONS)).astype(np.float32),
        discrete=np.zeros((HORIZON, 0), dtype=np.int32),
        prev_discrete=np.zeros((HORIZON, 0), dtype=np.int32),
        action_mask=np.zeros((HORIZON, 0), dtype=bool),
        group_reward=np.zeros(HORIZON, dtype=np.float32),
    )
    last = rng.normal(size=OBS).astype(np.float32)
    return Trajectory(columns=columns, next_obs=[last], agent_id="agent_0-0", behavior_id="3DBall?team=0")


def best_floor() -> Tuple[int, BareSAC]:
    """Return the bare learner with the setting of threads and Adam that is best for it."""
    candidates = []
    for n_threads, adam in itertools.product((1, 2), ("fused", "foreach")):
        torch.set_num_threads(n_threads)
        bare = BareSAC(adam, BATCH_SIZE)
        candidates.append((seconds_per_call(bare.update), n_threads, bare))
    _, n_threads, bare = min(candidates, key=lambda candidate: candidate[0])
    return n_threads, bare


def run() -> None:
    """Print the table: medians over turns."""
    ours: List[float] = []
    floors: List[float] = []
    n_threads, bare = best_floor()
    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(folder)
        for _ in range(TURNS):
            torch.set_num_threads(1)  # as `mlagents-learn` does for networks of this size
            trainer._first_update_step = trainer.get_step - UPDATES_PER_TURN - trainer.update_steps
            start = time.perf_counter()
            trainer._update_policy()
            ours.append((time.perf_counter() - start) / UPDATES_PER_TURN)
            torch.set_num_threads(n_threads)
            start = time.perf_counter()
            for _ in range(UPDATES_PER_TURN):
                bare.update()
            floors.append((time.perf_counter() - start) / UPDATES_PER_TURN)
    share = statistics.median(floor / own for own, floor in zip(ours, floors))
    print_table(
        f"SAC on 3DBall's specification, batch {BATCH_SIZE}, 2 x {HIDDEN}",
        ["", "ms per update", "updates/s"],
        [
            [name, f"{1e3 * statistics.median(times):.2f}", f"{1 / statistics.median(times):,.0f}"]
            for name, times in (("trainer", ours), ("bare torch", floors))
        ],
    )
    print(f"  share of the floor: {share:.0%} (claim: at least {CLAIM:.0%})")
