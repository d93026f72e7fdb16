"""`check_trainer` passes sound trainers, and says of unsound ones what is wrong with them."""

import copy
import random
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from mlagents.plugins import all_trainer_settings, all_trainer_types
from mlagents.plugins.trainer_type import register_trainer_plugins
from mlagents.testing import TASKS, TrainerCheckError, check_trainer
from mlagents.testing.__main__ import main
from mlagents.testing.report import Status
from mlagents.testing.state import differences
from mlagents.trainers.exception import TrainerConfigError
from mlagents.trainers.policy.torch_policy import TorchPolicy
from mlagents.trainers.ppo.optimizer_torch import PPOSettings, TorchPPOOptimizer
from mlagents.trainers.ppo.trainer import PPOTrainer
from mlagents.trainers.stats import ConsoleWriter, StatsReporter
from mlagents.trainers.torch_entities.networks import SimpleActor
from mlagents_envs import logging_util

TOO_SHORT_TO_LEARN = 300
LONG_ENOUGH = 2000
"""Agent steps of a training on the crowd."""


@pytest.fixture
def failures(monkeypatch):
    """Return a function that checks a trainer class, and returns its failures' messages by (task, check)."""

    def check(trainer_class, *tasks, max_steps=TOO_SHORT_TO_LEARN, **options):
        monkeypatch.setitem(all_trainer_types, "mine", trainer_class)
        monkeypatch.setitem(all_trainer_settings, "mine", PPOSettings)
        try:
            report = check_trainer("mine", tasks=tasks, max_steps=max_steps, **options)
        except TrainerCheckError as error:
            report = error.report
        failed = {(task.task.name, check): task.results[check] for task in report.tasks for check in task.results}
        return {key: result.message for key, result in failed.items() if result.status is Status.FAILED}

    return check


def without_learning(failures):
    """Leave out that the task was not learned, for which the run was too short."""
    return {check: message for (_, check), message in failures.items() if check != "learns"}


class TestSoundTrainers:
    @pytest.mark.learning
    @pytest.mark.parametrize("name", ["ppo", "sac", "a2c", "dqn"])
    def test_they_pass(self, name):
        if name not in register_trainer_plugins()[0]:
            pytest.skip(f"the plug-in that gives {name} is not installed")
        report = check_trainer(name)
        fits = {task.task.name for task in report.tasks if task.refusal is None}
        refused = {"memory", "continuous", "hybrid"} if name == "dqn" else {"memory"}
        assert fits == set(TASKS) - refused
        assert report.passed

    @pytest.mark.learning
    @pytest.mark.parametrize("name", ["ppo", "a2c"])
    def test_networks_with_memory_pass(self, name):
        if name not in register_trainer_plugins()[0]:
            pytest.skip(f"the plug-in that gives {name} is not installed")
        report = check_trainer(name, network_settings={"memory": {}}, tasks=["memory", "interrupted", "crowd"])
        assert [task.refusal for task in report.tasks] == [None, None, None]

    def test_a_report_reads_as_a_table(self):
        report = check_trainer("ppo", tasks=["crowd", "memory"], max_steps=LONG_ENOUGH)
        headline, _, head, crowd, memory, *rest = str(report).splitlines()
        assert headline.startswith("Trainer ppo, seed 1, ")
        assert headline.endswith(": 7 checks passed.")
        checks = ["trains", "statistics", "resumes", "acts", "learns", "masks", "exports", "repeats"]
        assert head.split() == ["task", "return", "wanted", *checks]
        _, reached, wanted, *results = crowd.split()
        assert float(reached) > float(wanted) == 0.85
        assert results == ["ok", "ok", "ok", "ok", "ok", "-", "ok", "ok"]
        assert memory.startswith("memory       does not fit: it is for networks with memory")
        assert rest == []

    def test_the_process_is_left_as_it_was(self, capsys):
        logging_util.set_log_level(logging_util.INFO)
        writer = ConsoleWriter()
        StatsReporter.add_writer(writer)
        for seed in (random.seed, np.random.seed, torch.manual_seed):
            seed(5)
        before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
        n_threads = torch.get_num_threads()
        check_trainer("ppo", tasks=["crowd"], max_steps=LONG_ENOUGH)
        assert before == (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())
        assert torch.get_num_threads() == n_threads
        assert logging_util.root_logger().level == logging_util.INFO
        assert StatsReporter.writers == [writer]
        assert capsys.readouterr().out == ""

    def test_a_report_says_the_same_every_time(self):
        reports = [check_trainer("ppo", tasks=["crowd"], max_steps=LONG_ENOUGH) for _ in range(2)]
        assert reports[0].tasks[0].mean_return == reports[1].tasks[0].mean_return


