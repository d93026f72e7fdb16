"""Evaluations during training: episodes in an environment of their own, the best policy, and when to stop."""

from __future__ import annotations

import contextlib
from typing import Any, Callable, Dict, Iterator, List, Mapping, Set

import attr
import numpy as np

from mlagents.trainers.behavior_id_utils import BehaviorIdentifiers
from mlagents.trainers.environment_host import EnvironmentHost
from mlagents.trainers.exception import NotFiniteError, TrainerConfigError
from mlagents.trainers.policy import Policy
from mlagents.trainers.run_state import RandomState, seed_everything
from mlagents.trainers.settings import EvaluationSettings
from mlagents.trainers.stats import EVALUATION_LENGTH, EVALUATION_REWARD
from mlagents.trainers.trainer import Trainer
from mlagents_envs.base_env import DecisionSteps, TerminalSteps
from mlagents_envs.exception import UnityException, UnityObservationException
from mlagents_envs.logging_util import get_logger
from mlagents_envs.timers import timed

logger = get_logger(__name__)


class EpisodeCount:
    """Follows the first episodes that begin until each has ended, or was long enough to count as it is.

    To count the first ones that end would favour short ones.

    :param n_episodes: how many.
    :param max_steps: the decisions after which an episode counts with what it has got.
    :ivar returns: of the episodes that are over.
    :ivar lengths: their decisions.
    :ivar n_cut: how many of them were cut short.
    :ivar n_noted: what was noted of these episodes so far: that they began, went on, or ended.
    """

    def __init__(self, n_episodes: int, max_steps: int):
        self._n_episodes, self._max_steps = n_episodes, max_steps
        self.returns: List[float] = []
        self.lengths: List[int] = []
        self.n_cut = 0
        self.n_noted = 0
        self._n_begun = 0
        self._under_way: Dict[int, _Episode] = {}  # by agent
        self._passed_over: Set[int] = set()  # agents in the rest of an episode that was cut

    @property
    def is_over(self) -> bool:
        """Whether all of them are."""
        return len(self.returns) == self._n_episodes

    @property
    def waits_for_nobody(self) -> bool:
        """Whether all that goes on is the rest of episodes that were cut, and more have to begin."""
        return not self.is_over and not self._under_way and bool(self._passed_over)

    def forget_agents(self) -> None:
        """Take note that all agents begin episodes anew."""
        self._passed_over.clear()

    def take(self, decisions: DecisionSteps, terminals: TerminalSteps) -> None:
        """Take in a step; agents of several teams may come in turn."""
        for agent, reward in self._rewards(terminals):
            self._under_way[agent].add(reward)
            self._end(agent)
        self._passed_over.difference_update(terminals.agent_id.tolist())
        for agent, reward in self._rewards(decisions):
            episode = self._under_way[agent]
            episode.add(reward)
            if episode.n_steps == self._max_steps:
                self.n_cut += 1
                self._end(agent)
                self._passed_over.add(agent)
            episode.n_steps += 1
        if self._n_begun < self._n_episodes:
            self._begin(decisions.agent_id.tolist())

    def _begin(self, agents: List[int]) -> None:
        new = [agent for agent in agents if agent not in self._under_way and agent not in self._passed_over]
        for agent in new[: self._n_episodes - self._n_begun]:
            self._under_way[agent] = _Episode()
            self._n_begun += 1
            self.n_noted += 1

    def _end(self, agent: int) -> None:
        episode = self._under_way.pop(agent)
        self.returns.append(episode.total)
        self.lengths.append(episode.n_steps)

    def _rewards(self, steps: DecisionSteps | TerminalSteps) -> Iterator[tuple[int, float]]:
        """Return what the agents that are followed got in a step."""
        rows = np.flatnonzero(np.isin(steps.agent_id, list(self._under_way)))
        self.n_noted += len(rows)
        rewards = steps.reward[rows].astype(np.float64) + steps.group_reward[rows]
        return zip(steps.agent_id[rows].tolist(), rewards.tolist())


@attr.s(auto_attribs=True)
class _Episode:
    """An episode under way."""

    total: float = 0.0
    n_steps: int = 1

    def add(self, reward: float) -> None:
        self.total += reward


