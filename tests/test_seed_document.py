"""The document from which plug-ins are written: its Python snippets make a trainer, unedited, and the trainer learns.

Its shell commands are run by `test_seed_document_install`.
"""

import os
import re
import subprocess
import sys
from importlib.metadata import entry_points
from importlib.resources import files
from pathlib import Path

import onnx
import pytest
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mlagents import plugins
from mlagents.trainers.config_file import load_config_file
from mlagents.trainers.exception import TrainerConfigError

TESTS = Path(__file__).parent
PRINTED_SETTINGS = {
    "beta": 0.005,
    "epsilon": 0.2,
    "lambd": 0.95,
    "num_epoch": 3,
    "shared_critic": False,
    "learning_rate_schedule": "linear",
    "beta_schedule": "linear",
    "epsilon_schedule": "linear",
}
STATISTICS_OF_THE_SNIPPETS = {
    "Policy/Extrinsic Value Estimate",
    "Losses/Policy Loss",
    "Losses/Value Loss",
    "Policy/Learning Rate",
    "Policy/Epsilon",
    "Policy/Beta",
}


@pytest.fixture(scope="module")
def registered_package(your_custom_package):
    """Return the package's folder with what its `setup.py` registers in it, for Python to find on its path."""
    subprocess.run([sys.executable, "setup.py", "--quiet", "egg_info"], cwd=your_custom_package, check=True)
    return your_custom_package


@pytest.fixture
def train(registered_package, tmp_path):
    """Return a function that trains by a configuration: what the run's configuration says, and its event log."""

    def run(configuration, environment):
        (tmp_path / "config.yaml").write_text(yaml.safe_dump(configuration), encoding="utf-8")
        command = [sys.executable, "-m", "mlagents.trainers.learn", "config.yaml", "--env", environment]
        options = ["--run-id", "run", "--seed", "1", "--torch-device", "cpu"]
        variables = {**os.environ, "PYTHONPATH": str(registered_package)}
        subprocess.run([*command, *options], cwd=tmp_path, env=variables, check=True, stdout=subprocess.DEVNULL)
        (behavior,) = configuration["behaviors"]
        results = tmp_path / "results" / "run"
        onnx.checker.check_model(str(results / f"{behavior}.onnx"))
        events = EventAccumulator(str(results / behavior))
        events.Reload()
        written = yaml.safe_load((results / "configuration.yaml").read_text(encoding="utf-8"))
        return written["behaviors"][behavior], events

    return run


def mean_rewards(events):
    return [event.value for event in events.Scalars("Environment/Cumulative Reward")]


def test_every_block_of_the_document_is_used(seed):
    tests = [path.read_text(encoding="utf-8") for path in TESTS.glob("test_seed_document*.py")]
    templates = [path.read_text(encoding="utf-8") for path in TESTS.glob("data/your_custom_package/*.txt")]
    used = {name for text in tests for name in re.findall(r'seed\["(\w+)"\]', text)}
    used |= {name for text in templates for name in re.findall(r"# <(\w+)>", text)}
    assert used == set(seed)


def test_the_document_repeats_itself_where_it_checks_the_installation(seed):
    assert seed["create_environment_again"] == seed["create_environment"]
    assert seed["install_all_again"] == seed["install_mlagents"] + seed["install_our_plugin"]


def test_the_key_elements_are_what_the_entry_points_are_made_of(seed):
    elements = [line.partition(":")[0] for line in seed["key_elements"].splitlines()]
    assert elements == ["ML_AGENTS_TRAINER_TYPE", "your_trainer_type", "your_package"]
    assert all(element in seed["entry_points"] for element in elements)
    assert plugins.ML_AGENTS_TRAINER_TYPE == "mlagents.trainer_type"


def test_the_configuration_is_read_as_printed(seed, tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(seed["configuration"], encoding="utf-8")
    assert load_config_file(str(path)).options == {"behaviors": {"3DBall": {"trainer_type": "your_trainer_type"}}}


def test_the_trainer_of_the_snippets_learns_with_the_printed_settings(seed, train):
    configuration = yaml.safe_load(seed["configuration"])
    configuration["behaviors"]["3DBall"].update(
        hyperparameters={"batch_size": 64, "buffer_size": 1024, "learning_rate": 1.0e-3},
        reward_signals={"extrinsic": {"gamma": 0.99, "strength": 0.3}},
        max_steps=20000,
        time_horizon=1000,
        summary_freq=4000,
    )
    behavior, events = train(configuration, "3DBall")
    assert PRINTED_SETTINGS.items() <= behavior["hyperparameters"].items()
    assert set(events.Tags()["scalars"]) > STATISTICS_OF_THE_SNIPPETS
    rewards = mean_rewards(events)
    assert rewards[0] < 2.0
    assert rewards[-1] > 3.0


def test_the_trainer_of_the_snippets_learns_choices_with_a_shared_critic(train):
    behavior = {
        "trainer_type": "your_trainer_type",
        "hyperparameters": {"batch_size": 32, "buffer_size": 256, "learning_rate": 3.0e-3, "shared_critic": True},
        "network_settings": {"hidden_units": 20, "num_layers": 1},
        "reward_signals": {"extrinsic": {"gamma": 0.9}},
        "max_steps": 6000,
        "time_horizon": 3,
        "summary_freq": 1000,
    }
    _, events = train({"behaviors": {"Basic": behavior}}, "Basic")
    assert mean_rewards(events)[-1] > 0.85


def test_the_plugins_that_the_document_lists_are_installed(seed):
    listed = {line for line in seed["list_trainers"].splitlines() if re.match(r"\w+ = ", line)}
    assert len(listed) == 3
    assert listed <= {f"{entry.name} = {entry.value}" for entry in entry_points(group=plugins.ML_AGENTS_TRAINER_TYPE)}


def test_the_configuration_of_our_plugin_has_the_trainer_type_of_the_document(seed):
    path = files("mlagents_trainer_plugin") / "a2c" / "a2c_3DBall.yaml"
    expected = yaml.safe_load(seed["trainer_type"])
    assert yaml.safe_load(path.read_text(encoding="utf-8"))["behaviors"]["3DBall"].items() >= expected.items()


def test_the_error_of_the_document_is_a_class_of_that_name(seed):
    name = seed["error"].partition(": ")[0]
    assert name == f"{TrainerConfigError.__module__}.{TrainerConfigError.__qualname__}"
