"""A trainer that learns from a replay buffer, as plug-ins for ML-Agents 1.1.0 are written."""

from typing import Dict, cast

import attr
import numpy as np

from mlagents.torch_utils import default_device, nn, torch
from mlagents.trainers.buffer import AgentBuffer, BufferKey, RewardSignalUtil
from mlagents.trainers.optimizer.torch_optimizer import TorchOptimizer
from mlagents.trainers.policy.torch_policy import TorchPolicy
from mlagents.trainers.settings import OffPolicyHyperparamSettings, ScheduleType, TrainerSettings
from mlagents.trainers.torch_entities.agent_action import AgentAction
from mlagents.trainers.torch_entities.networks import Actor, Critic, ValueNetwork
from mlagents.trainers.torch_entities.utils import ModelUtils
from mlagents.trainers.trainer.off_policy_trainer import OffPolicyTrainer
from mlagents.trainers.trajectory import ObsUtil, Trajectory
from mlagents_envs.timers import timed


@attr.s(auto_attribs=True)
class QSettings(OffPolicyHyperparamSettings):
    gamma: float = 0.99
    epsilon_schedule: ScheduleType = ScheduleType.LINEAR
    epsilon_start: float = 0.5
    epsilon_end: float = 0.05
    tau: float = 0.05
    reward_signal_steps_per_update: float = attr.ib()

    @reward_signal_steps_per_update.default
    def _reward_signal_steps_per_update_default(self):
        return self.steps_per_update


class QNetwork(nn.Module, Actor, Critic):
    MODEL_EXPORT_VERSION = 3

    def __init__(self, stream_names, observation_specs, network_settings, action_spec, epsilon_start=1.0):
        nn.Module.__init__(self)
        self.epsilon = epsilon_start
        self.action_spec = action_spec
        n_actions = int(sum(action_spec.discrete_branches))
        self.version_number = nn.Parameter(torch.Tensor([self.MODEL_EXPORT_VERSION]), requires_grad=False)
        self.discrete_act_size_vector = nn.Parameter(
            torch.Tensor([list(action_spec.discrete_branches)]), requires_grad=False
        )
        self.memory_size_vector = nn.Parameter(torch.Tensor([0]), requires_grad=False)
        self.values = ValueNetwork(stream_names, observation_specs, network_settings, outputs_per_stream=n_actions)

    def update_normalization(self, buffer):
        self.values.update_normalization(buffer)

    def critic_pass(self, inputs, memories=None, sequence_length=1):
        outputs, memories = self.values(inputs, memories=memories, sequence_length=sequence_length)
        return {name: value.max(dim=1).values for name, value in outputs.items()}, memories

    @property
    def memory_size(self):
        return self.values.memory_size

    def q_values(self, inputs):
        outputs, _ = self.values(inputs)
        return sum(outputs.values())

    def get_action_and_stats(self, inputs, masks=None, memories=None, sequence_length=1):
        run_out = {}
        best = self.q_values(inputs).argmax(dim=1, keepdim=True)
        at_random = torch.randint_like(best, self.action_spec.discrete_branches[0])
        explores = torch.rand(best.shape) < self.epsilon
        action_out = AgentAction(None, [torch.where(explores, at_random, best)])
        run_out["env_action"] = action_out.to_action_tuple()
        return action_out, run_out, torch.Tensor([])

    def forward(self, inputs, masks=None, memories=None):
        best = self.q_values(inputs).argmax(dim=1, keepdim=True)
        return self.version_number, self.memory_size_vector, best, self.discrete_act_size_vector, best


