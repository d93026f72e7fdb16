"""What a broken plug-in gets: one message with its name, its distribution, the place and its own code."""

import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
import torch

from mlagents.plugins import ML_AGENTS_STATS_WRITER
from mlagents.plugins.trainer_type import register_trainer_plugins
from mlagents.trainers.ppo.trainer import PPOTrainer
from mlagents.trainers.trainer_controller import TrainerController

NAME = "the_bad_trainer = bad_trainer:get_type_and_setting (of bad-trainer 1.5)"

BROKEN_REGISTRATIONS = {
    "missing module": (
        "import no_such_module_anywhere",
        "failed in the import of bad_trainer ({file}:1): ModuleNotFoundError: No module named 'no_such_module_",
    ),
    "syntax": ("\ndef f(:", "cannot be used: SyntaxError: "),
    "end of the process": ("import sys; sys.exit()", "failed in the import of bad_trainer ({file}:1): SystemExit"),
    "no function": ("", "cannot be used: AttributeError: module 'bad_trainer' has no attribute 'get_type_and_setting'"),
    "no callable": ("get_type_and_setting = 3", "cannot be used: TypeError: 'int' object is not callable"),
    "function raises": (
        "def get_type_and_setting():\n    raise KeyError('deep')",
        "failed in get_type_and_setting ({file}:2): KeyError: 'deep'",
    ),
    "nothing": (
        "def get_type_and_setting(): return None",
        "cannot be used: it returned None instead of ({{name: trainer class}}, {{name: settings class}}) ({file}:1)",
    ),
    "too much": (
        "def get_type_and_setting(): return {}, {}, {}",
        "cannot be used: it returned ({{}}, {{}}, {{}}) instead of",
    ),
    "names differ": (
        "def get_type_and_setting(): return {'bad': int}, {'b': int}",
        "cannot be used: it gives trainers for ['bad'], but settings for ['b'] ({file}:1)",
    ),
    "no trainer": (
        "class T: pass\ndef get_type_and_setting(): return {'bad': T}, {'bad': int}",
        "cannot be used: the trainer of bad, <class 'bad_trainer.T'>, is not a subclass of "
        "mlagents.trainers.trainer.Trainer ({file}:1)",
    ),
    "no class": (
        "def make(): pass\ndef get_type_and_setting(): return {'bad': make}, {'bad': int}",
        "cannot be used: the trainer of bad, <function make at ",
    ),
    "abstract": (
        "from mlagents.trainers.trainer.on_policy_trainer import OnPolicyTrainer\n"
        "class T(OnPolicyTrainer): pass\ndef get_type_and_setting(): return {'bad': T}, {'bad': int}",
        "cannot be used: the trainer of bad, T, lacks methods that every trainer of its kind has to define: "
        "_process_trajectory, create_optimizer, create_policy ({file}:2)",
    ),
    "no settings": (
        "from mlagents.trainers.ppo.trainer import PPOTrainer\n"
        "class S: pass\ndef get_type_and_setting(): return {'bad': PPOTrainer}, {'bad': S}",
        "cannot be used: the settings of bad, <class 'bad_trainer.S'>, are not a subclass of "
        "HyperparamSettings ({file}:2)",
    ),
}

TRAINER = """
import torch
from mlagents.trainers.exception import TrainerConfigError
from mlagents.trainers.ppo.optimizer_torch import PPOSettings, TorchPPOOptimizer
from mlagents.trainers.ppo.trainer import PPOTrainer
from mlagents.trainers.torch_entities.networks import SimpleActor
from mlagents.trainers.torch_entities.utils import ModelUtils

class BadSettings(PPOSettings):
    pass

class BadActor(SimpleActor):
    {actor}

class BadOptimizer(TorchPPOOptimizer):
    {optimizer}

class BadTrainer(PPOTrainer):
    settings_class = BadSettings
    optimizer_class = BadOptimizer
    actor_class = BadActor
    {trainer}

def get_type_and_setting():
    return {{"bad": BadTrainer}}, {{"bad": BadSettings}}
"""

