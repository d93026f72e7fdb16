"""An on-policy trainer as plug-ins for ML-Agents 1.1.0 are written: everything by hand, buffers as lists."""

from typing import Any, Dict, Type, Union, cast

import attr
import numpy as np

from mlagents.torch_utils import default_device, torch
from mlagents.trainers.behavior_id_utils import BehaviorIdentifiers
from mlagents.trainers.buffer import AgentBuffer, BufferKey, RewardSignalUtil
from mlagents.trainers.exception import TrainerConfigError
from mlagents.trainers.optimizer.torch_optimizer import TorchOptimizer
from mlagents.trainers.policy.torch_policy import TorchPolicy
from mlagents.trainers.settings import OnPolicyHyperparamSettings, ScheduleType, TrainerSettings
from mlagents.trainers.torch_entities.action_log_probs import ActionLogProbs
from mlagents.trainers.torch_entities.agent_action import AgentAction
from mlagents.trainers.torch_entities.networks import SharedActorCritic, SimpleActor, ValueNetwork
from mlagents.trainers.torch_entities.utils import ModelUtils
from mlagents.trainers.trainer.on_policy_trainer import OnPolicyTrainer
from mlagents.trainers.trainer.trainer_utils import get_gae
from mlagents.trainers.trajectory import ObsUtil, Trajectory
from mlagents_envs.base_env import BehaviorSpec
from mlagents_envs.timers import timed


@attr.s(auto_attribs=True)
class OldSettings(OnPolicyHyperparamSettings):
    beta: float = 5.0e-3
    epsilon: float = attr.ib(default=0.2)
    lambd: float = 0.95
    num_epoch: int = 2
    shared_critic: bool = False
    learning_rate_schedule: ScheduleType = ScheduleType.LINEAR
    epsilon_end: float = attr.ib()

    @epsilon_end.default
    def _epsilon_end(self):
        return self.epsilon / 2

    @epsilon.validator
    def _check_epsilon(self, attribute, value):
        if value <= 0:
            raise TrainerConfigError(f"A trust region of {value} is no region at all.")


class OldOptimizer(TorchOptimizer):
    def __init__(self, policy: TorchPolicy, trainer_settings: TrainerSettings):
        super().__init__(policy, trainer_settings)
        self.hyperparameters = cast(OldSettings, trainer_settings.hyperparameters)
        names = list(self.reward_signals.keys())
        params = list(self.policy.actor.parameters())
        if self.hyperparameters.shared_critic:
            self._critic = policy.actor
        else:
            self._critic = ValueNetwork(
                names, policy.behavior_spec.observation_specs, network_settings=trainer_settings.network_settings
            )
            self._critic.to(default_device())
            params += list(self._critic.parameters())
        self.decay_learning_rate = ModelUtils.DecayedValue(
            self.hyperparameters.learning_rate_schedule,
            self.hyperparameters.learning_rate,
            1e-10,
            self.trainer_settings.max_steps,
        )
        self.decay_epsilon = ModelUtils.DecayedValue(
            ScheduleType.LINEAR,
            self.hyperparameters.epsilon,
            self.hyperparameters.epsilon_end,
            self.trainer_settings.max_steps,
        )
        self.optimizer = torch.optim.Adam(params, lr=self.hyperparameters.learning_rate)

    @property
    def critic(self):
        return self._critic

    @timed
    def update(self, batch: AgentBuffer, num_sequences: int) -> Dict[str, float]:
        learning_rate = self.decay_learning_rate.get_value(self.policy.get_current_step())
        epsilon = self.decay_epsilon.get_value(self.policy.get_current_step())
        returns, old_values = {}, {}
        for name in self.reward_signals:
            old_values[name] = ModelUtils.list_to_tensor(batch[RewardSignalUtil.value_estimates_key(name)])
            returns[name] = ModelUtils.list_to_tensor(batch[RewardSignalUtil.returns_key(name)])

        n_obs = len(self.policy.behavior_spec.observation_specs)
        current_obs = [ModelUtils.list_to_tensor(obs) for obs in ObsUtil.from_buffer(batch, n_obs)]
        act_masks = ModelUtils.list_to_tensor(batch[BufferKey.ACTION_MASK])
        actions = AgentAction.from_buffer(batch)

        memories = [
            ModelUtils.list_to_tensor(batch[BufferKey.MEMORY][i])
            for i in range(0, len(batch[BufferKey.MEMORY]), self.policy.sequence_length)
        ]
        if len(memories) > 0:
            memories = torch.stack(memories).unsqueeze(0)
        value_memories = [
            ModelUtils.list_to_tensor(batch[BufferKey.CRITIC_MEMORY][i])
            for i in range(0, len(batch[BufferKey.CRITIC_MEMORY]), self.policy.sequence_length)
        ]
        if len(value_memories) > 0:
            value_memories = torch.stack(value_memories).unsqueeze(0)

        run_out = self.policy.actor.get_stats(
            current_obs,
            actions,
            masks=act_masks,
            memories=memories,
            sequence_length=self.policy.sequence_length,
        )
        values, _ = self.critic.critic_pass(
            current_obs, memories=value_memories, sequence_length=self.policy.sequence_length
        )
        old_log_probs = ActionLogProbs.from_buffer(batch).flatten()
        loss_masks = ModelUtils.list_to_tensor(batch[BufferKey.MASKS], dtype=torch.bool)
        value_loss = ModelUtils.trust_region_value_loss(values, old_values, returns, epsilon, loss_masks)
        policy_loss = ModelUtils.trust_region_policy_loss(
            ModelUtils.list_to_tensor(batch[BufferKey.ADVANTAGES]),
            run_out["log_probs"].flatten(),
            old_log_probs,
            loss_masks,
            epsilon,
        )
        entropy = ModelUtils.masked_mean(run_out["entropy"], loss_masks)
        loss = policy_loss + 0.5 * value_loss - self.hyperparameters.beta * entropy

        ModelUtils.update_learning_rate(self.optimizer, learning_rate)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return {
            "Losses/Policy Loss": torch.abs(policy_loss).item(),
            "Losses/Value Loss": value_loss.item(),
            "Policy/Learning Rate": learning_rate,
            "Policy/Epsilon": epsilon,
        }

    def get_modules(self):
        modules = {"Optimizer:value_optimizer": self.optimizer, "Optimizer:critic": self._critic}
        for reward_provider in self.reward_signals.values():
            modules.update(reward_provider.get_modules())
        return modules


