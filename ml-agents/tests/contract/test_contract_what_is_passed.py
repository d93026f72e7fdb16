"""What the framework passes to the objects of plug-ins: this, in this form, and no more.

Each stand-in accepts exactly what the contract names; any other keyword would be a TypeError.
"""

import numpy as np
import pytest
import torch

from mlagents.torch_utils import nn
from mlagents.trainers.buffer import AgentBuffer
from mlagents.trainers.optimizer.torch_optimizer import TorchOptimizer
from mlagents.trainers.policy.torch_policy import TorchPolicy
from mlagents.trainers.ppo.optimizer_torch import TorchPPOOptimizer
from mlagents.trainers.ppo.trainer import PPOSettings, PPOTrainer
from mlagents.trainers.settings import NetworkSettings
from mlagents.trainers.torch_entities.action_log_probs import ActionLogProbs
from mlagents.trainers.torch_entities.agent_action import AgentAction
from mlagents.trainers.torch_entities.components.reward_providers import BaseRewardProvider
from mlagents.trainers.torch_entities.model_serialization import ModelSerializer
from mlagents.trainers.torch_entities.networks import SimpleActor
from mlagents_envs.base_env import DecisionSteps

M = 6


class Recorder(nn.Module):
    """An actor and critic in one that notes what it is given, and takes nothing but that."""

    memory_size = M

    def __init__(self, *, observation_specs, network_settings, action_spec):
        super().__init__()
        self.made_with = (observation_specs, network_settings, action_spec)
        self.weight = nn.Parameter(torch.ones(1))
        self.calls = []

    def get_action_and_stats(self, obs_list, *, masks, memories):
        self.calls.append(("get_action_and_stats", obs_list, masks, memories))
        rows = len(obs_list[0])
        action = AgentAction(torch.zeros(rows, 1), [torch.zeros(rows, 1, dtype=torch.long)] * 2)
        return action, {"env_action": action.to_action_tuple()}, memories

    def get_stats(self, obs, actions, *, masks, memories, sequence_length):
        self.calls.append(("get_stats", obs, actions, masks, memories, sequence_length))
        rows = len(obs[0])
        taken = [self.weight.expand(rows)] * 2
        return {
            "log_probs": ActionLogProbs(self.weight.expand(rows, 1), taken, None),
            "entropy": self.weight.expand(rows),
        }

    def critic_pass(self, obs, *, memories, sequence_length):
        self.calls.append(("critic_pass", obs, memories, sequence_length))
        return {"extrinsic": self.weight * obs[0][:, 0]}, memories

    def update_normalization(self, buffer, /):
        self.calls.append(("update_normalization", buffer))

    def forward(self, obs_list, masks, memories, /):
        self.calls.append(("forward", obs_list, masks, memories))
        rows = self.weight * torch.cat(obs_list, dim=1)
        chosen = rows[:, :2].long()
        return (
            self.weight,
            self.weight,
            rows[:, :1],
            self.weight,
            rows[:, :1],
            chosen,
            self.weight,
            chosen,
            memories + 1,
        )

    def of(self, name):
        return [call[1:] for call in self.calls if call[0] == name]


class RecordingTrainer(PPOTrainer):
    """PPO, whose actor and critic are the plug-in's."""

    def create_policy(self, parsed_behavior_id, behavior_spec):
        return TorchPolicy(self.seed, behavior_spec, self.trainer_settings.network_settings, Recorder, {})


@pytest.fixture(params=[False, True], ids=["", "memory"])
def trainer(request, make_trainer):
    """A trainer whose network is a `Recorder`, without memory or with sequences of 4."""
    memory = NetworkSettings.MemorySettings(sequence_length=4, memory_size=M) if request.param else None
    return make_trainer(RecordingTrainer, PPOSettings(batch_size=4, buffer_size=8, shared_critic=True), memory=memory)


@pytest.fixture
def remembers(trainer):
    return trainer.policy.use_recurrent


@pytest.fixture
def lived(make_trajectory, remembers):
    return make_trajectory(10, memory_size=M if remembers else 0)


def assert_tensors(tensors, *shapes):
    assert isinstance(tensors, list)
    assert [(tuple(tensor.shape), tensor.dtype) for tensor in tensors] == [(shape, torch.float32) for shape in shapes]


