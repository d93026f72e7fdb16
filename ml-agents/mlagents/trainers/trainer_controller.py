"""The training loop: step the environments, hand over the experience, let the trainers advance."""

from __future__ import annotations

import gc
from typing import Any, Dict, List, Mapping, Optional

from mlagents.torch_utils import take_threads_for_images
from mlagents.trainers.agent_processor import AgentManager
from mlagents.trainers.behavior_id_utils import BehaviorIdentifiers
from mlagents.trainers.checkpointer import Checkpointer
from mlagents.trainers.env_manager import EnvironmentStep, EnvManager
from mlagents.trainers.evaluation import Evaluator
from mlagents.trainers.exception import TrainerConfigError
from mlagents.trainers.policy import Policy
from mlagents.trainers.rescue import rescue
from mlagents.trainers.stats import StatsPropertyType
from mlagents.trainers.stop_request import StopRequest
from mlagents.trainers.terminal import ProgressDisplay
from mlagents.trainers.trainer import Trainer, TrainerFactory
from mlagents.trainers.trainer.update_thread import UpdateThread
from mlagents_envs.logging_util import get_logger
from mlagents_envs.timers import hierarchical_timer, timed

logger = get_logger(__name__)


class TrainerController:
    """Runs training: `reset`, then `start_learning`.

    :param trainer_factory: makes the trainers of behaviours as they appear.
    :param environment_parameters: name to sampler, sent before the first reset.
    :param train: whether trainers learn, or only act, in which case nothing is saved.
    :param stop: asked after every step whether the user wants to stop.
    :param progress: shown how far the trainers are.
    :param checkpointer: saves and restores the run as a whole; without one, trainers save what is theirs.
    :param evaluator: evaluates the policies of those trainers whose settings ask for it; it has to be started.
    """

    def __init__(
        self,
        trainer_factory: TrainerFactory,
        environment_parameters: Mapping[str, Any],
        train: bool,
        stop: StopRequest,
        progress: ProgressDisplay,
        checkpointer: Optional[Checkpointer] = None,
        evaluator: Optional[Evaluator] = None,
    ):
        self.trainer_factory = trainer_factory
        self.environment_parameters = environment_parameters
        self.train_model = train
        self.stop = stop
        self.progress = progress
        self.checkpointer = checkpointer
        self.evaluator = evaluator
        self.trainers: Dict[str, Trainer] = {}
        self.update_threads: Dict[str, UpdateThread] = {}  # of the trainers that update beside the environment

    @timed
    def start_learning(self, env_manager: EnvManager) -> None:
        """Train until every trainer is done or the user stops; then, and on any error, save what was learned.

        `reset` comes first.
        """
        if not self.stop.requested and not self._goes_on():
            steps = ", ".join(f"{name} {trainer.get_step}" for name, trainer in self.trainers.items())
            logger.warning(f"There is nothing left to train: max_steps is reached (steps so far: {steps}).")
        for trainer in self.trainers.values():
            _report_settings(trainer)
        try:
            try:
                self._begin(env_manager)
                if self.evaluator is not None:
                    self.evaluator.end_where_done(self.trainers)
                    self._evaluate(self.evaluator)  # what the session before was stopped in
                gc.freeze()  # what there is now stays: to look through all of it again and again takes a while
                while self._goes_on():
                    self.advance(env_manager)
                self._settle()
            finally:
                gc.unfreeze()
                for thread in self.update_threads.values():
                    thread.close()
        except BaseException as error:
            self._save_models(after=error)
            raise
        self._save_models()
        if self.checkpointer is not None and self.train_model:
            self.checkpointer.save_at_the_end(self.trainers, env_manager)

    def _begin(self, env_manager: EnvManager) -> None:
        """Go on from where the run was, or let it have a first state, from which it can be resumed whatever happens."""
        if self.checkpointer is None or not self.train_model:
            for trainer in self.trainers.values():
                trainer.end_episode()  # of the session that is resumed
            return
        if self.trainer_factory.load_model:
            self.checkpointer.restore(self.trainers, env_manager)
            self.checkpointer.write_status(self.trainers, "running")
        else:
            self.checkpointer.save(self.trainers, env_manager)

    def _goes_on(self) -> bool:
        if self.stop.requested:
            return False
        if not self.train_model or not self.trainers:  # without behaviours so far: they may appear later
            return True
        return any(trainer.should_still_train for trainer in self.trainers.values())

    @timed
    def reset(self, env_manager: EnvManager) -> None:
        """Start the environments, anew if they run, and make the trainers of their behaviours; nothing is written.

        :raises TrainerConfigError: a behaviour is not configured.
        :raises UnityTrainerException: a behaviour asks for what networks cannot do, or a checkpoint does not fit.
        """
        self._settle()
        env_manager.reset(self.environment_parameters)
        for trainer in self.trainers.values():
            trainer.end_episode()
        self._add_behaviors(env_manager, env_manager.first_step_infos)
        configured = self.trainer_factory.trainer_config
        unseen = [name for name in configured if name not in self.trainers]
        if unseen:
            logger.warning(
                f"Configured, but not in the environment so far: {', '.join(unseen)}. "
                f"In it: {', '.join(self.trainers)}."
            )

    @timed
    def advance(self, env_manager: EnvManager) -> int:
        """Step the environments once and let every trainer advance; return the number of steps."""
        with hierarchical_timer("env_step"):
            steps = env_manager.get_steps()
            for trainer in self._add_behaviors(env_manager, steps):
                trainer.end_episode()  # of the session that is resumed
                _report_settings(trainer)
            n_steps = env_manager.process_steps(steps)
        for name, trainer in self.trainers.items():
            with hierarchical_timer("trainer_advance"):
                self.update_threads.get(name, trainer).advance()
                if name not in self.update_threads:
                    trainer.checkpoint_if_due()  # where a plug-in's `advance` does without
            self.progress.update(name, trainer.get_step, trainer.get_max_steps, trainer.reward_buffer)
        if self.evaluator is not None:
            self._evaluate(self.evaluator)
        if self.checkpointer is not None and self.train_model and self.checkpointer.is_due(self.trainers):
            self._settle()
            self.checkpointer.save(self.trainers, env_manager)
        return n_steps

    def _evaluate(self, evaluator: Evaluator) -> None:
        for name in evaluator.due(self.trainers):
            if not self.stop.requested:
                self._settle()
                evaluator.evaluate(name, self.trainers)

    def _add_behaviors(self, env_manager: EnvManager, steps: List[EnvironmentStep]) -> List[Trainer]:
        """Give behaviours that appear for the first time a trainer, a policy and an agent manager.

        :returns: the new trainers.
        """
        seen = [behavior_id for step in steps for behavior_id in step.name_behavior_ids]
        if all(behavior_id in env_manager.policies for behavior_id in seen):
            return []
        known = set(self.trainers)
        for behavior_id in seen:
            if behavior_id not in env_manager.policies:
                self._add_behavior(env_manager, behavior_id)
        return [trainer for name, trainer in self.trainers.items() if name not in known]

    def _add_behavior(self, env_manager: EnvManager, behavior_id: str) -> None:
        identifiers = BehaviorIdentifiers.from_name_behavior_id(behavior_id)
        spec = env_manager.training_behaviors[behavior_id]
        brain_name = identifiers.brain_name
        trainer = self.trainers.get(brain_name)
        if trainer is None:
            trainer = self._make_trainer(env_manager, brain_name)
            if any(len(observation.shape) == 3 for observation in spec.observation_specs):
                take_threads_for_images()
            trainer.add_policy(identifiers, trainer.create_policy(identifiers, spec))
            env_manager.on_training_started(brain_name, trainer.trainer_settings)
            if trainer.threaded and trainer.is_training:
                self.update_threads[brain_name] = UpdateThread(trainer)
            self.trainers[brain_name] = trainer
        else:
            self._settle()
            trainer.add_policy(identifiers, trainer.get_policy(behavior_id))
        manager = AgentManager(spec, behavior_id, trainer.stats_reporter, trainer.trainer_settings.time_horizon)
        manager.current_step = lambda: trainer.get_step
        env_manager.set_agent_manager(behavior_id, manager)
        env_manager.set_policy(behavior_id, self._link(trainer, manager))

    def _link(self, trainer: Trainer, manager: AgentManager) -> Policy:
        """Let a trainer have what is collected of a behaviour id; return the policy that is to act."""
        thread = self.update_threads.get(trainer.brain_name)
        if thread is not None:
            return thread.link(manager.behavior_id, manager.trajectory_queue)
        trainer.subscribe_trajectory_queue(manager.trajectory_queue)
        return trainer.get_policy(manager.behavior_id)

    def _make_trainer(self, env_manager: EnvManager, brain_name: str) -> Trainer:
        try:
            return self.trainer_factory.generate(brain_name)
        except TrainerConfigError as error:
            names = [
                BehaviorIdentifiers.from_name_behavior_id(known).brain_name for known in env_manager.training_behaviors
            ]
            if brain_name in self.trainer_factory.trainer_config:
                raise
            raise TrainerConfigError(f"{error} The environment's behaviors: {', '.join(names)}.") from error

    def _settle(self) -> None:
        """Wait until all that was collected is taken in: until then, trainers that have a thread belong to it."""
        for thread in self.update_threads.values():
            thread.settle()

    def save_checkpoint(self) -> None:
        """Save what was learned so far, as at the end of training, which goes on."""
        self._settle()
        self._save_models()

    def _save_models(self, after: Optional[BaseException] = None) -> None:
        """Save every trainer's state and model.

        A trainer whose model cannot be saved keeps none of the others from being saved. Its error is raised at the end,
        unless the models are saved after an error, which then is the one to report.
        """
        if not self.train_model:
            return
        errors: List[Exception] = []
        for name, trainer in self.trainers.items():
            if trainer.get_step == 0:
                continue  # nothing was learned
            try:
                self._save_model(trainer)
            except Exception as error:
                errors.append(error)
                if after is not None or len(errors) > 1:
                    logger.error(f"The model of {name} could not be saved: {error}")
        if errors and after is None:
            raise errors[0]

    def _save_model(self, trainer: Trainer) -> None:
        """Save a trainer's state and model; where the disk does not take them, see `rescue`."""
        try:
            trainer.save_model()
        except OSError as error:
            rescue(trainer, error, self.stop)


def _report_settings(trainer: Trainer) -> None:
    """Tell the writers of statistics, which may put it into the run's folder, how a behaviour is trained."""
    trainer.stats_reporter.add_property(StatsPropertyType.HYPERPARAMETERS, trainer.trainer_settings.as_dict())
