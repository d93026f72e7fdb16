"""Settings that all algorithms of a family share; a trainer type's own `hyperparameters` subclass one of these."""

from typing import Optional

import attr

from mlagents.trainers.settings.fields import FRACTION, NOT_NEGATIVE, POSITIVE, Range, setting
from mlagents.trainers.settings.network import ScheduleType


@attr.s(auto_attribs=True)
class BehavioralCloningSettings:
    """Imitation of recorded demonstrations beside reinforcement learning."""

    demo_path: str = setting(help="A .demo file, or a folder of them.")
    steps: int = setting(0, help="Steps over which the imitation fades out; 0 for never.", check=NOT_NEGATIVE)
    strength: float = setting(1.0, help="Learning rate of the imitation relative to the policy's.", check=NOT_NEGATIVE)
    samples_per_update: int = setting(
        0, help="Most demonstration steps used per update; 0 for all.", check=NOT_NEGATIVE
    )
    num_epoch: Optional[int] = setting(None, help="Passes over the samples; null for the trainer's.", check=POSITIVE)
    batch_size: Optional[int] = setting(None, help="Steps per minibatch; null for the trainer's.", check=POSITIVE)


@attr.s(auto_attribs=True)
class HyperparamSettings:
    """What every algorithm has."""

    batch_size: int = setting(1024, help="Experiences per gradient step.", check=POSITIVE)
    buffer_size: int = setting(10240, help="Experiences gathered before an update, or kept for replay.", check=POSITIVE)
    learning_rate: float = setting(3.0e-4, help="Initial step size of the optimiser.", check=NOT_NEGATIVE)
    learning_rate_schedule: ScheduleType = setting(
        ScheduleType.CONSTANT, help="How the learning rate changes over max_steps."
    )


@attr.s(auto_attribs=True)
class OnPolicyHyperparamSettings(HyperparamSettings):
    """What algorithms have that learn from the current policy's experience alone."""

    num_epoch: int = setting(3, help="Passes over the buffer per update.", check=POSITIVE)


@attr.s(auto_attribs=True)
class ActorCriticSettings(OnPolicyHyperparamSettings):
    """What actor-critic algorithms have that estimate advantages by GAE."""

    lambd: float = setting(0.95, help="Lambda of the generalized advantage estimation.", check=FRACTION)
    shared_critic: bool = setting(False, help="Whether actor and critic share a body.")


@attr.s(auto_attribs=True)
class OffPolicyHyperparamSettings(HyperparamSettings):
    """What algorithms have that learn from a replay buffer."""

    batch_size: int = setting(128, help="Experiences per gradient step.", check=POSITIVE)
    buffer_size: int = setting(50000, help="Experiences kept for replay.", check=POSITIVE)
    buffer_init_steps: int = setting(0, help="Steps gathered before the first update.", check=NOT_NEGATIVE)
    steps_per_update: float = setting(1, help="Agent steps per update of the policy.", check=Range(above=0))
    save_replay_buffer: bool = setting(False, help="Save the replay buffer with the model, and load it on resume.")
    reward_signal_steps_per_update: float = setting(
        4, help="Agent steps per update of the reward signals.", check=Range(above=0)
    )
