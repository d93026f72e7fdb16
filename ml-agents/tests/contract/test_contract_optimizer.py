"""Optimizers: what plug-ins read, define and call."""

import inspect

import numpy as np
import pytest
import torch

from mlagents import torch_utils
from mlagents.torch_utils import default_device
from mlagents.trainers.buffer import BufferKey, ObservationKeyPrefix, RewardSignalUtil
from mlagents.trainers.optimizer.torch_optimizer import TorchOptimizer
from mlagents.trainers.ppo.trainer import PPOTrainer
from mlagents.trainers.settings import NetworkSettings, ScheduleType
from mlagents.trainers.torch_entities.action_log_probs import ActionLogProbs
from mlagents.trainers.torch_entities.agent_action import AgentAction
from mlagents.trainers.torch_entities.networks import ValueNetwork
from mlagents.trainers.torch_entities.utils import ModelUtils
from mlagents.trainers.trajectory import ObsUtil
from mlagents_envs import timers
from mlagents_envs.timers import timed


class WithAttribute(TorchOptimizer):
    def __init__(self, policy, trainer_settings):
        super().__init__(policy, trainer_settings)
        specs = policy.behavior_spec.observation_specs
        self.critic = ValueNetwork(list(self.reward_signals), specs, policy.network_settings)


class WithProperty(TorchOptimizer):
    def __init__(self, policy, trainer_settings):
        super().__init__(policy, trainer_settings)
        specs = policy.behavior_spec.observation_specs
        self._critic = ValueNetwork(list(self.reward_signals), specs, policy.network_settings)

    @property
    def critic(self):
        return self._critic


@pytest.mark.parametrize("optimizer_class", [WithAttribute, WithProperty])
def test_a_critic_is_an_attribute_or_a_property(make_trainer, make_trajectory, optimizer_class):
    trainer = make_trainer()
    optimizer = optimizer_class(trainer.policy, trainer.trainer_settings)
    assert isinstance(optimizer.critic, ValueNetwork)
    lived = make_trajectory(3)
    values, _, _ = optimizer.get_trajectory_value_estimates(lived.to_agentbuffer(), lived.next_obs, False)
    assert values["extrinsic"].shape == (3,)


def test_what_is_read(make_trainer):
    trainer = make_trainer()
    optimizer = trainer.optimizer
    assert optimizer.policy is trainer.policy
    assert optimizer.trainer_settings is trainer.trainer_settings
    assert optimizer.critic_memory_dict == {}
    assert list(optimizer.reward_signals) == ["extrinsic"]
    assert list(inspect.signature(optimizer.update).parameters) == ["batch", "num_sequences"]
    assert all(hasattr(module, "state_dict") for module in optimizer.get_modules().values())


def test_a_reward_signal(make_trainer, make_trajectory):
    signal = make_trainer().optimizer.reward_signals["extrinsic"]
    assert (signal.name, signal.gamma, signal.strength, signal.ignore_done) == ("Extrinsic", 0.99, 1.0, False)
    lived = make_trajectory(4)
    buffer = lived.to_agentbuffer()
    np.testing.assert_allclose(signal.evaluate(buffer), [step.reward for step in lived.steps], rtol=1e-6)
    assert signal.update(buffer) == {}
    assert signal.get_modules() == {}


def test_a_signal_that_ignores_the_end_is_worth_something_after_it(make_trainer, make_trajectory):
    trainer = make_trainer()
    lived = make_trajectory(3, done=True)
    estimate = trainer.optimizer.get_trajectory_value_estimates
    assert estimate(lived.to_agentbuffer(), lived.next_obs, True)[1] == {"extrinsic": 0.0}
    trainer.optimizer.reward_signals["extrinsic"]._ignore_done = True
    assert estimate(lived.to_agentbuffer(), lived.next_obs, True)[1]["extrinsic"] != 0.0


def test_the_critics_memory_of_an_agent_needs_no_id_from_the_trainer(make_trainer, make_trajectory):
    memory = NetworkSettings.MemorySettings(sequence_length=4, memory_size=6)
    optimizer = make_trainer(memory=memory).optimizer
    for agent_id in ("agent_0-1", "agent_0-2"):
        lived = make_trajectory(5, agent_id=agent_id, memory_size=6)
        optimizer.get_trajectory_value_estimates(lived.to_agentbuffer(), lived.next_obs, False)
    assert set(optimizer.critic_memory_dict) == {"agent_0-1", "agent_0-2"}
    one, other = optimizer.critic_memory_dict.values()
    assert one.shape == other.shape == (1, 1, 6)
    assert not torch.equal(one, other)


def test_a_critic_memory_of_size_0_with_a_recurrent_policy(make_trainer, make_trajectory):
    class Critic(torch.nn.Module):
        memory_size = 0

        def critic_pass(self, obs, memories=None, sequence_length=1):
            return {"extrinsic": obs[0][:, 0]}, memories

        def update_normalization(self, buffer):
            pass

    class Optimizer(WithProperty):
        def __init__(self, policy, trainer_settings):
            super().__init__(policy, trainer_settings)
            self._critic = Critic()

    class Trainer(PPOTrainer):
        optimizer_class = Optimizer

    trainer = make_trainer(Trainer)
    trainer.policy.use_recurrent, trainer.policy.m_size = True, 1
    for lived in (make_trajectory(5, memory_size=1), make_trajectory(3, memory_size=1)):
        buffer = lived.to_agentbuffer()
        values, _, memories = trainer.optimizer.get_trajectory_value_estimates(buffer, lived.next_obs, False)
        assert len(values["extrinsic"]) == len(lived.steps)
        buffer[BufferKey.CRITIC_MEMORY].set(memories)
        assert buffer[BufferKey.CRITIC_MEMORY].to_ndarray().shape == (len(lived.steps), 0)