class OldTrainer(OnPolicyTrainer):
    def __init__(
        self,
        behavior_name: str,
        reward_buff_cap: int,
        trainer_settings: TrainerSettings,
        training: bool,
        load: bool,
        seed: int,
        artifact_path: str,
    ):
        super().__init__(
            behavior_name=behavior_name,
            reward_buff_cap=reward_buff_cap,
            trainer_settings=trainer_settings,
            training=training,
            load=load,
            seed=seed,
            artifact_path=artifact_path,
        )
        self.hyperparameters = cast(OldSettings, self.trainer_settings.hyperparameters)
        self.seed = seed
        self.behavior_name = behavior_name
        self.shared_critic = self.hyperparameters.shared_critic
        self.policy: TorchPolicy = None

    def create_policy(self, parsed_behavior_id: BehaviorIdentifiers, behavior_spec: BehaviorSpec) -> TorchPolicy:
        actor_cls: Union[Type[SimpleActor], Type[SharedActorCritic]] = SimpleActor
        actor_kwargs: Dict[str, Any] = {"conditional_sigma": False, "tanh_squash": False}
        if self.shared_critic:
            actor_cls = SharedActorCritic
            actor_kwargs["stream_names"] = [key.value for key, _ in self.trainer_settings.reward_signals.items()]
        return TorchPolicy(self.seed, behavior_spec, self.trainer_settings.network_settings, actor_cls, actor_kwargs)

    def create_optimizer(self) -> TorchOptimizer:
        return OldOptimizer(cast(TorchPolicy, self.policy), self.trainer_settings)

    def _process_trajectory(self, trajectory: Trajectory) -> None:
        super()._process_trajectory(trajectory)
        agent_id = trajectory.agent_id
        agent_buffer_trajectory = trajectory.to_agentbuffer()
        self._warn_if_group_reward(agent_buffer_trajectory)
        if self.is_training:
            self.policy.actor.update_normalization(agent_buffer_trajectory)
            self.optimizer.critic.update_normalization(agent_buffer_trajectory)

        value_estimates, value_next, value_memories = self.optimizer.get_trajectory_value_estimates(
            agent_buffer_trajectory,
            trajectory.next_obs,
            trajectory.done_reached and not trajectory.interrupted,
        )
        if value_memories is not None:
            agent_buffer_trajectory[BufferKey.CRITIC_MEMORY].set(value_memories)
        for name, v in value_estimates.items():
            agent_buffer_trajectory[RewardSignalUtil.value_estimates_key(name)].extend(v)
            self._stats_reporter.add_stat(
                f"Policy/{self.optimizer.reward_signals[name].name.capitalize()} Value Estimate", np.mean(v)
            )

        self.collected_rewards["environment"][agent_id] += np.sum(
            agent_buffer_trajectory[BufferKey.ENVIRONMENT_REWARDS]
        )
        tmp_advantages, tmp_returns = [], []
        for name, reward_signal in self.optimizer.reward_signals.items():
            evaluate_result = reward_signal.evaluate(agent_buffer_trajectory) * reward_signal.strength
            agent_buffer_trajectory[RewardSignalUtil.rewards_key(name)].extend(evaluate_result)
            self.collected_rewards[name][agent_id] += np.sum(evaluate_result)

            local_value_estimates = agent_buffer_trajectory[RewardSignalUtil.value_estimates_key(name)].get_batch()
            local_advantage = get_gae(
                rewards=agent_buffer_trajectory[RewardSignalUtil.rewards_key(name)].get_batch(),
                value_estimates=local_value_estimates,
                value_next=value_next[name],
                gamma=reward_signal.gamma,
                lambd=self.hyperparameters.lambd,
            )
            local_return = local_advantage + local_value_estimates
            agent_buffer_trajectory[RewardSignalUtil.returns_key(name)].set(local_return)
            agent_buffer_trajectory[RewardSignalUtil.advantage_key(name)].set(local_advantage)
            tmp_advantages.append(local_advantage)
            tmp_returns.append(local_return)

        agent_buffer_trajectory[BufferKey.ADVANTAGES].set(list(np.mean(np.array(tmp_advantages), axis=0)))
        agent_buffer_trajectory[BufferKey.DISCOUNTED_RETURNS].set(list(np.mean(np.array(tmp_returns), axis=0)))
        self._append_to_update_buffer(agent_buffer_trajectory)
        if trajectory.done_reached:
            self._update_end_episode_stats(agent_id, self.optimizer)

    @staticmethod
    def get_settings_type():
        return OldSettings

    @staticmethod
    def get_trainer_name() -> str:
        return "old_on_policy"


def get_type_and_setting():
    return {OldTrainer.get_trainer_name(): OldTrainer}, {OldTrainer.get_trainer_name(): OldTrainer.get_settings_type()}