# The part of TRAINER that is at fault, its code (the fault is on the line marked), the place and the error told of.
BROKEN_RUNS = {
    "constructor": (
        "trainer",
        "def __init__(self, *args): 1 / 0  # here",
        "BadTrainer.__init__",
        "ZeroDivisionError: division by zero",
    ),
    "constructor takes too little": (
        "trainer",
        "def __init__(self, name): pass  # here",
        "BadTrainer.__init__",
        "TypeError: BadTrainer.__init__() takes 2 positional arguments but 8 were given",
    ),
    "create_policy": (
        "trainer",
        "def create_policy(self, *args): return args[2]  # here",
        "BadTrainer.create_policy",
        "IndexError: tuple index out of range",
    ),
    "create_optimizer": (
        "trainer",
        "def create_optimizer(self): return missing  # here",
        "BadTrainer.create_optimizer",
        "NameError: name 'missing' is not defined",
    ),
    "get_modules": (
        "optimizer",
        "def get_modules(self): return self.missing  # here",
        "BadOptimizer.get_modules",
        "AttributeError: 'BadOptimizer' object has no attribute 'missing'",
    ),
    "acting": (
        "actor",
        "def get_action_and_stats(self, obs, masks=None, memories=None): return obs @ obs  # here",
        "BadActor.get_action_and_stats",
        "TypeError: unsupported operand type(s) for @: 'list' and 'list'",
    ),
    "acting takes too little": (
        "actor",
        "def get_action_and_stats(self, obs): pass  # here",
        "BadActor.get_action_and_stats",
        "TypeError: BadActor.get_action_and_stats() got an unexpected keyword argument 'masks'",
    ),
    "_process_trajectory": (
        "trainer",
        "def _process_trajectory(self, trajectory): return trajectory['reward']  # here",
        "BadTrainer._process_trajectory",
        "TypeError: 'Trajectory' object is not subscriptable",
    ),
    "_process_trajectory takes too little": (
        "trainer",
        "def _process_trajectory(self): pass  # here",
        "BadTrainer._process_trajectory",
        "TypeError: BadTrainer._process_trajectory() takes 1 positional argument but 2 were given",
    ),
    "update": (
        "optimizer",
        "def update(self, batch, num_sequences): raise ValueError('no gradient')  # here",
        "BadOptimizer.update",
        "ValueError: no gradient",
    ),
    "our function called wrongly": (
        "optimizer",
        "def update(self, batch, num_sequences): return ModelUtils.masked_mean(None, None)  # here",
        "BadOptimizer.update",
        "AttributeError: 'NoneType' object has no attribute 'mean'",
    ),
}


@pytest.fixture
def run_bad(install_plugin, run_learn, basic_config):
    """Return a function that trains Basic with the trainer type "bad", of a plug-in with the given source."""

    def run(source, *args, **behavior):
        path = install_plugin("bad-trainer", source)
        config = basic_config(trainer_type="bad", **behavior)
        return path, *run_learn(config, "--env", "Basic", "--run-id", "bad", "--seed", 1, *args)

    return run


def trainer(**parts):
    return TRAINER.format(**{"actor": "pass", "optimizer": "pass", "trainer": "pass", **parts})


def line_at_fault(path):
    return 1 + next(i for i, text in enumerate(path.read_text().splitlines()) if text.endswith("# here"))


def assert_only_its_own_frames(err, path):
    files = [line for line in err.splitlines() if line.startswith("  File ")]
    assert files
    assert all(str(path) in line for line in files)
    assert err.count("Traceback") == 1


@pytest.mark.parametrize("kind", BROKEN_REGISTRATIONS)
def test_a_plugin_that_does_not_register_stops_only_its_own_run(run_bad, capsys, kind):
    source, problem = BROKEN_REGISTRATIONS[kind]
    path, code, _, err = run_bad(source)
    assert code == 1
    assert ": behaviors.Basic.trainer_type: Invalid trainer type bad was found. " in err
    assert f"Installed, but not to be used: plug-in {NAME} {problem.format(file=path)}" in err
    assert str(path) in err or kind in ("no function", "no callable")
    if "Traceback" in err:
        assert_only_its_own_frames(err, path)
    assert not Path("results").exists()

    types, _ = register_trainer_plugins()
    assert types["ppo"] is PPOTrainer
    assert "bad" not in types
    (warning,) = [line for line in capsys.readouterr().out.splitlines() if "bad-trainer" in line]
    assert warning.startswith(f"[WARNING] The plug-in {NAME} cannot be used: ")
    assert warning.endswith("Repair it, or remove it: pip uninstall bad-trainer")


