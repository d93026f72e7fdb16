"""A user's mistake is one message that says what, where and what to do, and exit code 1; never a traceback."""

import os
import stat
import sys

import pytest
import torch

CONFIG = """\
behaviors:
  Basic:
    trainer_type: ppo
    hyperparameters:
      batch_size: 16
      buffer_size: 64
    network_settings:
      hidden_units: 16
      num_layers: 1
    max_steps: 50
    time_horizon: 8
"""
RUN = ["--env", "Basic", "--run-id", "run"]


def edited(old, new):
    assert old in CONFIG
    return CONFIG.replace(old, new)


CONFIGURATIONS = {
    "an unknown key": (
        edited("batch_size", "batch_sise"),
        ["config.yaml:5", "behaviors.Basic.hyperparameters.batch_sise", "batch_size"],
    ),
    "an unknown section": (
        CONFIG + "enviroment_parameters: {}\n",
        ["config.yaml:12", "enviroment_parameters", "environment_parameters"],
    ),
    "text for a number": (
        edited("max_steps: 50", "max_steps: many"),
        ["config.yaml:10", "behaviors.Basic.max_steps", "many"],
    ),
    "a fraction for a whole number": (
        edited("num_layers: 1", "num_layers: 1.5"),
        ["config.yaml:9", "behaviors.Basic.network_settings.num_layers", "1.5"],
    ),
    "a list for a section": (
        edited(
            "    hyperparameters:\n      batch_size: 16\n      buffer_size: 64\n", "    hyperparameters: [16, 64]\n"
        ),
        ["config.yaml:4", "behaviors.Basic.hyperparameters"],
    ),
    "text for a truth value": (
        edited("num_layers: 1", "num_layers: 1\n      normalize: maybe"),
        ["config.yaml:10", "behaviors.Basic.network_settings.normalize", "maybe"],
    ),
    "a value out of range": (
        edited("batch_size: 16", "batch_size: 0"),
        ["config.yaml:5", "behaviors.Basic.hyperparameters.batch_size", "at least 1"],
    ),
    "an unknown choice": (
        edited("batch_size: 16", "learning_rate_schedule: linaer"),
        ["config.yaml:5", "learning_rate_schedule", "linaer", "linear", "constant"],
    ),
    "an unknown reward signal": (
        CONFIG + "    reward_signals: {extrinsik: {gamma: 0.9}}\n",
        ["config.yaml:12", "extrinsik", "extrinsic"],
    ),
    "an unknown trainer type": (
        edited("trainer_type: ppo", "trainer_type: a3c"),
        ["config.yaml:3", "behaviors.Basic.trainer_type", "Invalid trainer type a3c was found", "ppo"],
    ),
    "a trainer type of 1.1.0 that is not there yet": (
        edited(
            "trainer_type: ppo\n    hyperparameters:\n      batch_size: 16\n      buffer_size: 64", "trainer_type: poca"
        ),
        ["config.yaml:3", "Invalid trainer type poca was found", "not there yet"],
    ),
    "encoder": (
        edited("num_layers: 1", "num_layers: 1\n      vis_encode_type: resnext"),
        ["config.yaml:10", "behaviors.Basic.network_settings.vis_encode_type", "resnext", "resnet"],
    ),
    "self-play": (CONFIG + "    self_play: {window: 10}\n", ["config.yaml:12", "self_play", "not there yet"]),
    "a curiosity reward": (
        CONFIG + "    reward_signals: {curiosity: {strength: 0.1}}\n",
        ["config.yaml:12", "curiosity", "not there yet"],
    ),
    "a curriculum": (
        CONFIG
        + "environment_parameters:\n  mass:\n    curriculum:\n"
        + "    - {name: A, value: 1, completion_criteria: {behavior: Basic, threshold: 0.5, measure: progress}}\n"
        + "    - {name: B, value: 2}\n",
        ["environment_parameters.mass.curriculum", "not there yet"],
    ),
    "a sampler the wrong way round": (
        CONFIG
        + "environment_parameters:\n"
        + "  mass: {sampler_type: uniform, sampler_parameters: {min_value: 2, max_value: 1}}\n",
        ["config.yaml:13", "environment_parameters.mass", "min_value"],
    ),
    "a misspelt behaviour": (
        edited("Basic:", "Basik:"),
        ["The behavior Basic has no entry", "Basik", "The environment's behaviors: Basic"],
    ),
    "broken YAML": (edited("    max_steps: 50", "   max_steps: 50"), ["config.yaml:10"]),
    "a key given twice": (CONFIG + "    max_steps: 60\n", ["config.yaml:12", "max_steps"]),
    "no mapping at the top": ("- behaviors\n", ["config.yaml"]),
    "an empty file": ("", ["config.yaml", "empty"]),
}