class TestModelUtils:
    def test_decayed_values(self):
        linear = ModelUtils.DecayedValue(ScheduleType.LINEAR, 1.0, 0.2, 100)
        assert [linear.get_value(step) for step in (0, 50, 100, 200)] == pytest.approx([1.0, 0.6, 0.2, 0.2])
        constant = ModelUtils.DecayedValue(ScheduleType.CONSTANT, 1.0, 0.2, 100)
        assert constant.get_value(50) == 1.0

    def test_update_learning_rate(self):
        optimizer = torch.optim.Adam([{"params": [torch.zeros(1)]}, {"params": [torch.ones(1)]}], lr=0.1)
        ModelUtils.update_learning_rate(optimizer, 0.025)
        assert [group["lr"] for group in optimizer.param_groups] == [0.025, 0.025]

    def test_list_to_tensor(self):
        assert ModelUtils.list_to_tensor([np.zeros(2), np.ones(2)]).tolist() == [[0.0, 0.0], [1.0, 1.0]]
        assert ModelUtils.list_to_tensor([1.0, 0.0, 1.0], dtype=torch.bool).tolist() == [True, False, True]
        assert ModelUtils.list_to_tensor(np.array([3]), dtype=torch.long).dtype is torch.int64

    def test_soft_update(self):
        source, target = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)
        for network, value in ((source, 1.0), (target, 3.0)):
            torch.nn.init.constant_(network.weight, value)
        ModelUtils.soft_update(source, target, 0.25)
        assert target.weight.item() == pytest.approx(2.5)
        ModelUtils.soft_update(source, target, 1.0)
        assert torch.equal(source.weight, target.weight)
        assert source.weight.item() == 1.0

    @pytest.mark.parametrize("dtype", [torch.bool, torch.float32])
    def test_masked_mean(self, dtype):
        values, masks = torch.tensor([1.0, 2.0, 30.0]), torch.tensor([1, 1, 0], dtype=dtype)
        assert ModelUtils.masked_mean(values, masks).item() == pytest.approx(1.5)

    def test_trust_region_value_loss(self):
        """V = 3, old 1, clipped to 1.2, R = 2: the larger of 1 and 0.64; V = 1, old 1, R = 0: 1. The mean is 1."""
        values, old_values = {"extrinsic": torch.tensor([3.0, 1.0])}, {"extrinsic": torch.tensor([1.0, 1.0])}
        returns = {"extrinsic": torch.tensor([2.0, 0.0])}
        masks = torch.ones(2, dtype=torch.bool)
        assert ModelUtils.trust_region_value_loss(values, old_values, returns, 0.2, masks).item() == pytest.approx(1.0)

    def test_trust_region_policy_loss_takes_tensors_and_action_log_probs(self):
        """The worked example is `test_the_ratio_is_per_action_dimension`'s."""
        advantages, masks = torch.tensor([1.0, -1.0]), torch.ones(2, dtype=torch.bool)
        new, old = torch.log(torch.tensor([[2.0, 0.5], [2.0, 0.5]])), torch.zeros(2, 2)
        as_log_probs = [ActionLogProbs(log[:, :1], [log[:, 1]], None) for log in (new, old)]
        for pair in ((new, old), as_log_probs, (as_log_probs[0], old)):
            loss = ModelUtils.trust_region_policy_loss(advantages, *pair, masks, 0.2)
            assert loss.item() == pytest.approx(0.275)


def test_what_is_read_from_a_minibatch(make_trainer, make_trajectory):
    lived = make_trajectory(4)
    batch = lived.to_agentbuffer()
    actions = AgentAction.from_buffer(batch)
    np.testing.assert_array_equal(actions.discrete_tensor[2], lived.steps[2].action.discrete.ravel())
    log_probs = ActionLogProbs.from_buffer(batch).flatten()
    expected = np.append(lived.steps[1].action_probs.continuous, lived.steps[1].action_probs.discrete)
    np.testing.assert_allclose(log_probs[1], expected, rtol=1e-6)
    now, then = ObsUtil.from_buffer(batch, 2), ObsUtil.from_buffer_next(batch, 2)
    assert [seen.shape for seen in now] == [seen.shape for seen in then] == [(4, 2), (4, 3)]
    np.testing.assert_array_equal(now[1][1:], then[1][:-1])
    np.testing.assert_array_equal(then[0][-1], lived.next_obs[0])
    assert (ObservationKeyPrefix.OBSERVATION, 1) in batch
    assert len(batch[RewardSignalUtil.returns_key("extrinsic")]) == 0


def test_torch_comes_from_torch_utils():
    assert torch_utils.torch is torch
    assert torch_utils.nn is torch.nn
    assert default_device() == torch.device("cpu") or torch.cuda.is_available()


def test_timed():
    class Optimizer:
        @timed
        def update(self, batch, num_sequences):
            return {"batch": batch, "n": num_sequences}

    timers.reset_timers()
    assert Optimizer().update([1], num_sequences=2) == {"batch": [1], "n": 2}
    assert any("update" in name for name in timers.get_timer_tree()["children"])
