"""PPO on Gymnasium's CartPole-v1 beside Stable-Baselines3's with the same settings, in turns."""

from __future__ import annotations

import time
from typing import NamedTuple

import torch
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env

from benchmarks.tables import REPEATS, print_table
from benchmarks.training import train

ENV, BEHAVIOR = "gym:CartPole-v1", "CartPole-v1"
COPIES, STEPS_PER_COPY, MINIBATCH, EPOCHS, NETWORK = 8, 256, 64, 3, [128, 128]
STEPS = 20 * COPIES * STEPS_PER_COPY
CLAIM = 1.5


class Turn(NamedTuple):
    """Agent steps per second of both, one right after the other."""

    ours: float
    theirs: float

    @property
    def ratio(self) -> float:
        """How much faster ours is."""
        return self.ours / self.theirs


def ours() -> float:
    """Train as `config/ppo/CartPole-v1.yaml` says, which are the settings above; return agent steps per second."""
    tree = train(STEPS, env=ENV, behavior=BEHAVIOR)
    return STEPS / float(tree["total"])


def theirs() -> float:
    """Train with Stable-Baselines3; return agent steps per second."""
    environment = make_vec_env("CartPole-v1", COPIES, seed=1)
    model = PPO(
        "MlpPolicy",
        environment,
        n_steps=STEPS_PER_COPY,
        batch_size=MINIBATCH,
        n_epochs=EPOCHS,
        policy_kwargs={"net_arch": {"pi": NETWORK, "vf": NETWORK}},
        device="cpu",
        seed=1,
    )
    start = time.perf_counter()
    model.learn(STEPS)
    return STEPS / (time.perf_counter() - start)


def run() -> None:
    """Print the table: the turn with the median ratio."""
    n_threads = torch.get_num_threads()
    turns = []
    for _ in range(REPEATS):
        mine = ours()
        torch.set_num_threads(n_threads)  # training has set its own
        turns.append(Turn(mine, theirs()))
    turns.sort(key=lambda turn: turn.ratio)
    median = turns[len(turns) // 2]
    title = f"PPO on {BEHAVIOR}, {COPIES} copies x {STEPS_PER_COPY} steps, minibatch {MINIBATCH}, {EPOCHS} epochs"
    rows = [["ours", f"{median.ours:.0f}"], ["Stable-Baselines3", f"{median.theirs:.0f}"]]
    print_table(title, ["", "agent steps/s"], rows)
    ratios = ", ".join(f"{turn.ratio:.2f}" for turn in turns)
    print(f"  times as fast: median {median.ratio:.2f} of {ratios} (claim: at least {CLAIM})")