@pytest.mark.parametrize("case", CONFIGURATIONS)
def test_a_broken_configuration(run_learn, tmp_path, case):
    text, parts = CONFIGURATIONS[case]
    config = tmp_path / "config.yaml"
    config.write_text(text)
    assert_one_message(run_learn(config, *RUN), parts)
    # Nothing is left behind that would stand in the way of the next attempt.
    config.write_text(CONFIG)
    assert run_learn(config, *RUN)[0] == 0


def a_file_that_is_not_utf8(tmp_path):
    (tmp_path / "config.yaml").write_bytes(b"behaviors: {\xff\xfe: 1}")
    return ["config.yaml", *RUN]


def a_run_that_exists(tmp_path):
    (tmp_path / "results" / "run" / "Basic").mkdir(parents=True)
    return ["config.yaml", *RUN]


def a_run_to_resume_that_is_another(tmp_path):
    (tmp_path / "results" / "rum").mkdir(parents=True)
    return ["config.yaml", *RUN, "--resume"]


def a_run_without_a_checkpoint(tmp_path):
    (tmp_path / "results" / "run" / "Basic").mkdir(parents=True)
    return ["config.yaml", *RUN, "--resume"]


def a_checkpoint_that_is_none(tmp_path):
    folder = tmp_path / "results" / "run" / "Basic"
    folder.mkdir(parents=True)
    (folder / "checkpoint.pt").write_bytes(b"not a checkpoint")
    return ["config.yaml", *RUN, "--resume"]


class Hostile:
    def __reduce__(self):
        return os.system, ("echo pwned > pwned",)


def a_hostile_checkpoint(tmp_path):
    folder = tmp_path / "results" / "run" / "Basic"
    folder.mkdir(parents=True)
    torch.save({"Policy": Hostile()}, folder / "checkpoint.pt")
    return ["config.yaml", *RUN, "--resume"]


def results_in_a_file(tmp_path):
    (tmp_path / "results").write_text("a file, not a folder")
    return ["config.yaml", *RUN]


def a_module_whose_factory_is_misspelt(tmp_path):
    (tmp_path / "my_env_a.py").write_text("def make_env(): ...\n")
    return ["config.yaml", "--env", "module:my_env_a:mak_env", "--run-id", "run"]


def a_factory_that_makes_no_environment(tmp_path):
    (tmp_path / "my_env_b.py").write_text("def make(): return 5\n")
    return ["config.yaml", "--env", "module:my_env_b:make", "--run-id", "run"]


def a_file_that_may_not_be_executed(tmp_path):
    path = tmp_path / "Game.x86_64"
    path.write_text("#!/bin/sh\nexit 7\n")
    return ["config.yaml", "--env", path, "--run-id", "run"]


def an_executable_that_ends_at_once(tmp_path):
    command = a_file_that_may_not_be_executed(tmp_path)
    path = tmp_path / "Game.x86_64"
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return command


def of(*arguments):
    return lambda tmp_path: list(arguments)