class NaNStatistic(PPOTrainer):
    def _process_trajectory(self, trajectory):
        super()._process_trajectory(trajectory)
        self.stats_reporter.add_stat("Policy/Odd", float("nan"))


class DoubledReturns(PPOTrainer):
    def _update_end_episode_stats(self, agent_id, optimizer):
        self.collected_rewards["environment"][agent_id] = 2 * self.collected_rewards["environment"][agent_id] + 0.01
        super()._update_end_episode_stats(agent_id, optimizer)


class UnreportedReturns(PPOTrainer):
    def _update_end_episode_stats(self, agent_id, optimizer):
        pass


class LearnsInInference(PPOTrainer):
    def _process_trajectory(self, trajectory):
        super()._process_trajectory(trajectory)
        if not self.is_training:
            with torch.no_grad():
                next(self.policy.actor.network_body.parameters()).add_(0.01)


class WritesInInference(PPOTrainer):
    def _process_trajectory(self, trajectory):
        super()._process_trajectory(trajectory)
        if not self.is_training and not self.checkpoints.checkpoints:
            self._checkpoint()


class ForgetfulOptimizer(TorchPPOOptimizer):
    def get_modules(self):
        modules = super().get_modules()
        del modules["Optimizer:value_optimizer"]
        return modules


class ForgetsItsOptimizer(PPOTrainer):
    optimizer_class = ForgetfulOptimizer


class Unseeded(PPOTrainer):
    def create_policy(self, parsed_behavior_id, behavior_spec):
        policy = super().create_policy(parsed_behavior_id, behavior_spec)
        with torch.no_grad():
            next(policy.actor.network_body.parameters()).add_(np.random.default_rng().normal())
        return policy


class CountingActor(SimpleActor):
    """In an exported model the number of calls is a constant, that of the time of the export."""

    n_calls = 0

    def forward(self, inputs, masks=None, memories=None):
        self.n_calls += 1
        return super().forward([values + self.n_calls for values in inputs], masks, memories)


class CannotBeExported(PPOTrainer):
    actor_class = CountingActor


class FailingActor(SimpleActor):
    def forward(self, inputs, masks=None, memories=None):
        raise ArithmeticError("this network knows no ONNX")


class FailsToExport(PPOTrainer):
    actor_class = FailingActor


class LeavesNoModel(PPOTrainer):
    def save_model(self):
        super().save_model()
        Path(f"{self.artifact_path}.onnx").unlink()


class MaskBlindPolicy(TorchPolicy):
    def get_action(self, decision_requests, worker_id=0):
        blind = copy.copy(decision_requests)
        blind.action_mask = None
        return super().get_action(blind, worker_id)


class IgnoresMasks(PPOTrainer):
    def create_policy(self, parsed_behavior_id, behavior_spec):
        policy = super().create_policy(parsed_behavior_id, behavior_spec)
        policy.__class__ = MaskBlindPolicy
        return policy


class TakesInterruptionsForEnds(PPOTrainer):
    def _evaluate_values(self, buffer, endings):
        all_next_values = super()._evaluate_values(buffer, endings)
        return [
            dict.fromkeys(next_values, 0.0) if ending.done_reached else next_values
            for ending, next_values in zip(endings, all_next_values)
        ]


class LooksBeyondEnds(PPOTrainer):
    def _evaluate_values(self, buffer, endings):
        return super()._evaluate_values(buffer, [ending._replace(done_reached=False) for ending in endings])


class NeverNormalizes(PPOTrainer):
    def _update_normalization(self, buffer):
        pass


