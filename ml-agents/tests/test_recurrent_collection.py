"""Memories from acting through collection into trajectories.

Agents see how many decisions they have made in their episode, and their actor keeps count in its memory: what they see
and what they remember has to agree, at every step.
"""

import numpy as np
import pytest
import torch

from mlagents.torch_utils import nn
from mlagents.trainers.agent_processor import AgentManager, LostAgents
from mlagents.trainers.env_manager import EnvironmentStep, EnvManager
from mlagents.trainers.policy.torch_policy import TorchPolicy
from mlagents.trainers.settings import NetworkSettings
from mlagents.trainers.simple_env_manager import SimpleEnvManager
from mlagents.trainers.stats import StatsReporter
from mlagents.trainers.torch_entities.agent_action import AgentAction
from mlagents_envs.base_env import (
    ActionSpec,
    BaseEnv,
    BehaviorMapping,
    BehaviorSpec,
    DecisionSteps,
    TerminalSteps,
    vector_observation,
)
from mlagents_envs.side_channel.environment_parameters_channel import EnvironmentParametersChannel
from mlagents_envs.vector_env import VectorEnv

SPEC = BehaviorSpec([vector_observation(1, "decisions so far")], ActionSpec(1, ()))


class Counter(nn.Module):
    """Remembers how many decisions it has made, and twice that."""

    def __init__(self, observation_specs, network_settings, action_spec):
        super().__init__()

    def get_action_and_stats(self, inputs, masks=None, memories=None):
        action = AgentAction(torch.zeros(len(inputs[0]), 1), None)
        memories = memories + torch.tensor([1.0, 2.0])
        return action, {"env_action": action.to_action_tuple(clip=False)}, memories


class Runners(VectorEnv):
    """Episodes of agent i have 1, 2, ... 7 steps, starting from another length for every agent."""

    def __init__(self, num_areas=1):
        super().__init__("Runner", SPEC, 3 * num_areas)
        self.age = np.zeros(self.n_agents)
        self.length = 1 + np.arange(self.n_agents) % 7

    def reset_agents(self, indices):
        self.age[indices] = 0
        self.length[indices] = 1 + self.length[indices] % 7
        return [self.age[indices, None]]

    def step_agents(self, actions):
        self.age += 1
        ended = self.age >= self.length
        return [self.age[:, None]], np.ones(self.n_agents), ended, np.zeros(self.n_agents, dtype=bool)


class Visitors(BaseEnv):
    """Agents come under ever new ids, now and then ask for no decision, and leave or start again after an episode."""

    behavior_specs = BehaviorMapping({"Visitor?team=0": SPEC})

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)
        self.n_ids = 0

    def reset(self):
        self.counts, self.waiting, self.ended = {}, [], []
        self._admit()

    def _admit(self):
        """Let agents in; the newest is the first in line."""
        for _ in range(self.rng.integers(1, 3)):
            self.counts[self.n_ids] = 0
            self.waiting.insert(0, self.n_ids)
            self.n_ids += 1

    def step(self):
        for agent in self.waiting:
            self.counts[agent] += 1
        self.ended = [(agent, count) for agent, count in self.counts.items() if count and self.rng.random() < 0.2]
        for agent, _ in self.ended:
            self.counts[agent] = 0
            if self.rng.random() < 0.5:
                del self.counts[agent]
        self.waiting = [agent for agent in self.counts if self.rng.random() < 0.7]
        if len(self.counts) < 6:
            self._admit()

    def get_steps(self, behavior_name):
        obs, agent_id, zeros = self._columns([(agent, self.counts[agent]) for agent in self.waiting])
        decisions = DecisionSteps([obs], zeros, agent_id, None, zeros.astype(np.int32), zeros)
        obs, agent_id, zeros = self._columns(self.ended)
        return decisions, TerminalSteps([obs], zeros, zeros > 0, agent_id, zeros.astype(np.int32), zeros)

    def _columns(self, agents):
        agent_id, counts = np.array(agents, dtype=np.int32).reshape(-1, 2).T
        return counts[:, None].astype(np.float32), agent_id, np.zeros(len(agents), dtype=np.float32)

    def set_actions(self, behavior_name, action):
        SPEC.action_spec.check(action, len(self.waiting), behavior_name)

    def set_action_for_agent(self, behavior_name, agent_id, action):
        raise NotImplementedError

    def close(self):
        pass