def test_an_actors_constructor(trainer, spec):
    settings = trainer.trainer_settings
    assert trainer.policy.actor.made_with == (spec.observation_specs, settings.network_settings, spec.action_spec)


def test_get_action_and_stats(trainer, spec, remembers):
    steps = DecisionSteps.empty(spec)
    steps.obs = [np.zeros((3, 2), dtype=np.float32), np.zeros((3, 3), dtype=np.float32)]
    steps.agent_id = np.arange(3, dtype=np.int32)
    steps.action_mask = [np.zeros((3, 3), dtype=bool), np.array([[True, False]] * 3)]
    trainer.policy.get_action(steps)
    ((obs, masks, memories),) = trainer.policy.actor.of("get_action_and_stats")
    assert_tensors(obs, (3, 2), (3, 3))
    np.testing.assert_array_equal(masks, [[1, 1, 1, 0, 1]] * 3)  # flat over branches, 1 = allowed
    assert memories is None if not remembers else memories.shape == (1, 3, M)


def test_forward(trainer, remembers, tmp_path):
    if not remembers:
        trainer.policy.m_size = 0
    ModelSerializer(trainer.policy).export_policy_model(str(tmp_path / "model.onnx"))
    obs, masks, memories = trainer.policy.actor.of("forward")[0]
    assert_tensors(obs, (1, 2), (1, 3))
    assert masks.shape == (1, 5)
    assert memories.shape == (1, 1, M if remembers else 0)


def test_critic_pass_and_update_normalization_for_a_trajectory(trainer, lived, remembers):
    trainer._process_trajectory(lived)
    trainer._prepare_update()
    actor = trainer.policy.actor
    (((buffer,)),) = actor.of("update_normalization")  # once, though it is actor and critic
    assert isinstance(buffer, AgentBuffer)
    passes = actor.of("critic_pass")
    assert sum(len(obs[0]) for obs, _, _ in passes) == len(lived) + 1
    for obs, memories, sequence_length in passes:
        rows = len(obs[0])
        assert_tensors(obs, (rows, 2), (rows, 3))
        assert sequence_length == rows
        assert memories is None if not remembers else memories.shape == (1, 1, M)


def test_get_stats_and_critic_pass_for_a_minibatch(trainer, lived, remembers):
    trainer._process_trajectory(lived)
    trainer._prepare_update()
    actor = trainer.policy.actor
    actor.calls.clear()
    trainer._update_policy()
    stats, passes = actor.of("get_stats"), actor.of("critic_pass")
    assert len(stats) == len(passes) > 0
    for obs, actions, masks, memories, sequence_length in stats:
        assert_tensors(obs, (4, 2), (4, 3))
        assert isinstance(actions, AgentAction)
        assert actions.continuous_tensor.shape == (4, 1)
        assert [choice.shape for choice in actions.discrete_list] == [(4,), (4,)]
        assert masks.shape == (4, 5)
        assert memories is None if not remembers else memories.shape == (1, 1, M)
        assert sequence_length == (4 if remembers else 1)
    for obs, memories, sequence_length in passes:
        assert_tensors(obs, (4, 2), (4, 3))
        assert memories is None if not remembers else memories.shape == (1, 1, M)
        assert sequence_length == (4 if remembers else 1)


def test_the_optimizers_methods(make_trainer, make_trajectory):
    calls = []

    class Optimizer(TorchPPOOptimizer):
        def update(self, batch, n_sequences, /):
            calls.append(("update", batch, n_sequences))
            return super().update(batch, n_sequences)

        def get_trajectory_value_estimates(self, buffer, next_obs, done, /):
            calls.append(("values", buffer, next_obs, done))
            return super().get_trajectory_value_estimates(buffer, next_obs, done)

        def update_reward_signals(self, batch, /):
            calls.append(("signals", batch))
            return super().update_reward_signals(batch)

    class Trainer(PPOTrainer):
        optimizer_class = Optimizer

    trainer = make_trainer(Trainer)
    trajectories = [make_trajectory(5), make_trajectory(4, done=True), make_trajectory(4, interrupted=True)]
    for lived in trajectories:
        trainer._process_trajectory(lived)
    trainer._prepare_update()
    values = [call[1:] for call in calls]
    for (buffer, next_obs, done), lived, expected in zip(values, trajectories, (False, True, False), strict=True):
        assert isinstance(buffer, AgentBuffer)
        assert buffer.agent_id == lived.agent_id
        assert [seen.shape for seen in next_obs] == [(2,), (3,)]
        assert done is expected
    calls.clear()
    trainer._update_policy()
    n_minibatches = 3 * trainer.hyperparameters.num_epoch
    assert [call[0] for call in calls] == ["update", "signals"] * n_minibatches
    assert all(call[1].num_experiences == call[2] == 4 for call in calls if call[0] == "update")