class FailsInTraining(PPOTrainer):
    def _process_trajectory(self, trajectory):
        super()._process_trajectory(trajectory)
        self.reward_shaper.shape(trajectory)  # the author's mistake


class FailsInConstructor(PPOTrainer):
    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        raise KeyError("my_setting")


class CountsNoSteps(PPOTrainer):
    def _process_trajectory(self, trajectory):
        pass


class DiscreteOnly(PPOTrainer):
    def create_policy(self, parsed_behavior_id, behavior_spec):
        if behavior_spec.action_spec.continuous_size:
            raise TrainerConfigError("It has no continuous actions.")
        return super().create_policy(parsed_behavior_id, behavior_spec)


@pytest.mark.parametrize(
    ("trainer_class", "check", "message"),
    [
        (NaNStatistic, "statistics", "Not finite: Policy/Odd = nan"),
        (DoubledReturns, "statistics", "and no episode came to that: the environment paid from 0"),
        (UnreportedReturns, "statistics", "has to call _update_end_episode_stats"),
        (LearnsInInference, "acts", "policy.actor, network_body"),
        (WritesInInference, "acts", "Inference wrote to the run's folder: Branches/Branches-"),
        (ForgetsItsOptimizer, "resumes", "optimizer.optimizer, state, 6: only in the first"),
        (Unseeded, "repeats", "policy.actor, network_body"),
        (CannotBeExported, "exports", "deterministic_discrete_actions are up to"),
        (FailsToExport, "exports", "ArithmeticError: this network knows no ONNX"),
        (LeavesNoModel, "exports", "save_model() left no model at Branches.onnx"),
        (FailsInConstructor, "trains", "KeyError: 'my_setting'"),
        (CountsNoSteps, "trains", "the trainer had counted 0 steps"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_fault_fails_its_check_and_no_other(failures, trainer_class, check, message):
    found = without_learning(failures(trainer_class, "branches"))
    assert list(found) == [check]
    assert message in found[check]


def test_an_error_is_shown_with_its_place(failures):
    found = failures(FailsInTraining, "branches")
    message = found["branches", "trains"]
    assert "self.reward_shaper.shape(trajectory)  # the author's mistake" in message
    assert "AttributeError: 'FailsInTraining' object has no attribute 'reward_shaper'" in message
    assert "mlagents/testing" not in message


def test_a_plugin_that_fails_is_named_with_its_own_code(install_plugin):
    source = """
from mlagents.trainers.ppo.trainer import PPOSettings, PPOTrainer

class Failing(PPOTrainer):
    def _process_trajectory(self, trajectory):
        super()._process_trajectory(trajectory)
        raise ArithmeticError("a mistake of its author")

def get_type_and_setting():
    return {"failing": Failing}, {"failing": PPOSettings}
"""
    path = install_plugin("my-plugin", source)
    with pytest.raises(TrainerCheckError) as caught:
        check_trainer("failing", tasks=["crowd"])
    message = caught.value.report.tasks[0].results["trains"].message
    assert message.startswith("plug-in the_my_plugin = my_plugin:get_type_and_setting (of my-plugin 1.5) failed in ")
    assert f"Failing._process_trajectory ({path}:7): ArithmeticError: a mistake of its author" in message
    assert message.count("File ") == 1


def test_a_trainer_that_is_not_installed_is_named_by_its_module(install_plugin):
    report = check_trainer("mlagents.trainers.ppo.trainer:PPOTrainer", tasks=["crowd"], max_steps=LONG_ENOUGH)
    assert report.passed


def test_forbidden_choices_are_a_check_of_their_own(failures):
    found = failures(IgnoresMasks, "masks")
    assert list(found) == [("masks", "masks")]
    assert "which its action mask forbids" in found["masks", "masks"]


@pytest.mark.parametrize(
    ("trainer_class", "task", "at_most"),
    [
        (TakesInterruptionsForEnds, "interrupted", 0.35),
        (LooksBeyondEnds, "interrupted", 0.35),
        (NeverNormalizes, "scales", 0.8),
    ],
)
def test_a_lacking_capability_keeps_a_trainer_from_learning(failures, trainer_class, task, at_most):
    found = failures(trainer_class, task, max_steps=None)
    assert list(found) == [(task, "learns")]
    reached = float(re.match(r"The mean return of 800 episodes is ([\d.]+), wanted", found[task, "learns"])[1])
    assert reached <= at_most


@pytest.mark.learning
def test_a_trainer_that_never_learns_fails_every_task(failures):
    tasks = [name for name in TASKS if name != "memory"]
    found = failures(PPOTrainer, *tasks, hyperparameters={"learning_rate": 0.0}, max_steps=200)
    assert list(found) == [(task, "learns") for task in tasks]


def test_a_failure_stops_no_other_check(failures):
    assert {check for _, check in failures(NaNStatistic, "branches", "crowd")} == {"statistics", "learns"}


def test_tasks_that_a_trainer_refuses_are_none_of_its_own(monkeypatch):
    monkeypatch.setitem(all_trainer_types, "mine", DiscreteOnly)
    monkeypatch.setitem(all_trainer_settings, "mine", PPOSettings)
    report = check_trainer("mine", tasks=["hybrid", "crowd"], max_steps=LONG_ENOUGH)
    assert report.tasks[0].refusal == "It has no continuous actions."
    assert report.tasks[0].results == {}
    assert "hybrid       does not fit: It has no continuous actions." in str(report)
    with pytest.raises(TrainerCheckError, match="FAILED, for none of the tasks fits it") as caught:
        check_trainer("mine", tasks=["hybrid", "continuous"])
    assert str(caught.value) == str(caught.value.report)


def test_without_onnxruntime_a_check_is_skipped(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    report = check_trainer("ppo", tasks=["crowd"], max_steps=LONG_ENOUGH)
    assert report.tasks[0].results["exports"].status is Status.SKIPPED
    assert report.passed
    assert "pip install onnxruntime" in str(report)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "poo"}, "Invalid trainer type poo"),
        ({"tasks": ["maks"]}, "There is no task maks"),
        ({"hyperparameters": {"learning_rat": 1}}, "Did you mean 'learning_rate'"),
        ({"network_settings": {"hidden_units": 0}}, "hidden_units"),
    ],
)
def test_a_mistake_in_the_call_raises(options, message):
    with pytest.raises(TrainerConfigError, match=message):
        check_trainer(**{"name": "ppo", **options})