COMMANDS = {
    "a missing file": (of("confg.yaml", *RUN), ["confg.yaml"]),
    "a folder for a file": (of(".", *RUN), ["folder"]),
    "a file that is not UTF-8": (a_file_that_is_not_utf8, ["config.yaml", "UTF-8"]),
    "an unknown flag": (of("config.yaml", *RUN, "--rezume"), ["--rezume", "--resume"]),
    "a flag of the wrong type": (of("config.yaml", *RUN, "--seed", "x"), ["--seed", "x"]),
    "a seed out of range": (of("config.yaml", *RUN, "--seed", "-5"), ["seed", "-5"]),
    "a run that exists": (a_run_that_exists, ["run", "--resume", "--force", "--run-id"]),
    "a run to resume that is another": (a_run_to_resume_that_is_another, ["run", "Did you mean 'rum'"]),
    "a run without a checkpoint": (a_run_without_a_checkpoint, ["no checkpoint", "checkpoint.pt"]),
    "a checkpoint that is none": (a_checkpoint_that_is_none, ["checkpoint.pt", "could not be read"]),
    "a hostile checkpoint": (a_hostile_checkpoint, ["checkpoint.pt", "could not be read"]),
    "a run to start from that is not there": (
        of("config.yaml", *RUN, "--initialize-from", "teacher"),
        ["no run 'teacher'", "initialize"],
    ),
    "a run to play that is not there": (of("config.yaml", *RUN, "--inference"), ["no run 'run'", "play"]),
    "results in a file": (results_in_a_file, ["results", "--results-dir"]),
    "an unknown environment": (
        of("config.yaml", "--env", "3DBal", "--run-id", "run"),
        ["3DBal", "Did you mean '3DBall'", "Basic"],
    ),
    "a file that may not be executed": (a_file_that_may_not_be_executed, ["Game.x86_64", "chmod +x"]),
    "an executable that ends at once": (an_executable_that_ends_at_once, ["Worker 0", "Game.x86_64", "exit code 7"]),
    "an unknown environment of Gymnasium's": (
        of("config.yaml", "--env", "gym:CartPole-v7", "--run-id", "run"),
        ["gym:CartPole-v7", "`v1`"],
    ),
    "an unknown environment of PettingZoo's": (
        of("config.yaml", "--env", "pettingzoo:classic/tictactoe", "--run-id", "run"),
        ["Did you mean 'tictactoe_v3'"],
    ),
    "an argument that the environment does not take": (
        of("config.yaml", "--run-id", "run", "--env", "gym:Pendulum-v1", "--env-args", "gravity=3"),
        ["gym:Pendulum-v1", "gravity"],
    ),
    "a module that is not there": (
        of("config.yaml", "--env", "module:my_env_zzz:make", "--run-id", "run"),
        ["my_env_zzz"],
    ),
    "a misspelt factory": (a_module_whose_factory_is_misspelt, ["mak_env", "make_env"]),
    "a factory that makes no environment": (a_factory_that_makes_no_environment, ["my_env_b", "int"]),
    "a device that is not there": (of("config.yaml", *RUN, "--torch-device", "cuda:99"), ["cuda:99", "cpu"]),
}


@pytest.mark.parametrize("case", COMMANDS)
def test_a_broken_command(run_learn, tmp_path, case):
    make_arguments, parts = COMMANDS[case]
    (tmp_path / "config.yaml").write_text(CONFIG)
    assert_one_message(run_learn(*make_arguments(tmp_path)), parts)
    assert not (tmp_path / "pwned").exists()


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="the superuser may write everywhere")
def test_a_results_folder_that_cannot_be_written(run_learn, tmp_path):
    (tmp_path / "config.yaml").write_text(CONFIG)
    (tmp_path / "results").mkdir(mode=0o500)
    assert_one_message(run_learn("config.yaml", *RUN), ["results", "--results-dir"])


@pytest.mark.parametrize(
    ("shape", "properties", "parts"),
    [
        ((3, 8, 8), "NONE TRANSLATIONAL_EQUIVARIANCE TRANSLATIONAL_EQUIVARIANCE", ["height 8", "below 20", "match3"]),
        ((4, 3), "VARIABLE_SIZE VARIABLE_SIZE", ["(4, 3)", "(VARIABLE_SIZE, VARIABLE_SIZE)"]),
    ],
    ids=["an image too small for its encoder", "of a kind without an encoder"],
)
def test_an_observation_that_networks_cannot_take(run_learn, tmp_path, shape, properties, parts):
    module = f"camera_of_{len(shape)}"  # each its own: imports last
    (tmp_path / f"{module}.py").write_text(
        "import numpy as np\n"
        "from mlagents_envs.base_env import *\n"
        "from mlagents_envs.vector_env import VectorEnv\n"
        "class Env(VectorEnv):\n"
        "    def __init__(self):\n"
        f"        properties = tuple(DimensionProperty[name] for name in {properties.split()})\n"
        f"        image = ObservationSpec({shape}, properties, ObservationType.DEFAULT, 'Camera')\n"
        "        super().__init__('Basic', BehaviorSpec([image], ActionSpec.create_discrete((2,))), 1)\n"
        "    def reset_agents(self, indices):\n"
        f"        return [np.zeros((len(indices), *{shape}))]\n"
        "    def step_agents(self, actions):\n"
        f"        return [np.zeros((1, *{shape}))], [0.0], [False], [False]\n"
    )
    (tmp_path / "config.yaml").write_text(CONFIG)
    result = run_learn("config.yaml", "--env", f"module:{module}:Env", "--run-id", "run")
    assert_one_message(result, ["Camera", *parts])
    assert list((tmp_path / "results" / "run").iterdir()) == []


def assert_one_message(result, parts):
    code, out, err = result
    assert code == 1, (out, err)
    assert "Traceback" not in out + err
    assert err.startswith(("mlagents-learn: error: ", "usage: ")), err
    for part in parts:
        assert part in err, err
