"""What every trainer is to the training loop."""

from __future__ import annotations

import abc
import copy
from collections import deque
from typing import Deque, Dict, List, Optional, Tuple

from mlagents.trainers.agent_processor import AgentManagerQueue, TrajectoryQueue
from mlagents.trainers.behavior_id_utils import BehaviorIdentifiers
from mlagents.trainers.policy import Policy
from mlagents.trainers.settings import TrainerSettings
from mlagents.trainers.stats import StatsReporter
from mlagents_envs.base_env import BehaviorSpec


class Trainer(abc.ABC):
    """Takes trajectories of one behaviour and improves its policy.

    :param brain_name: the behaviour's name, as it is configured.
    :param training: whether to learn, or only to act.
    :param load: whether to go on from the state in `artifact_path`.
    :param artifact_path: the folder of the behaviour's files; the final model lies beside it.
    :param reward_buff_cap: how many of the last episodes' returns are kept.
    :ivar behavior_name: `brain_name`.
    """

    def __init__(
        self,
        brain_name: str,
        trainer_settings: TrainerSettings,
        training: bool,
        load: bool,
        artifact_path: str,
        reward_buff_cap: int = 1,
    ):
        self.brain_name = self.behavior_name = brain_name
        self.trainer_settings = trainer_settings
        self.is_training = training
        self.load = load
        self.artifact_path = artifact_path
        self.summary_freq = trainer_settings.summary_freq
        self._stats_reporter = StatsReporter(brain_name)
        self._reward_buffer: Deque[float] = deque(maxlen=reward_buff_cap)
        self._step = 0
        self._has_ended = False
        self.policies: Dict[str, Policy] = {}
        self.policy_queues: List[AgentManagerQueue[Policy]] = []
        self.trajectory_queues: List[TrajectoryQueue] = []

    @property
    def stats_reporter(self) -> StatsReporter:
        """Where the trainer's statistics go."""
        return self._stats_reporter

    @property
    def parameters(self) -> TrainerSettings:
        """The trainer's settings."""
        return self.trainer_settings

    @property
    def get_max_steps(self) -> int:
        """The number of steps after which training ends."""
        return self.trainer_settings.max_steps

    @property
    def get_step(self) -> int:
        """The steps trained on so far."""
        return self._step

    @property
    def threaded(self) -> bool:
        """Whether updates are to run beside the environment."""
        return self.trainer_settings.threaded

    @property
    def max_waiting_steps(self) -> int:
        """With updates beside the environment: how many agent steps may wait to be taken in before collection does."""
        return self.trainer_settings.time_horizon

    @property
    def should_still_train(self) -> bool:
        """Whether there are steps left to train on, and nothing has ended the training before."""
        return self.is_training and not self._has_ended and self.get_step < self.get_max_steps

    @property
    def reward_buffer(self) -> Deque[float]:
        """The returns of the last episodes, newest first."""
        return self._reward_buffer

    @abc.abstractmethod
    def save_model(self) -> None:
        """Write the state and the final model."""

    @abc.abstractmethod
    def end_episode(self) -> None:
        """Forget the episodes under way: the environments start anew."""

    @abc.abstractmethod
    def create_policy(self, parsed_behavior_id: BehaviorIdentifiers, behavior_spec: BehaviorSpec) -> Policy:
        """Make the policy of a behaviour."""

    @abc.abstractmethod
    def add_policy(self, parsed_behavior_id: BehaviorIdentifiers, policy: Policy) -> None:
        """Take on a policy to train."""

    @abc.abstractmethod
    def get_policy(self, name_behavior_id: str) -> Policy:
        """Return the policy of a behaviour id."""

    def copy_policy(self, name_behavior_id: str) -> Policy:
        """Return a copy of the policy of a behaviour id, to act with elsewhere.

        Whatever the parts of a plug-in's policy raise when they are copied is raised.
        """
        # A network of a plug-in may know its trainer, of which there is only one.
        return copy.deepcopy(self.get_policy(name_behavior_id), {id(self): self})

    @abc.abstractmethod
    def advance(self) -> None:
        """Take in the trajectories that wait, and update where enough are there."""

    def checkpoint_if_due(self) -> None:  # noqa: B027  # optional
        """Write a checkpoint if the interval says so; nothing to do for trainers that do that as they advance."""

    def save_state(self) -> Optional[str]:
        """Write the newest state, from which the run can go on, without a model; return its checksum if it has one."""
        return None

    def save_state_to(self, folder: str) -> Optional[str]:
        """Write the newest state to another folder; return its path, None for trainers that have none."""
        return None

    @property
    def state_checksum(self) -> Optional[str]:
        """The checksum of the newest state, as it was written or read last; None where there is none."""
        return None

    @property
    def best_evaluated(self) -> Tuple[Optional[float], int]:
        """The reward and the step of the policy that `save_best` wrote last; None and 0 where there is none."""
        return None, 0

    def save_best(self, reward: float) -> Optional[str]:
        """Write the policy, the best so far by evaluation; return its path, None for trainers that write none.

        :raises OSError: it cannot be written.
        """
        return None

    def end_training(self) -> None:
        """Learn nothing more, as if `max_steps` were reached."""
        self._has_ended = True

    def publish_policy_queue(self, policy_queue: AgentManagerQueue[Policy]) -> None:
        """Add a queue that the policy is put into after every update."""
        self.policy_queues.append(policy_queue)

    def subscribe_trajectory_queue(self, trajectory_queue: TrajectoryQueue) -> None:
        """Add a queue to take trajectories from."""
        self.trajectory_queues.append(trajectory_queue)

    @staticmethod
    def get_trainer_name() -> str:
        """Return the trainer's type, as configurations name it; plug-ins register by it."""
        raise NotImplementedError("This trainer does not name its type.")
