"""The environment's process of the benchmark of the wire: serves an environment, and notes how long it took itself."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any, Dict

import numpy as np
from numpy.typing import ArrayLike

from mlagents_envs.base_env import (
    ActionSpec,
    ActionTuple,
    BehaviorSpec,
    DimensionProperty,
    ObservationSpec,
    ObservationType,
)
from mlagents_envs.builtin.ball3d import Ball3DEnv
from mlagents_envs.server.environment_server import EnvironmentServer
from mlagents_envs.server.link import TrainerLink
from mlagents_envs.vector_env import VectorEnv

VECTOR, IMAGE = (8,), (3, 84, 84)


class StillEnv(VectorEnv):
    """Nothing happens, and nobody's episode ends."""

    def __init__(self, n_agents: int, shape: Any, **kwargs: Any):
        sensor = ObservationSpec(shape, (DimensionProperty.NONE,) * len(shape), ObservationType.DEFAULT, "still")
        super().__init__("Still", BehaviorSpec([sensor], ActionSpec.create_continuous(2)), n_agents, **kwargs)
        self._obs = self.rng.random((n_agents, *shape)).astype(np.float32)
        self._reward, self._never = np.full(n_agents, 0.1, dtype=np.float32), np.zeros(n_agents, dtype=bool)

    def reset_agents(self, indices: np.ndarray) -> Any:
        """Begin."""
        return [self._obs[indices]]

    def step_agents(self, actions: ActionTuple) -> tuple[Any, ArrayLike, ArrayLike, ArrayLike]:
        """Do nothing."""
        return [self._obs], self._reward, self._never, self._never


class WaitingBall(Ball3DEnv):
    """3DBall whose steps take some time of their own, in which the processor is free."""

    def __init__(self, step_s: float, **kwargs: Any):
        super().__init__(**kwargs)
        self._step_s = step_s

    def step(self) -> None:
        """Wait, and step."""
        time.sleep(self._step_s)
        super().step()


class TimedLink(TrainerLink):
    """Notes how long the trainer took to answer, and the last exchange but one, which is like all others.

    :param report: the file to write it to.
    """

    def __init__(self, port: int, report: Path):
        super().__init__(port)
        self._report = report
        self._started = time.perf_counter()
        self._waited = 0.0
        self._exchanges = 0
        self._sizes: Dict[str, str] = {}

    def exchange(self, request: bytes) -> bytes:
        """See `Link`."""
        start = time.perf_counter()
        answer = super().exchange(request)
        if self._exchanges == 2:  # the handshake and the reset are not counted
            self._started, self._waited = time.perf_counter(), 0.0
        else:
            self._waited += time.perf_counter() - start
        self._exchanges += 1
        if self._exchanges == 50:
            self._sizes = {"request": request.hex(), "answer": answer.hex()}
        return answer

    def close(self) -> None:
        """See `Link`."""
        own = time.perf_counter() - self._started - self._waited
        figures = {"exchanges": self._exchanges - 3, "own_s": own, **self._sizes}
        self._report.write_text(json.dumps(figures), encoding="utf-8")
        super().close()


def main() -> None:
    """Serve until the trainer has had enough."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--mlagents-port", type=int)
    parser.add_argument("-logFile")
    parser.add_argument("--report", type=Path)
    parser.add_argument("--step-s", type=float, default=0.0, help="how long each step waits, as an engine does")
    parser.add_argument("name", choices=["3DBall", "vector", "image"])
    parser.add_argument("n_agents", type=int)
    arguments, _ = parser.parse_known_args()

    def make_env(seed: int, num_areas: int, side_channels: Any) -> VectorEnv:
        if arguments.name == "3DBall":
            return WaitingBall(arguments.step_s, seed=seed, n_agents=arguments.n_agents, side_channels=side_channels)
        shape = VECTOR if arguments.name == "vector" else IMAGE
        return StillEnv(arguments.n_agents, shape, seed=seed, side_channels=side_channels)

    EnvironmentServer(make_env, TimedLink(arguments.mlagents_port, arguments.report)).run()


if __name__ == "__main__":
    main()