@attr.s(auto_attribs=True)
class EvaluationRecord:
    """What the evaluations of a behaviour came to.

    :param step: of the last one.
    :param best_reward: the highest so far; None for none.
    :param best_step: of the policy that got it.
    :param n_without_best: how many there were since.
    :param saved_reward: of the policy that is on the disk; another one where the best could not be written.
    :param is_final: whether the last one was of a policy that is not trained on.
    """

    step: int = 0
    best_reward: float | None = None
    best_step: int = 0
    n_without_best: int = 0
    saved_reward: float | None = None
    is_final: bool = False

    def reason_to_stop(self, settings: EvaluationSettings) -> str | None:
        """Say why training is to end, if it is."""
        if self.best_reward is None:
            return None
        if settings.target is not None and self.best_reward >= settings.target:
            return f"evaluation.target {settings.target:g} is reached ({self.best_reward:.3f} at step {self.best_step})"
        if settings.patience is not None and self.n_without_best >= settings.patience:
            return (
                f"evaluation.patience is at its end: {self.n_without_best} evaluations in a row were not better than "
                f"{self.best_reward:.3f}, of step {self.best_step}"
            )
        return None


class Evaluator:
    """Evaluates the policies whose trainers' settings ask for it.

    Training notices nothing of it: copies of the policies act, in an environment of their own, and random numbers go on
    as if nothing had been drawn. Every evaluation of a behaviour begins with the same seeds, so that what differs is
    the policy; an executable, which cannot be seeded anew, goes on where it was.

    :param host: of the environment.
    :param parameters: environment parameters by name, as in training.
    :param seed: where the settings give none.
    :param stop_requested: asked after every step whether the user wants to stop; the evaluation under way is dropped.
    """

    def __init__(
        self, host: EnvironmentHost, parameters: Mapping[str, Any], seed: int, stop_requested: Callable[[], bool]
    ):
        self._host = host
        self._parameters = parameters
        self._seed = seed
        self._stop_requested = stop_requested
        self._records: Dict[str, EvaluationRecord] = {}

    def start(self, trainers: Mapping[str, Trainer]) -> None:
        """Start the environment: that it cannot be, or a policy not be copied, is better known before training.

        :raises UnityException: it cannot be started.
        :raises TrainerConfigError: a policy cannot be copied.
        """
        for trainer in trainers.values():
            _copy_to_act(trainer, deterministic=True)
        with _apart(self._seed):
            self._host.reset(self._parameters)

    def close(self) -> None:
        """Close the environment."""
        self._host.abandon()

    def due(self, trainers: Mapping[str, Trainer]) -> List[str]:
        """Return the behaviours that have reached the step of their next evaluation."""
        return [name for name, trainer in trainers.items() if self._is_due(name, trainer)]

    def _is_due(self, name: str, trainer: Trainer) -> bool:
        settings = trainer.trainer_settings.evaluation
        if settings is None:
            return False
        record = self._record_of(name, trainer)
        if record.is_final and not trainer.should_still_train:
            return False
        return trainer.get_step // settings.interval > record.step // settings.interval

    def _record_of(self, name: str, trainer: Trainer) -> EvaluationRecord:
        """Return the record of a behaviour; a new one knows the best policy that is on the disk."""
        if name not in self._records:
            reward, step = trainer.best_evaluated
            self._records[name] = EvaluationRecord(trainer.get_step, reward, step, saved_reward=reward)
        return self._records[name]

    @timed
    def evaluate(self, name: str, trainers: Mapping[str, Trainer]) -> None:
        """Evaluate the policy of a behaviour, save it if it is the best so far, and end its training where it is to.

        Trainers have to be at rest. Whatever goes wrong, mostly in the environment, is a warning, and the environment
        starts anew the next time. One that the user stops is as if it had not begun: a resumed run makes up for it.
        """
        trainer = trainers[name]
        settings, record = trainer.trainer_settings.evaluation, self._record_of(name, trainer)
        assert settings is not None
        try:
            with _apart(self._seed if settings.seed is None else settings.seed) as seed:
                episodes = self._play(name, trainers, settings, seed)
        except Exception as error:  # of anybody's environment; training is worth more than its evaluation
            record.step = trainer.get_step
            reason = str(error) if isinstance(error, UnityException) else f"{type(error).__name__}: {error}"
            logger.warning(f"Behavior {name} could not be evaluated at step {record.step}, and is trained on: {reason}")
            logger.debug("Where it failed:", exc_info=True)
            self._host.abandon()
            return
        if episodes is None:
            return
        record.step = trainer.get_step
        if not episodes.is_over:
            logger.warning(
                f"Of {settings.episodes} episodes of the evaluation of behavior {name} at step {record.step} only "
                f"{len(episodes.returns)} came to an end: agents vanished, or did not come."
            )
        if not episodes.returns:
            return
        if episodes.n_cut:
            logger.warning(
                f"{episodes.n_cut} of {len(episodes.returns)} episodes of the evaluation of behavior {name} had not "
                f"ended after {settings.max_episode_steps} decisions, and count with what they had got."
            )
        trainer.stats_reporter.write_apart(
            {EVALUATION_REWARD: episodes.returns, EVALUATION_LENGTH: episodes.lengths}, record.step
        )
        self._note(trainer, record, float(np.mean(episodes.returns)))
        self.end_where_done({name: trainer})
        record.is_final = not trainer.should_still_train

    def _play(
        self, name: str, trainers: Mapping[str, Trainer], settings: EvaluationSettings, seed: int
    ) -> EpisodeCount | None:
        """Play the episodes of an evaluation; None if the user wants to stop.

        :raises UnityException: the environment fails, or a policy gives what is not finite.
        """
        self._host.seed(seed)
        self._host.reset(self._parameters)
        policies = {brain: _copy_to_act(trainer, settings.deterministic) for brain, trainer in trainers.items()}
        episodes = EpisodeCount(settings.episodes, settings.max_episode_steps)
        n_noted, n_idle = 0, 0
        while n_idle <= settings.max_episode_steps:  # agents may vanish, or stop coming
            actions = {}
            for behavior_id, (decisions, terminals) in self._host.observe().results.items():
                brain = BehaviorIdentifiers.from_name_behavior_id(behavior_id).brain_name
                if brain == name:
                    episodes.take(decisions, terminals)
                if brain in policies:
                    policies[brain].end_episodes(self._host.worker_id, terminals.agent_id)
                    (decision,) = policies[brain].get_actions([(self._host.worker_id, decisions)])
                    if len(decision.agent_ids):
                        actions[behavior_id] = decision.env_action
            if not np.isfinite(episodes.returns).all():
                raise UnityObservationException(f"An agent of behavior {name} got a reward that is not finite.")
            if episodes.is_over:
                break
            n_idle = n_idle + 1 if episodes.n_noted == n_noted else 0
            n_noted = episodes.n_noted
            if self._stop_requested():
                return None
            if episodes.waits_for_nobody:
                self._host.reset(self._parameters)
                episodes.forget_agents()
                for policy in policies.values():
                    policy.end_all_episodes()
            else:
                self._host.set_actions(actions)
                self._host.step()
        return episodes

    @staticmethod
    def _note(trainer: Trainer, record: EvaluationRecord, reward: float) -> None:
        """Save the policy if it is better than all before."""
        if record.best_reward is None or reward > record.best_reward:
            record.best_reward, record.best_step, record.n_without_best = reward, record.step, 0
        else:
            record.n_without_best += 1
        if record.saved_reward is not None and reward <= record.saved_reward:
            return
        try:
            path = trainer.save_best(reward)
        except (OSError, NotFiniteError) as error:
            logger.warning(
                f"The best policy so far of behavior {trainer.brain_name} could not be saved: {error}. The next one "
                f"that is better than the one on the disk will be."
            )
            return
        record.saved_reward = reward
        if path is not None:
            logger.info(f"The best so far by evaluation: {reward:.3f}, saved as {path}.")

    def end_where_done(self, trainers: Mapping[str, Trainer]) -> None:
        """End the training of behaviours whose settings want no more."""
        for name, trainer in trainers.items():
            settings = trainer.trainer_settings.evaluation
            reason = None if settings is None else self._record_of(name, trainer).reason_to_stop(settings)
            if reason is not None and trainer.should_still_train:
                logger.info(f"Behavior {name} is not trained on: {reason}.")
                trainer.end_training()

    def state_dict(self) -> Dict[str, Any]:
        """Return what the evaluations came to, as plain data."""
        return {name: attr.asdict(record) for name, record in self._records.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` told."""
        self._records = {name: EvaluationRecord(**record) for name, record in state.items()}


@contextlib.contextmanager
def _apart(seed: int) -> Iterator[int]:
    """Draw random numbers from `seed` within, which changes none of those that come after."""
    random_state = RandomState()
    before = random_state.state_dict()
    seed_everything(seed)
    try:
        yield seed
    finally:
        random_state.load_state_dict(before)


def _copy_to_act(trainer: Trainer, deterministic: bool) -> Policy:
    """Return a copy of a trainer's policy, whose agents have no past.

    :raises TrainerConfigError: it cannot be copied.
    """
    try:
        acting = trainer.copy_policy(next(iter(trainer.policies), trainer.brain_name))
    except Exception as error:  # whatever the parts of a plug-in's policy raise
        raise TrainerConfigError(
            f"An evaluation needs copies of all policies, and that of behavior {trainer.brain_name} cannot be copied: "
            f"{type(error).__name__}: {error}. Train with evaluation: null."
        ) from error
    acting.end_all_episodes()
    if deterministic:
        acting.act_deterministically()
    return acting