@pytest.mark.parametrize("kind", BROKEN_RUNS)
def test_a_plugin_that_fails_in_a_run_is_named_with_its_code(run_bad, kind):
    part, source, place, error = BROKEN_RUNS[kind]
    path, code, _, err = run_bad(trainer(**{part: source}))
    assert code == 1
    assert err.startswith(
        f"mlagents-learn: error: plug-in {NAME} failed in {place} ({path}:{line_at_fault(path)}): {error}"
    )
    if "takes too little" in kind:
        assert "Traceback" not in err
    else:
        assert_only_its_own_frames(err, path)
        assert f"    {source}" in err
    assert "--debug shows all" in err


def test_an_object_that_lacks_what_we_use_is_named(run_bad):
    source = trainer(
        trainer="def create_policy(self, *args): return LackingPolicy()\n    def create_optimizer(self): return None"
    )
    path, code, _, err = run_bad(source + "\nclass LackingPolicy: pass  # here")
    assert code == 1
    assert err.startswith(
        f"mlagents-learn: error: plug-in {NAME} failed in LackingPolicy ({path}:{line_at_fault(path)})"
    )
    assert "AttributeError: 'LackingPolicy' object has no attribute" in err


def test_a_failure_in_code_that_it_inherits_is_named_too(run_bad):
    """No line of the plug-in is on the stack: our code runs on its object, and stumbles over what it left there."""
    _, code, _, err = run_bad(trainer(trainer="_normalize_advantages = None"))
    assert code == 1
    first, *rest = err.splitlines()
    assert f"plug-in {NAME} failed in BadTrainer._update_policy (" in first
    assert first.endswith("TypeError: 'NoneType' object is not callable")
    files = [line for line in rest if line.startswith("  File ")]
    assert "rl_trainer.py" in files[0]
    assert "on_policy_trainer.py" in files[-1]
    assert not any("learn.py" in line for line in files)


def test_the_words_of_the_author_reach_the_user_as_they_are(run_bad):
    refuses = "def create_policy(self, *args): raise TrainerConfigError('Only continuous actions.')"
    _, code, _, err = run_bad(trainer(trainer=refuses))
    assert (code, err) == (1, "mlagents-learn: error: Only continuous actions.\n")


def test_a_bug_of_ours_shows_its_traceback(run_bad, monkeypatch):
    def advance(self, env_manager):
        raise RuntimeError("a bug of ours")

    monkeypatch.setattr(TrainerController, "advance", advance)
    with pytest.raises(RuntimeError, match="a bug of ours"):
        run_bad(trainer())


def test_what_was_learned_before_a_failure_is_saved(run_bad):
    fails_later = (
        "def _process_trajectory(self, trajectory):\n"
        "        super()._process_trajectory(trajectory)\n"
        "        if self.get_step > 150: raise ValueError('too far')"
    )
    _, code, _, err = run_bad(trainer(trainer=fails_later), checkpoint_interval=100)
    assert code == 1
    assert "ValueError: too far" in err
    state = torch.load("results/bad/Basic/checkpoint.pt", weights_only=True)
    assert int(state["global_step"]["_GlobalSteps__global_step"]) > 150
    assert len(list(Path("results/bad/Basic").glob("Basic-*.pt"))) == 2


