"""PPO with the networks of `gru_trainer.networks`."""

from __future__ import annotations

from typing import Any

from gru_trainer.networks import GRUActor, GRUCritic
from mlagents.torch_utils import default_device
from mlagents.trainers.behavior_id_utils import BehaviorIdentifiers
from mlagents.trainers.exception import TrainerConfigError
from mlagents.trainers.policy.torch_policy import TorchPolicy
from mlagents.trainers.ppo.trainer import PPOSettings, PPOTrainer, TorchPPOOptimizer
from mlagents_envs.base_env import BehaviorSpec

TRAINER_TYPE = "gru"


class GRUOptimizer(TorchPPOOptimizer):
    """PPO's loss, on a critic of our own."""

    def create_critic(self) -> GRUCritic:
        """Make the network that estimates values."""
        observation_specs = self.policy.behavior_spec.observation_specs
        return GRUCritic(self.stream_names, observation_specs, self.policy.network_settings).to(default_device())


class GRUTrainer(PPOTrainer):
    """PPO whose networks remember by a gated recurrent unit."""

    optimizer_class = GRUOptimizer
    actor_class = GRUActor

    def create_policy(self, parsed_behavior_id: BehaviorIdentifiers, behavior_spec: BehaviorSpec) -> TorchPolicy:
        """Make the policy of a behaviour.

        :raises TrainerConfigError: the configuration asks for what these networks are not.
        """
        place = f"Behavior {self.brain_name}, trainer type {TRAINER_TYPE}"
        if self.trainer_settings.network_settings.memory is None:
            raise TrainerConfigError(f"{place}: network_settings.memory is missing; give its memory_size.")
        if self.shared_critic:
            raise TrainerConfigError(f"{place}: there is no shared_critic; leave hyperparameters.shared_critic out.")
        return super().create_policy(parsed_behavior_id, behavior_spec)

    @staticmethod
    def get_trainer_name() -> str:
        """Return the trainer type."""
        return TRAINER_TYPE


def get_type_and_setting() -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the trainer and its settings by trainer type: the entry point of the plug-in."""
    return {TRAINER_TYPE: GRUTrainer}, {TRAINER_TYPE: PPOSettings}