class SeveralWorkers(EnvManager):
    """Workers in this process, of which some are ready at a time; their agents have the same ids.

    :param loss_rate: how often, per step, a worker is lost and begins anew.
    """

    def __init__(self, envs, loss_rate=0.0):
        super().__init__()
        self.envs = envs
        self.last = {}
        self.loss_rate = loss_rate
        self.chance = np.random.default_rng(1)

    def _reset_env(self, config=None):
        for env in self.envs:
            env.reset()
        return [self._observe(worker_id, {}) for worker_id in range(len(self.envs))]

    def _step(self):
        ready = self.chance.permutation(len(self.envs))[: self.chance.integers(1, len(self.envs) + 1)].tolist()
        all_decisions = self._decide([self.last[worker_id] for worker_id in ready])
        return [self._step_worker(worker_id, decisions) for worker_id, decisions in zip(ready, all_decisions)]

    def _step_worker(self, worker_id, decisions):
        env = self.envs[worker_id]
        if self.chance.random() < self.loss_rate:
            self._lose_worker(worker_id)
            env.reset()
            return self._observe(worker_id, {})
        for name, decision in decisions.items():
            if len(decision.agent_ids):
                env.set_actions(name, decision.env_action)
        env.step()
        return self._observe(worker_id, decisions)

    def _observe(self, worker_id, decisions):
        env = self.envs[worker_id]
        results = {name: env.get_steps(name) for name in env.behavior_specs}
        self.last[worker_id] = EnvironmentStep(results, worker_id, decisions, {})
        return self.last[worker_id]

    @property
    def training_behaviors(self):
        return dict(self.envs[0].behavior_specs)

    def set_env_parameters(self, config=None):
        pass

    def close(self):
        pass


def one_worker(env):
    return SimpleEnvManager(env, EnvironmentParametersChannel())


MANAGERS = {
    "agents that restart": lambda: one_worker(Runners()),
    "several areas": lambda: one_worker(Runners(num_areas=6)),
    "agents that come and go": lambda: one_worker(Visitors(seed=2)),
    "workers with agents that restart": lambda: SeveralWorkers([Runners(), Runners(num_areas=2), Runners()]),
    "workers with agents that come and go": lambda: SeveralWorkers([Visitors(seed) for seed in range(3)]),
    "workers that are lost": lambda: SeveralWorkers([Runners(), Runners(num_areas=2), Runners()], loss_rate=0.05),
    "workers that are lost with agents that come and go": lambda: SeveralWorkers(
        [Visitors(seed) for seed in range(3)], loss_rate=0.05
    ),
}


@pytest.mark.parametrize("make_manager", MANAGERS.values(), ids=MANAGERS.keys())
def test_a_trajectory_holds_what_its_agent_remembered_at_each_step(make_manager):
    manager = make_manager()
    manager.reset()
    (name,) = manager.training_behaviors
    settings = NetworkSettings(memory=NetworkSettings.MemorySettings(memory_size=2))
    agent_manager = AgentManager(SPEC, name, StatsReporter("Memories"), max_trajectory_length=3)
    manager.set_policy(name, TorchPolicy(0, SPEC, settings, Counter, {}))
    manager.set_agent_manager(name, agent_manager)
    for step in range(300):
        if step % 31 == 30:
            manager.reset()
        manager.process_steps(manager.get_steps())
    queue = agent_manager.trajectory_queue
    collected = [queue.get_nowait() for _ in range(queue.qsize())]
    trajectories = [item for item in collected if not isinstance(item, LostAgents)]
    assert (len(collected) - len(trajectories) > 20) == (getattr(manager, "loss_rate", 0) > 0)
    for trajectory in trajectories:
        n_decisions = trajectory.columns.obs[0]
        np.testing.assert_array_equal(n_decisions, n_decisions[0] + np.arange(len(trajectory))[:, None])
        np.testing.assert_array_equal(trajectory.columns.memory, n_decisions * [1, 2])
        assert trajectory.next_obs[0] == n_decisions[-1] + 1
    # There were episodes that began and ended, and some that went on beyond the horizon.
    beginnings = [int(trajectory.columns.obs[0][0, 0]) for trajectory in trajectories]
    assert min(beginnings.count(count) for count in (0, 3)) > 20
    assert 20 < sum(trajectory.done_reached for trajectory in trajectories) < len(trajectories) - 20