def test_what_get_trajectory_value_estimates_returns(trainer, lived, remembers):
    buffer = lived.to_agentbuffer()
    values, next_values, memories = trainer.optimizer.get_trajectory_value_estimates(buffer, lived.next_obs, False)
    np.testing.assert_allclose(values["extrinsic"], [step.obs[0][0] for step in lived.steps], rtol=1e-6)
    assert isinstance(values["extrinsic"], np.ndarray)
    assert type(next_values["extrinsic"]) is float
    assert next_values["extrinsic"] == pytest.approx(lived.next_obs[0][0])
    assert (memories is not None) == remembers
    _, at_the_end, _ = trainer.optimizer.get_trajectory_value_estimates(buffer, lived.next_obs, True)
    assert at_the_end["extrinsic"] == 0.0


def test_a_policys_evaluate(spec):
    """Subclasses override it, with the agents' ids as 1.1.0 passed them."""
    seen = []

    class Policy(TorchPolicy):
        def evaluate(self, decision_requests, global_agent_ids, /):
            seen.append(list(global_agent_ids))
            return super().evaluate(decision_requests, global_agent_ids)

    for memory in (None, NetworkSettings.MemorySettings(sequence_length=4, memory_size=M)):
        policy = Policy(0, spec, NetworkSettings(memory=memory), SimpleActor, {})
        steps = DecisionSteps.empty(spec)
        steps.obs = [np.zeros((2, 2), dtype=np.float32), np.zeros((2, 3), dtype=np.float32)]
        steps.agent_id = np.array([4, 7], dtype=np.int32)
        policy.get_action(steps, worker_id=3)
    assert seen == [["agent_3-4", "agent_3-7"]] * 2


def test_a_reward_providers_methods(make_trainer, make_trajectory):
    calls = []

    class Provider(BaseRewardProvider):
        def evaluate(self, mini_batch, /):
            calls.append("evaluate")
            return np.full(mini_batch.num_experiences, 2.0, dtype=np.float32)

        def update(self, mini_batch, /):
            calls.append("update")
            return {"Losses/Own": 0.5}

    class Optimizer(TorchPPOOptimizer):
        def create_reward_signals(self, reward_signal_configs, /):
            for key, settings in reward_signal_configs.items():
                self.reward_signals[key.value] = Provider(self.policy.behavior_spec, settings)

    class Trainer(PPOTrainer):
        optimizer_class = Optimizer

    trainer = make_trainer(Trainer)
    trainer._process_trajectory(make_trajectory(9, done=True))
    assert trainer.stats_reporter.get_stats_summaries("Policy/Provider Reward").mean == 18.0
    assert calls == ["evaluate"]
    trainer._update_policy()
    assert set(calls[1:]) == {"update"}
    assert trainer.stats_reporter.get_stats_summaries("Losses/Own").mean == 0.5


def test_an_optimizer_need_not_have_more_than_the_base(make_trainer, make_trajectory):
    """The base's own methods are all that is called of one that defines critic, update and get_modules."""

    class Optimizer(TorchOptimizer):
        def __init__(self, policy, trainer_settings):
            super().__init__(policy, trainer_settings)
            self.network = nn.Linear(2, 1)

        @property
        def critic(self):
            return self.policy.actor

        def update(self, batch, num_sequences):
            return {"Losses/Own": 1.0}

        def get_modules(self):
            return {"own": self.network}

    class Trainer(RecordingTrainer):
        optimizer_class = Optimizer

    trainer = make_trainer(Trainer, PPOSettings(batch_size=4, buffer_size=8, shared_critic=True))
    trainer._process_trajectory(make_trajectory(9, done=True))
    trainer._update_policy()
    trainer.save_model()
    assert trainer.stats_reporter.get_stats_summaries("Losses/Own").mean == 1.0
    resumed = make_trainer(Trainer, PPOSettings(batch_size=4, buffer_size=8, shared_critic=True), load=True)
    assert torch.equal(resumed.optimizer.network.weight, trainer.optimizer.network.weight)
