"""Saving a whole run, and going on from there."""

from __future__ import annotations

import time
from typing import Any, Callable, Dict, Mapping, Optional, Set

from mlagents.trainers.env_manager import EnvManager
from mlagents.trainers.files import Attempts
from mlagents.trainers.run_directory import RunDirectory
from mlagents.trainers.run_state import Checksums, RandomState, RunStateFile, Stateful
from mlagents.trainers.stats import StatsReporter
from mlagents.trainers.trainer import Trainer
from mlagents_envs.exception import UnityEnvironmentException
from mlagents_envs.logging_util import get_logger

logger = get_logger(__name__)


class Checkpointer:
    """Writes what the run is beside its trainers whenever these have written their states, and restores it.

    :param run: whose files they are.
    :param interval_s: seconds between two savings of the newest state of all, beside the trainers' own intervals of
        steps; None for no such interval.
    :param environment_parameters: of this session, by name.
    :param evaluator: whose records are part of the run; None where nothing is evaluated.
    :param clock: seconds, from whenever.
    """

    def __init__(
        self,
        run: RunDirectory,
        interval_s: Optional[float],
        environment_parameters: Mapping[str, Any],
        evaluator: Optional[Stateful] = None,
        clock: Callable[[], float] = time.monotonic,
    ):
        self._run = run
        self._interval_s = interval_s
        self._parameters = environment_parameters
        self._evaluator = evaluator
        self._clock = clock
        self._file = RunStateFile(run.path)
        self._saved_at_s = clock()
        self._saved: Checksums = {}
        self._seen: Checksums = {}
        self._known: Set[str] = set()
        self._fresh: Set[str] = set()  # whose state was written since the last step of the environments
        self._writing = Attempts(f"The state of the run in {run.path}")

    def is_due(self, trainers: Mapping[str, Trainer]) -> bool:
        """Return whether a trainer has written its state since the run's was, or the interval of time is over.

        To be asked after each step of the environments.
        """
        self._fresh.clear()
        self._look(trainers)
        is_late = self._interval_s is not None and self._clock() >= self._saved_at_s + self._interval_s
        is_new = trainers.keys() != self._known  # behaviours that appeared have to have a state to resume from
        return (is_late or is_new or self._seen != self._saved) and self._writing.may_try()

    def _look(self, trainers: Mapping[str, Trainer]) -> None:
        """Take note of the trainers that have written their states since the last look."""
        checksums = _checksums(trainers)
        if checksums != self._seen:
            self._fresh.update(name for name, checksum in checksums.items() if checksum != self._seen.get(name))
            self._seen = checksums

    def save(self, trainers: Mapping[str, Trainer], env_manager: EnvManager) -> None:
        """Write the newest states of all trainers, and what belongs to them.

        Where they cannot be written, the run goes on, and it is tried again now and then.
        """
        with self._writing:
            self.write(trainers, env_manager)

    def save_at_the_end(self, trainers: Mapping[str, Trainer], env_manager: EnvManager) -> None:
        """Write the same when the run is over; that it cannot be written is no reason to fail one with its models."""
        try:
            self.write(trainers, env_manager)
        except OSError as error:
            logger.warning(
                f"The state of the run in {self._run.path} could not be written: {error}. Its models are there; if it "
                f"is resumed, it begins new episodes."
            )

    def write(self, trainers: Mapping[str, Trainer], env_manager: EnvManager) -> None:
        """Write the newest states of those trainers that have not done so themselves, and what belongs to all.

        :raises OSError: they cannot be written.
        """
        self._run.mend()
        self._look(trainers)
        for name, trainer in trainers.items():
            if name not in self._fresh:
                trainer.save_state()
        self._seen = checksums = _checksums(trainers)
        self._file.write(
            {
                "random": RandomState().state_dict(),
                "statistics": StatsReporter.state_dict(),
                "environments": env_manager.state_dict(),
                "environment_parameters": self._parameters_as_text(),
                "evaluation": {} if self._evaluator is None else self._evaluator.state_dict(),
            },
            checksums,
        )
        self._saved, self._saved_at_s, self._known = checksums, self._clock(), set(trainers)
        self.write_status(trainers, "running")

    def write_status(self, trainers: Mapping[str, Trainer], status: str) -> None:
        """Write which checkpoints there are, and whether the run is running, interrupted, finished or failed."""
        behaviors: Dict[str, Any] = {}
        for name, trainer in trainers.items():
            history = getattr(trainer, "checkpoints", None)
            behaviors[name] = history.as_dict() if history is not None else {}
        self._run.write_status(behaviors, status)

    def restore(self, trainers: Mapping[str, Trainer], env_manager: EnvManager) -> None:
        """Go on from where the run was when its trainers' states were written; they, and the environment, are there.

        Environment parameters that are others than then are set anew.
        """
        self._saved = self._seen = _checksums(trainers)
        self._known = {name for name, trainer in trainers.items() if trainer.load}
        state = self._file.read(self._saved)
        if state is None:
            self._begin_episodes(trainers, "what belongs to its checkpoints is not there")
            return
        try:
            self._take_over(state, trainers, env_manager)
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:  # of another version's file
            env_manager.reset(self._parameters)
            reason = f"what belongs to its checkpoints cannot be read ({type(error).__name__}: {error})"
            self._begin_episodes(trainers, reason)

    def _take_over(self, state: Mapping[str, Any], trainers: Mapping[str, Trainer], env_manager: EnvManager) -> None:
        StatsReporter.load_state_dict(state["statistics"])
        if self._evaluator is not None:
            self._evaluator.load_state_dict(state.get("evaluation", {}))
        problem = (
            "other behaviors are in the environment" if state["environments"] else "this environment cannot be saved"
        )
        try:
            goes_on = env_manager.load_state_dict(state["environments"])
        except UnityEnvironmentException as error:
            goes_on, problem = False, str(error)
        if not goes_on:
            self._begin_episodes(trainers, problem)
        elif state["environment_parameters"] != self._parameters_as_text():
            env_manager.set_env_parameters(self._parameters)
        RandomState().load_state_dict(state["random"])

    def _parameters_as_text(self) -> Dict[str, str]:
        return {name: repr(sampler) for name, sampler in self._parameters.items()}

    @staticmethod
    def _begin_episodes(trainers: Mapping[str, Trainer], reason: str) -> None:
        for trainer in trainers.values():
            trainer.end_episode()
        logger.info(f"The run goes on with new episodes: {reason}.")


def _checksums(trainers: Mapping[str, Trainer]) -> Checksums:
    checksums = ((name, trainer.state_checksum) for name, trainer in trainers.items())
    return {name: checksum for name, checksum in checksums if checksum is not None}
