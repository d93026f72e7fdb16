"""DQN's trainer: what becomes of a trajectory, how agents explore, and which agents it suits."""

from __future__ import annotations

from typing import Any, Dict, Tuple, Type

from mlagents.trainers.behavior_id_utils import BehaviorIdentifiers
from mlagents.trainers.exception import TrainerConfigError
from mlagents.trainers.policy.torch_policy import TorchPolicy
from mlagents.trainers.settings import ScheduleType
from mlagents.trainers.torch_entities.utils import ModelUtils
from mlagents.trainers.trainer.off_policy_trainer import OffPolicyTrainer
from mlagents.trainers.trajectory import Trajectory
from mlagents_envs.base_env import BehaviorSpec
from mlagents_trainer_plugin.dqn.dqn_optimizer import DQNOptimizer, DQNSettings, QNetwork

TRAINER_NAME = "dqn"


class DQNTrainer(OffPolicyTrainer):
    """Trains by deep Q-learning; see `OffPolicyTrainer` for the parameters."""

    hyperparameters: DQNSettings

    def create_policy(self, parsed_behavior_id: BehaviorIdentifiers, behavior_spec: BehaviorSpec) -> TorchPolicy:
        """Make a policy that explores while it is trained.

        :raises TrainerConfigError: the agents' actions are not all discrete, or they are to have a memory.
        """
        network_settings = self.trainer_settings.network_settings
        name, action_spec = self.brain_name, behavior_spec.action_spec
        if not action_spec.is_discrete():
            raise TrainerConfigError(f"dqn is for discrete actions alone; behavior {name} has others: {action_spec}.")
        if network_settings.memory is not None:
            raise TrainerConfigError(f"dqn learns from single steps: leave network_settings.memory of {name} out.")
        actor_kwargs = {"stream_names": [signal.value for signal in self.trainer_settings.reward_signals]}
        policy = TorchPolicy(self.seed, behavior_spec, network_settings, QNetwork, actor_kwargs)
        if self.is_training and not network_settings.deterministic:
            initial, final = self.hyperparameters.exploration_initial, self.hyperparameters.exploration_final
            steps = self.hyperparameters.exploration_steps
            exploration = ModelUtils.DecayedValue(ScheduleType.LINEAR, initial, final, steps)
            policy.actor.exploration_rate = lambda: exploration.get_value(policy.get_current_step())
        return policy

    def create_optimizer(self) -> DQNOptimizer:
        """Make the optimizer of `self.policy`."""
        return DQNOptimizer(self.policy, self.trainer_settings)

    def _process_trajectory(self, trajectory: Trajectory) -> None:
        """Put the transitions of a trajectory into the replay buffer."""
        super()._process_trajectory(trajectory)
        buffer = trajectory.to_agentbuffer()
        self._warn_if_group_reward(buffer)
        self._update_normalization(buffer)
        self._evaluate_rewards(trajectory.agent_id, buffer)
        self._append_to_update_buffer(self._transitions(trajectory, buffer))
        if trajectory.done_reached:
            self._update_end_episode_stats(trajectory.agent_id, self.optimizer)

    @staticmethod
    def get_settings_type() -> Type[DQNSettings]:
        """Return the class of the trainer's `hyperparameters`."""
        return DQNSettings

    @staticmethod
    def get_trainer_name() -> str:
        """Return "dqn"."""
        return TRAINER_NAME


def get_type_and_setting() -> Tuple[Dict[str, Any], Dict[str, Any]]:
    """Return the trainer and the class of its `hyperparameters`, by trainer type: the entry point of the plug-in."""
    return {TRAINER_NAME: DQNTrainer}, {TRAINER_NAME: DQNSettings}
