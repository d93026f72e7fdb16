"""Collection alone: from environment steps to trajectories, with a constant policy and no physics."""

from __future__ import annotations

import statistics
import time
from typing import Any, Dict, Sequence, Tuple

import numpy as np
from numpy.typing import ArrayLike

from benchmarks.tables import REPEATS, print_table
from mlagents.testing.fixed_policy import FixedPolicy
from mlagents.trainers.action_info import ActionInfo
from mlagents.trainers.agent_processor import AgentManager
from mlagents.trainers.simple_env_manager import SimpleEnvManager
from mlagents.trainers.stats import StatsReporter
from mlagents.trainers.trajectory import LogProbsTuple
from mlagents_envs.base_env import ActionSpec, ActionTuple, BehaviorSpec, DecisionSteps, vector_observation
from mlagents_envs.side_channel.environment_parameters_channel import EnvironmentParametersChannel
from mlagents_envs.vector_env import VectorEnv

STEPS = 2000
EPISODE_LENGTH, TIME_HORIZON = 700, 1000
CLAIM = 200_000
SPEC = BehaviorSpec([vector_observation(8, "still")], ActionSpec.create_continuous(2))


class StillEnv(VectorEnv):
    """An environment with 3DBall's specification in which nothing happens, except that episodes end."""

    def __init__(self, n_agents: int):
        super().__init__("Still", SPEC, n_agents)
        self._observation = self.rng.normal(size=(n_agents, 8)).astype(np.float32)
        self._reward = np.full(n_agents, 0.1, dtype=np.float32)
        self._age = np.zeros(n_agents, dtype=np.int64)
        self._never = np.zeros(n_agents, dtype=bool)

    def reset_agents(self, indices: np.ndarray) -> Sequence[ArrayLike]:
        """Begin episodes at different ages, so that they do not end together."""
        self._age[indices] = -indices
        return [self._observation[indices]]

    def step_agents(self, actions: ActionTuple) -> Tuple[Sequence[ArrayLike], ArrayLike, ArrayLike, ArrayLike]:
        """Let time pass."""
        self._age += 1
        return [self._observation], self._reward, self._age >= EPISODE_LENGTH, self._never


class ConstantPolicy(FixedPolicy):
    """Decides the same for everybody, always."""

    def __init__(self, n_agents: int):
        super().__init__(SPEC)
        actions = ActionTuple(np.full((n_agents, 2), 0.5, dtype=np.float32))
        log_probs = LogProbsTuple(np.full((n_agents, 2), -1.0, dtype=np.float32), np.zeros((n_agents, 0)))
        self._outputs: Dict[str, Any] = {"log_probs": log_probs}
        self._actions = actions

    def get_action(self, decision_requests: DecisionSteps, worker_id: int = 0) -> ActionInfo:
        """Return the one decision there is."""
        ids: Any = decision_requests.agent_id
        return ActionInfo(self._actions, self._actions, self._outputs, ids)


def measure(n_agents: int) -> float:
    """Return agent steps per second, the median of five rounds."""
    env = StillEnv(n_agents)
    manager = SimpleEnvManager(env, EnvironmentParametersChannel())
    agents = AgentManager(SPEC, env.behavior_name, StatsReporter("Still"), TIME_HORIZON)
    manager.set_agent_manager(env.behavior_name, agents)
    manager.set_policy(env.behavior_name, ConstantPolicy(n_agents))
    manager.reset()
    speeds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        for _ in range(STEPS):
            manager.process_steps(manager.get_steps())
            while not agents.trajectory_queue.empty():
                agents.trajectory_queue.get_nowait()
        speeds.append(n_agents * STEPS / (time.perf_counter() - start))
    StatsReporter.stats_dict.clear()
    return statistics.median(speeds)


def run() -> None:
    """Print the table."""
    rows = [[str(n_agents), f"{measure(n_agents):,.0f}"] for n_agents in (12, 256, 1000)]
    print_table(
        f"Collection alone, 3DBall's specification (claim: at least {CLAIM:,} with 256 agents)",
        ["agents", "agent steps/s"],
        rows,
    )
