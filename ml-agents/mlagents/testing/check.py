"""`check_trainer`: trains a trainer on all tasks that fit it, and says what fails."""

from __future__ import annotations

import tempfile
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Mapping, Optional, Sequence, Set, Tuple

import numpy as np

from mlagents.plugins.blame import find_culprit
from mlagents.plugins.trainer_type import plugins_that_give
from mlagents.testing.environments import ForbiddenActionError
from mlagents.testing.exported import check_exported_model
from mlagents.testing.report import (
    CheckFailure,
    CheckReport,
    CheckResult,
    CheckSkipped,
    Status,
    TaskReport,
    TrainerCheckError,
)
from mlagents.testing.runs import Run, Subject, process_left_as_it_was
from mlagents.testing.state import State, differences, state_of, without_steps
from mlagents.testing.tasks import Task, choose_tasks
from mlagents.trainers.exception import TrainerConfigError
from mlagents.trainers.policy.torch_policy import TorchPolicy

N_GRADED_EPISODES = 800
"""That the trained model plays."""
N_REPEATED_STEPS = 400
N_DECISIONS_UNDER_WAY = 5000
"""More than environments can have made that trainers have not been given yet."""
RETURN_TOLERANCE = 1e-3
MAX_DIFFERENCES = 10
"""Of two states, to be shown."""
NO_MEMORY = 'it is for networks with memory; to include it, network_settings={"memory": {}}'


def check_trainer(
    name: str,
    *,
    hyperparameters: Optional[Mapping[str, Any]] = None,
    network_settings: Optional[Mapping[str, Any]] = None,
    tasks: Optional[Sequence[str]] = None,
    seed: int = 1,
    max_steps: Optional[int] = None,
) -> CheckReport:
    """Train a trainer on small tasks, each of which asks for one capability, and check what every trainer has to do.

    A task that the trainer refuses by a `TrainerConfigError` is none of its own, but one has to fit. The checks are
    those of `mlagents.testing.report.CHECKS`; one that fails stops only those that need what it was to give.

    :param name: the trainer type as configurations name it: that of an installed plug-in, or
        ``package.module:Class``.
    :param hyperparameters: the trainer's own, on top of those for small runs.
    :param network_settings: on top of a small network; ``{"memory": {}}`` gives it a memory, and adds the memory task.
    :param tasks: names from `mlagents.testing.tasks.TASKS`; None for all.
    :param seed: of everything random.
    :param max_steps: agent steps of each training run; None for what a task gives.
    :raises TrainerCheckError: a check failed, or no task fits; its message is the report.
    :raises TrainerConfigError: there is no such trainer type, task, or setting.
    """
    chosen = choose_tasks(tasks)
    started_s = time.monotonic()
    report = CheckReport(name, seed)
    with process_left_as_it_was(), tempfile.TemporaryDirectory() as folder:
        subject = Subject(name, hyperparameters or {}, network_settings or {}, seed, max_steps, Path(folder))
        report.tasks = [_Examination(subject, task).make() for task in chosen]
    report.duration_s = time.monotonic() - started_s
    if not report.passed:
        raise TrainerCheckError(report)
    return report


class _Refusal(Exception):
    """The trainer says that a task is none of its own."""