@pytest.mark.parametrize("poisons_weights", [True, False])
def test_nan_from_update_stops_the_run_and_spoils_no_checkpoint(run_bad, poisons_weights):
    poison = "[p.data.fill_(float('nan')) for p in self.policy.actor.parameters()]" if poisons_weights else "pass"
    gives_nan = f"""def update(self, batch, num_sequences):  # here
        stats = super().update(batch, num_sequences)
        if self.policy.get_current_step() > 150:
            {poison}
            stats["Losses/Policy Loss"] = float("nan")
        return stats
"""
    path, code, out, err = run_bad(trainer(optimizer=gives_nan), checkpoint_interval=100, max_steps=400)
    assert code == 1
    assert f"BadOptimizer.update ({path}:{line_at_fault(path)}) gave Losses/Policy Loss = NaN" in out
    assert "did not get better after going back to the last checkpoint" in err
    assert err.endswith(f"\nThis concerns the plug-in {NAME}.\n")
    assert "Traceback" not in err
    state = torch.load("results/bad/Basic/checkpoint.pt", weights_only=True)
    assert all(torch.isfinite(tensor).all() for tensor in state["Policy"].values())
    good = max(Path("results/bad/Basic").glob("Basic-1*.pt"))  # of step 100, before anything was wrong
    there = torch.load(good, weights_only=True)["Policy"]
    assert all(torch.equal(tensor, there[key]) for key, tensor in state["Policy"].items())


def test_debug_shows_the_whole_traceback_first(install_plugin, basic_config, tmp_path):
    """In a process of its own, as a user has it."""
    _, source, place, error = BROKEN_RUNS["update"]
    path = install_plugin("bad-trainer", trainer(optimizer=source))
    command = [Path(sysconfig.get_path("scripts"), "mlagents-learn"), basic_config(trainer_type="bad")]
    finished = subprocess.run(
        [*command, "--env", "Basic", "--debug"],
        cwd=tmp_path,
        env={"PATH": "", "PYTHONPATH": str(path.parent)},
        capture_output=True,
        text=True,
    )
    assert finished.returncode == 1
    whole, _, message = finished.stderr.partition("mlagents-learn: error: ")
    assert "trainer_controller.py" in whole
    assert error in whole
    assert message.startswith(f"plug-in {NAME} failed in {place} (")
    assert_only_its_own_frames(message, path)


def test_ten_broken_plugins_change_no_healthy_run(install_plugin, run_learn, basic_config):
    """Not even those that draw random numbers before they fail."""
    config = basic_config()
    assert run_learn(config, "--env", "Basic", "--run-id", "alone", "--seed", 4)[0] == 0
    draw = "import random, numpy, torch\nrandom.random(); numpy.random.rand(3); torch.rand(3)\n"
    for index, kind in enumerate(list(BROKEN_REGISTRATIONS)[:7]):
        install_plugin(f"broken-{index}", draw + BROKEN_REGISTRATIONS[kind][0])
    for index, body in enumerate(["raise ValueError", "return [3]", "return None"]):
        factory = f"{draw}def make(options):\n    torch.rand(3)\n    {body}"
        install_plugin(f"broken-writer-{index}", factory, group=ML_AGENTS_STATS_WRITER, entry="make")
    code, out, err = run_learn(config, "--env", "Basic", "--run-id", "among-broken", "--seed", 4)
    assert (code, err) == (0, "")
    assert out.count("cannot be used: ") == 10
    alone, among_broken = (Path("results", run, "Basic", "checkpoint.pt") for run in ("alone", "among-broken"))
    assert alone.read_bytes() == among_broken.read_bytes()
    assert sys.modules.get("broken_6") is not None


def test_a_trainer_that_cannot_save_keeps_no_other_from_saving(capsys):
    class Saved:
        get_step = 100
        error = None
        is_saved = False

        def save_model(self):
            if self.error is not None:
                raise self.error
            self.is_saved = True

    controller = TrainerController(None, {}, train=True, stop=None, progress=None)
    first, second, third = Saved(), Saved(), Saved()
    first.error, second.error = ValueError("the first"), ValueError("the second")
    controller.trainers = {"A": first, "B": second, "C": third}
    with pytest.raises(ValueError, match="the first"):
        controller._save_models()
    assert third.is_saved
    assert "The model of B could not be saved: the second" in capsys.readouterr().out