class TestCommandLine:
    def test_a_sound_trainer(self, capsys):
        assert main(["ppo", "--tasks", "crowd", "--seed", "2", "--hyperparameters", "{num_epoch: 2}"]) == 0
        assert capsys.readouterr().out.startswith("Trainer ppo, seed 2, ")

    def test_an_unsound_trainer(self, capsys):
        arguments = ["--max-steps", "200", "--network-settings", "{hidden_units: 4}"]
        assert main(["ppo", "--tasks", "crowd", *arguments]) == 1
        assert "1 FAILED" in capsys.readouterr().out

    def test_mistakes(self, capsys):
        assert main(["poo"]) == 1
        assert capsys.readouterr().err.startswith("error: ")
        with pytest.raises(SystemExit):
            main(["ppo", "--hyperparameters", "learning_rate"])
        assert "'learning_rate' is not a mapping" in capsys.readouterr().err


def test_states_differ_where_anything_in_them_does():
    state = {"step": 3, "actor": {"weight": torch.tensor([1.0, 2.0])}, "adam": {"groups": [{"lr": 0.1}]}}
    assert differences(state, copy.deepcopy(state)) == []
    other = {"step": 4, "actor": {"weight": torch.tensor([1.0, 2.5])}, "adam": {"groups": [{"lr": 0.2}]}, "critic": {}}
    assert differences(state, other) == [
        "step: 3 and 4",
        "actor, weight: up to 0.5 apart",
        "adam, groups, 0, lr: 0.1 and 0.2",
        "critic: only in the second",
    ]
    assert differences({"w": torch.zeros(2)}, {"w": torch.zeros(3)}) == ["w: shape (2,) and (3,)"]