class QOptimizer(TorchOptimizer):
    def __init__(self, policy: TorchPolicy, trainer_settings: TrainerSettings):
        super().__init__(policy, trainer_settings)
        self.hyperparameters = cast(QSettings, trainer_settings.hyperparameters)
        self.q_network = self.policy.actor
        self.target = QNetwork(
            stream_names=self.reward_signals.keys(),
            observation_specs=self.policy.behavior_spec.observation_specs,
            network_settings=policy.network_settings,
            action_spec=self.policy.behavior_spec.action_spec,
        )
        self.target.to(default_device())
        ModelUtils.soft_update(self.q_network, self.target, 1.0)
        self.optimizer = torch.optim.Adam(list(self.q_network.parameters()), lr=self.hyperparameters.learning_rate)
        self.decay_epsilon = ModelUtils.DecayedValue(
            self.hyperparameters.epsilon_schedule,
            self.hyperparameters.epsilon_start,
            self.hyperparameters.epsilon_end,
            trainer_settings.max_steps,
        )

    @property
    def critic(self):
        return self.q_network

    @timed
    def update(self, batch: AgentBuffer, num_sequences: int) -> Dict[str, float]:
        epsilon = self.decay_epsilon.get_value(self.policy.get_current_step())
        self.q_network.epsilon = epsilon
        rewards = sum(
            ModelUtils.list_to_tensor(batch[RewardSignalUtil.rewards_key(name)]) for name in self.reward_signals
        )
        n_obs = len(self.policy.behavior_spec.observation_specs)
        current_obs = [ModelUtils.list_to_tensor(obs) for obs in ObsUtil.from_buffer(batch, n_obs)]
        next_obs = [ModelUtils.list_to_tensor(obs) for obs in ObsUtil.from_buffer_next(batch, n_obs)]
        actions = AgentAction.from_buffer(batch)
        dones = ModelUtils.list_to_tensor(batch[BufferKey.DONE])
        with torch.no_grad():
            best_next = self.q_network.q_values(next_obs).argmax(dim=1, keepdim=True)
            next_values = self.target.q_values(next_obs).gather(1, best_next).squeeze(1)
            targets = rewards + (1.0 - dones) * self.hyperparameters.gamma * next_values
        chosen = self.q_network.q_values(current_obs).gather(1, actions.discrete_tensor.long()).squeeze(1)
        loss = torch.nn.functional.smooth_l1_loss(chosen, targets)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        ModelUtils.soft_update(self.q_network, self.target, self.hyperparameters.tau)
        return {"Losses/Value Loss": loss.item(), "Policy/Exploration": epsilon}

    def get_modules(self):
        modules = {"Optimizer:value_optimizer": self.optimizer, "Optimizer:critic": self.target}
        for reward_provider in self.reward_signals.values():
            modules.update(reward_provider.get_modules())
        return modules


class QTrainer(OffPolicyTrainer):
    def __init__(self, behavior_name, reward_buff_cap, trainer_settings, training, load, seed, artifact_path):
        super().__init__(behavior_name, reward_buff_cap, trainer_settings, training, load, seed, artifact_path)
        self.policy: TorchPolicy = None
        self.optimizer: QOptimizer = None

    def _process_trajectory(self, trajectory: Trajectory) -> None:
        super()._process_trajectory(trajectory)
        last_step = trajectory.steps[-1]
        agent_id = trajectory.agent_id
        agent_buffer_trajectory = trajectory.to_agentbuffer()
        self._warn_if_group_reward(agent_buffer_trajectory)
        if self.is_training:
            self.policy.actor.update_normalization(agent_buffer_trajectory)

        self.collected_rewards["environment"][agent_id] += np.sum(
            agent_buffer_trajectory[BufferKey.ENVIRONMENT_REWARDS]
        )
        for name, reward_signal in self.optimizer.reward_signals.items():
            evaluate_result = reward_signal.evaluate(agent_buffer_trajectory) * reward_signal.strength
            self.collected_rewards[name][agent_id] += np.sum(evaluate_result)

        value_estimates, _, _ = self.optimizer.get_trajectory_value_estimates(
            agent_buffer_trajectory, trajectory.next_obs, trajectory.done_reached and not trajectory.interrupted
        )
        for name, v in value_estimates.items():
            self._stats_reporter.add_stat(
                f"Policy/{self.optimizer.reward_signals[name].name.capitalize()} Value", np.mean(v)
            )

        if last_step.interrupted:
            for i, obs in enumerate(last_step.obs):
                agent_buffer_trajectory[ObsUtil.get_name_at_next(i)][-1] = obs
            agent_buffer_trajectory[BufferKey.DONE][-1] = False
        self._append_to_update_buffer(agent_buffer_trajectory)
        if trajectory.done_reached:
            self._update_end_episode_stats(agent_id, self.optimizer)

    def create_policy(self, parsed_behavior_id, behavior_spec) -> TorchPolicy:
        epsilon_start = self.trainer_settings.hyperparameters.epsilon_start
        actor_kwargs = {
            "epsilon_start": epsilon_start,
            "stream_names": [signal.value for signal in self.trainer_settings.reward_signals],
        }
        policy = TorchPolicy(self.seed, behavior_spec, self.trainer_settings.network_settings, QNetwork, actor_kwargs)
        self.maybe_load_replay_buffer()
        return policy

    def create_optimizer(self) -> QOptimizer:
        return QOptimizer(cast(TorchPolicy, self.policy), self.trainer_settings)

    @staticmethod
    def get_settings_type():
        return QSettings

    @staticmethod
    def get_trainer_name() -> str:
        return "old_off_policy"


def get_type_and_setting():
    return {QTrainer.get_trainer_name(): QTrainer}, {QTrainer.get_trainer_name(): QSettings}