class _Examination:
    """All checks of a trainer on one task, made one after the other, whatever they come to."""

    def __init__(self, subject: Subject, task: Task):
        self.subject = subject
        self.task = task
        self.report = TaskReport(task)

    def make(self) -> TaskReport:
        """Make the checks.

        :raises TrainerConfigError: the subject's settings are none that the trainer has.
        """
        if self.task.needs_memory and not self.subject.has_memory:
            self.report.refusal = NO_MEMORY
            return self.report
        self.subject.options(self.task)  # before any check, since what is wrong here is none of the trainer's faults
        training: Optional[Run] = None
        with self._check("trains"):
            training = self._train()
        if training is not None:
            self._examine(training)
        return self.report

    def _examine(self, training: Run) -> None:
        """Make the checks for which a training has to have come to its end."""
        with self._check("statistics"):
            _check_statistics(training)
        with self._check("resumes"):
            saved, loaded = state_of(training.trainer), state_of(self._run(self.subject.seed + 1, resume=True).trainer)
            _check_same(saved, loaded, "What was saved is not what a resumed run begins with")
        with self._check("acts"):
            self._act()
        if self.report.mean_return is not None:
            with self._check("learns"):
                self._check_return(training)
        with self._check("exports"):
            self._check_model(training)
        with self._check("repeats"):
            _check_same(self._short_run("first"), self._short_run("second"), "Two runs with the same seed differ")
        if self.task.has_masks:
            self.report.results.setdefault("masks", CheckResult(Status.PASSED))

    @contextmanager
    def _check(self, name: str) -> Iterator[None]:
        """Note what comes of a check; an error of any kind goes no further."""
        results = self.report.results
        try:
            yield
            results[name] = CheckResult(Status.PASSED)
        except _Refusal as refusal:
            self.report.refusal = str(refusal)
        except CheckSkipped as skipped:
            results[name] = CheckResult(Status.SKIPPED, str(skipped))
        except CheckFailure as failure:
            results[name] = CheckResult(Status.FAILED, str(failure))
        except ForbiddenActionError as error:
            results["masks"] = CheckResult(Status.FAILED, str(error))
        except Exception as error:  # code of others may raise anything
            results[name] = CheckResult(Status.FAILED, self._describe(error))

    def _describe(self, error: Exception) -> str:
        """Say where an error comes from: what of the trainer's own code led to it, if any did."""
        culprit = find_culprit(error, plugins_that_give(self.subject.trainer_type))
        return _traceback_of(error) if culprit is None else str(culprit)

    def _run(self, seed: int, max_steps: Optional[int] = None, **checkpoint_settings: Any) -> Run:
        return Run(self.task, self.subject.options(self.task, max_steps, **checkpoint_settings), seed)

    def _train(self) -> Run:
        try:
            training = self._run(self.subject.seed)
        except TrainerConfigError as error:
            raise _Refusal(str(error)) from error
        max_decisions = 2 * training.trainer.get_max_steps + N_DECISIONS_UNDER_WAY
        if not training.go(max_decisions=max_decisions):
            raise CheckFailure(
                f"After {max_decisions} decisions the trainer had counted {training.trainer.get_step} steps. Its "
                f"_process_trajectory has to call that of its base class first."
            )
        return training

    def _act(self) -> None:
        """Let the trained model act, for its grade too."""
        acting = self._run(self.subject.seed + 1, inference=True)
        files, state = _files_in(acting.path), without_steps(state_of(acting.trainer))
        acting.go(max_episodes=N_GRADED_EPISODES)
        self.report.mean_return = float(np.mean(acting.returns))
        _check_same(state, without_steps(state_of(acting.trainer)), "What was trained changed while it was only to act")
        changed = [path for path, _ in files ^ _files_in(acting.path)]
        if changed:
            raise CheckFailure(f"Inference wrote to the run's folder: {', '.join(sorted(set(changed)))}.")

    def _check_return(self, training: Run) -> None:
        task, reached = self.task, self.report.mean_return
        if reached is None or not reached >= task.threshold:
            while_training = np.mean(training.returns[-N_GRADED_EPISODES:])
            raise CheckFailure(
                f"The mean return of {N_GRADED_EPISODES} episodes is {reached:.3f}, wanted is {task.threshold:.2f}. "
                f"The best is {task.best_return:.2f}, random actions earn {task.random_return:.2f}, and the last "
                f"episodes of the training, of {training.trainer.get_step} steps, earned {while_training:.3f}."
            )

    def _check_model(self, training: Run) -> None:
        trainer = training.trainer
        policy = getattr(trainer, "policy", None)
        if not isinstance(policy, TorchPolicy):
            raise CheckSkipped("The trainer has no TorchPolicy to compare a model with.")
        env = self.task.make_env(seed=self.subject.seed)
        env.reset()
        (behavior_id,) = env.behavior_specs
        decisions, _ = env.get_steps(behavior_id)
        check_exported_model(training.path / f"{trainer.brain_name}.onnx", policy, decisions)

    def _short_run(self, run_id: str) -> State:
        run = self._run(self.subject.seed, N_REPEATED_STEPS, run_id=f"{self.task.name}-{run_id}")
        run.go()
        return state_of(run.trainer)


def _check_statistics(training: Run) -> None:
    statistics, trainer = training.statistics, training.trainer
    if statistics.not_finite:
        values = ", ".join(f"{name} = {value}" for name, value in statistics.not_finite.items())
        raise CheckFailure(f"Not finite: {values}.")
    if not statistics.n_summaries:
        raise CheckFailure("No summary was written: has _maybe_write_summary been overridden?")
    if not trainer.reward_buffer:
        raise CheckFailure(
            "No episode's return was reported: _process_trajectory has to call _update_end_episode_stats(agent_id, "
            "optimizer) for each trajectory with done_reached."
        )
    reported, paid = np.array(trainer.reward_buffer), np.array(training.returns)
    distances = np.abs(reported[:, None] - paid).min(axis=1)
    if distances.max() > RETURN_TOLERANCE:
        raise CheckFailure(
            f"A return of {reported[distances.argmax()]:.3f} was reported, and no episode came to that: the "
            f"environment paid from {paid.min():.3f} to {paid.max():.3f}."
        )


def _check_same(before: State, after: State, what_if_not: str) -> None:
    lines = differences(before, after)
    if lines:
        shown = lines[:MAX_DIFFERENCES] + ["..."] * (len(lines) > MAX_DIFFERENCES)
        raise CheckFailure("\n  ".join([f"{what_if_not}:", *shown]))


def _files_in(folder: Path) -> Set[Tuple[str, int]]:
    """Return the files with the times of their last change."""
    return {(str(path.relative_to(folder)), path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()}


def _traceback_of(error: Exception) -> str:
    """Return the traceback without the frames of this package."""
    report = traceback.TracebackException.from_exception(error)
    here = str(Path(__file__).parent)
    frames = [frame for frame in report.stack if not frame.filename.startswith(here)]
    report.stack = traceback.StackSummary.from_list(frames)
    return "".join(report.format())
