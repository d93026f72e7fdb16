"""The tutorial is followed: its files are written, its commands run, its outputs and tables compared with the code."""

import importlib
import inspect
import os
import re
import signal
import subprocess
import sysconfig
import venv
from importlib.metadata import entry_points
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from mlagents.trainers.behavior_id_utils import BehaviorIdentifiers
from mlagents.trainers.buffer import BufferKey, RewardSignalUtil
from mlagents.trainers.optimizer.actor_critic_optimizer import ActorCriticBatch
from mlagents.trainers.ppo.trainer import PPOTrainer
from mlagents.trainers.settings import NetworkSettings, TrainerSettings
from mlagents.trainers.trajectory import ObsUtil, Trajectory, TrajectoryColumns
from mlagents_envs.base_env import ActionSpec, BehaviorSpec, vector_observation

PAGE = (Path(__file__).parent.parent / "docs" / "custom-trainer-plugin.md").read_text(encoding="utf-8")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE_NAME = re.compile(r"# (\S+\.(?:py|yaml|toml))(, continued)?\n")
MEAN_REWARD = re.compile(r"Step: \d+\. .* Mean Reward: (-?\d+\.\d+)")

OVERRIDABLE = {
    "OnPolicyTrainer": "mlagents.trainers.trainer.on_policy_trainer",
    "ActorCriticTrainer": "mlagents.trainers.trainer.actor_critic_trainer",
    "TorchPolicy": "mlagents.trainers.policy.torch_policy",
    "TorchOptimizer": "mlagents.trainers.optimizer.torch_optimizer",
    "ActorCriticOptimizer": "mlagents.trainers.optimizer.actor_critic_optimizer",
    "Actor": "mlagents.trainers.torch_entities.networks",
    "Critic": "mlagents.trainers.torch_entities.networks",
    "OffPolicyTrainer": "mlagents.trainers.trainer.off_policy_trainer",
}
"""The classes whose methods the page has tables of, and where they are."""

ONE_FILE, GENERATED, FULL = "A trainer in one file", "A package by a command", "Every part written out"
WRONG, PUBLISHED = "When something is wrong", "Test it, publish it"


class Block(NamedTuple):
    """A fenced block: what follows the fence, and what is in it."""

    language: str
    body: str


def chapter(title):
    """Return the text under a heading of the second level."""
    return PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]


def blocks(title):
    return [Block(*found) for found in FENCE.findall(chapter(title))]


def titles():
    return re.findall(r"^## (.*)$", FENCE.sub("", PAGE), re.MULTILINE)


def is_shown(expected, output):
    """Return whether an output is as the page shows it: any decimals and seconds, and anything for an ellipsis."""
    pattern = re.escape(expected.strip())
    pattern = re.sub(r"-?\d+\\\.\d+", lambda _: r"-?\d+\.\d+", pattern)
    pattern = re.sub(r"\d+(\\ s\b)", lambda found: rf"\d+{found[1]}", pattern)
    pattern = pattern.replace(r"\.\.\.", ".*?")
    pattern = re.sub(r"(\\ )+", lambda _: " +", pattern)
    return re.search(pattern, output, re.DOTALL) is not None


class Reader:
    """Somebody who follows the page in a folder and a virtual environment of their own.

    The environment sees what is installed in the one that runs the tests; pip gets nothing from elsewhere.
    """

    def __init__(self, folder):
        self.folder = folder / "work"
        self.folder.mkdir()
        environment = folder / "venv"
        venv.create(environment, with_pip=False)
        variables = {"base": str(environment), "platbase": str(environment)}
        packages = Path(sysconfig.get_path("purelib", vars=variables))
        installed = sysconfig.get_path("purelib")
        (packages / "outer.pth").write_text(f"import site; site.addsitedir({installed!r})\n", encoding="utf-8")
        programs = Path(sysconfig.get_path("scripts", vars=variables))
        for command in entry_points(group="console_scripts"):
            if command.value.startswith("mlagents."):
                self._write_program(programs, command)
        (programs / "pip").write_text(f'#!/bin/sh\nexec "{programs}/python" -m pip "$@"\n', encoding="utf-8")
        (programs / "pip").chmod(0o755)
        self.variables = {
            **os.environ,
            "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
            "PIP_NO_INDEX": "1",
            "PIP_NO_DEPS": "1",
            "PIP_NO_BUILD_ISOLATION": "0",  # pip's way to say that there is none
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": "",
        }

    @staticmethod
    def _write_program(programs, command):
        path = programs / command.name
        path.write_text(
            f"#!{programs / 'python'}\nfrom {command.module} import {command.attr}\n{command.attr}()\n",
            encoding="utf-8",
        )
        path.chmod(0o755)

    def write(self, block):
        """Write a file, or add to it what continues it."""
        (name, continued) = FILE_NAME.match(block.body).groups()
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a" if continued else "w", encoding="utf-8") as file:
            file.write(block.body.partition("\n")[2] if continued else block.body)

    def write_files(self, title):
        for block in blocks(title):
            if FILE_NAME.match(block.body):
                self.write(block)

    def change(self, name, old, new):
        path = self.folder / name
        text = path.read_text(encoding="utf-8")
        assert text.count(old) == 1
        path.write_text(text.replace(old, new), encoding="utf-8")

    def run(self, command, exit_code=0):
        """Run a command and return what it printed."""
        run = subprocess.run(
            ["bash", "-c", command],
            cwd=self.folder,
            env=self.variables,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
        )
        assert run.returncode == exit_code, run.stdout
        return run.stdout

    def run_until_the_first_summary(self, command):
        """Run a training, and end it as Ctrl-C does; return what it printed."""
        printed = []
        with subprocess.Popen(
            ["bash", "-c", f"exec {command}"],
            cwd=self.folder,
            env=self.variables,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        ) as run:
            for line in run.stdout:
                printed.append(line)
                if MEAN_REWARD.search(line):
                    run.send_signal(signal.SIGINT)
                    break
            printed += run.stdout.readlines()
        assert run.returncode == 0, "".join(printed)
        return "".join(printed)

    def follow(self, title):
        """Do what a chapter says, from top to bottom; return what all commands printed."""
        everything, output = "", ""
        for block in blocks(title):
            if block.language == "shell":
                output = "".join(self.run(command) for command in block.body.splitlines())
                everything += output
            elif block.language == "text":
                assert is_shown(block.body, output), output
            elif FILE_NAME.match(block.body):
                self.write(block)
        return everything


@pytest.fixture
def reader(tmp_path):
    return Reader(tmp_path)


def mean_of_last_summaries(output):
    rewards = [float(reward) for reward in MEAN_REWARD.findall(output)]
    assert len(rewards) >= 12
    return np.mean(rewards[-3:])


def test_all_code_of_the_page_is_run():
    found = [Block(*block) for block in FENCE.findall(PAGE)]
    assert PAGE.count("```") == 2 * len(found)
    assert {block.language for block in found} == {"", "python", "yaml", "toml", "shell", "text"}
    code = [block for block in found if block.language in ("python", "yaml", "toml")]
    assert len(code) >= 15
    assert all(FILE_NAME.match(block.body) for block in code)
    with_code = {title for title in titles() if any(block.language for block in blocks(title))}
    assert with_code == {ONE_FILE, GENERATED, FULL, WRONG, PUBLISHED}


@pytest.mark.learning
def test_the_trainer_in_one_file_learns_and_is_packaged(reader):
    output = reader.follow(ONE_FILE)
    assert mean_of_last_summaries(output) >= 0.9
    reader.change("my_trainer.yaml", "my_trainer:MyTrainer", "mine")
    reader.change("my_trainer.yaml", "max_steps: 12000", "max_steps: 600")
    assert "Training is over." in reader.run("mlagents-learn my_trainer.yaml --env Basic --run-id by-name")
    assert "Resuming" in reader.run("mlagents-learn my_trainer.yaml --env Basic --run-id by-name --resume")


@pytest.mark.learning
def test_the_trainer_written_out_learns_and_passes_its_test(reader):
    output = reader.follow(FULL)
    assert mean_of_last_summaries(output) >= 0.9
    assert "1 passed" in output


def test_the_trainer_written_out_trains_with_memory(reader):
    reader.write_files(FULL)
    reader.run("pip install -e penalty-trainer")
    reader.change("penalty-trainer/penalty.yaml", "num_layers: 1", "num_layers: 1\n      memory: {}")
    reader.change("penalty-trainer/penalty.yaml", "max_steps: 12000", "max_steps: 600")
    output = reader.run("mlagents-learn penalty-trainer/penalty.yaml --env Basic --run-id memory")
    assert "memory_size: 128" in output
    assert (reader.folder / "results" / "memory" / "Basic.onnx").exists()


def test_a_package_is_written_by_a_command_and_trains(reader):
    (block,) = blocks(GENERATED)
    generate, install, train = block.body.splitlines()
    assert f"Install it:     {install}" in reader.run(generate)
    reader.run(install)
    assert "results/my_algorithm/3DBall.onnx" in reader.run_until_the_first_summary(train)


def test_the_wheel_that_is_published_registers_its_trainer(reader):
    reader.write_files(FULL)
    reader.follow(PUBLISHED)
    reader.run("pip install dist/*.whl")
    listed = "from importlib.metadata import entry_points; print(entry_points(group='mlagents.trainer_type').names)"
    assert "'penalty'" in reader.run(f'python -c "{listed}"')


def test_a_broken_plugin_is_listed_as_shown(reader):
    reader.write_files(FULL)
    reader.run("pip install -e penalty-trainer")
    reader.change("penalty-trainer/penalty_trainer/optimizer.py", "import attr\n", "import atr\n")
    broken, *_ = [block for block in blocks(WRONG) if block.language == "text"]
    output = reader.run("mlagents-learn --list-trainers")
    assert is_shown(broken.body, output), output


@pytest.mark.parametrize(
    ("number", "old", "new"),
    [
        (1, "log_probs * batch.advantages", "log_probs * batch.advantage"),
        (2, "policy_loss + 0.5 *", "float('nan') * policy_loss + 0.5 *"),
    ],
    ids=["misspelt", "nan"],
)
def test_a_failing_trainer_is_reported_as_shown(reader, number, old, new):
    reader.write_files(ONE_FILE)
    reader.change("my_trainer.py", old, new)
    shown = [block for block in blocks(WRONG) if block.language == "text"][number]
    output = reader.run("mlagents-learn my_trainer.yaml --env Basic --run-id broken", exit_code=1)
    assert is_shown(shown.body, output), output
    assert (reader.folder / "results" / "broken" / "Basic" / "checkpoint.pt").exists()


def tables(text):
    """Return the cells of all rows of a text's tables that begin with code, without its backticks."""
    rows = re.findall(r"^\| `([^`]+)` \|(.*)\|$", text, re.MULTILINE)
    return [(first, *(cell.strip() for cell in others.split("|"))) for first, others in rows]


def methods_on_the_page(class_name):
    if class_name == "OffPolicyTrainer":
        section = chapter("Off-policy trainers")
    else:
        section = chapter("What you can override").split(f"\n### `{class_name}`\n")[1].split("\n### ")[0]
    signatures = (re.fullmatch(r"(\w+)\((.*)\)", first) for first, *_ in tables(section))
    return {found[1]: [name for name in found[2].split(", ") if name] for found in signatures}


@pytest.mark.parametrize(("class_name", "module"), OVERRIDABLE.items())
def test_the_methods_that_can_be_overridden_are_there(class_name, module):
    cls = getattr(importlib.import_module(module), class_name)
    listed = methods_on_the_page(class_name)
    assert listed
    for method, parameters in listed.items():
        signature = [name for name in inspect.signature(getattr(cls, method)).parameters if name != "self"]
        assert parameters == signature, method


def test_all_that_has_to_be_defined_is_on_the_page():
    for class_name in ("OnPolicyTrainer", "ActorCriticOptimizer", "Actor", "Critic"):
        cls = getattr(importlib.import_module(OVERRIDABLE[class_name]), class_name)
        assert cls.__abstractmethods__ <= set(methods_on_the_page(class_name)), class_name


N_STEPS, SEQUENCE_LENGTH = 6, 4
SIZES = {"*shape": 3, "C": 2, "D": 2, "K": 3 + 5, "M": 8}


@pytest.fixture
def recurrent_trainer(tmp_path):
    """Return PPO on agents with all kinds of actions and memory, which was given one trajectory."""
    memory = NetworkSettings.MemorySettings(sequence_length=SEQUENCE_LENGTH, memory_size=SIZES["M"])
    settings = TrainerSettings(network_settings=NetworkSettings(memory=memory, hidden_units=8))
    trainer = PPOTrainer("Any", 1, settings, True, False, 1, str(tmp_path))
    spec = BehaviorSpec([vector_observation(SIZES["*shape"], "Seen")], ActionSpec.create_hybrid(SIZES["C"], (3, 5)))
    team = BehaviorIdentifiers.from_name_behavior_id("Any?team=0")
    trainer.add_policy(team, trainer.create_policy(team, spec))
    columns = TrajectoryColumns(
        obs=[np.ones((N_STEPS, SIZES["*shape"]), dtype=np.float32)],
        reward=np.ones(N_STEPS, dtype=np.float32),
        done=np.zeros(N_STEPS, dtype=bool),
        interrupted=np.zeros(N_STEPS, dtype=bool),
        continuous=np.zeros((N_STEPS, SIZES["C"]), dtype=np.float32),
        discrete=np.zeros((N_STEPS, SIZES["D"]), dtype=np.int32),
        prev_discrete=np.zeros((N_STEPS, SIZES["D"]), dtype=np.int32),
        action_mask=np.zeros((N_STEPS, SIZES["K"]), dtype=bool),
        group_reward=np.zeros(N_STEPS, dtype=np.float32),
        continuous_log_probs=np.zeros((N_STEPS, SIZES["C"]), dtype=np.float32),
        discrete_log_probs=np.zeros((N_STEPS, SIZES["D"]), dtype=np.float32),
        memory=np.zeros((N_STEPS, SIZES["M"]), dtype=np.float32),
        branches=(3, 5),
    )
    next_obs = [np.zeros(SIZES["*shape"], dtype=np.float32)]
    trainer._process_trajectory(Trajectory(None, next_obs, [], "agent_0-0", "Any?team=0", columns=columns))
    return trainer


def test_the_columns_of_a_buffer_are_those_of_the_tables(recurrent_trainer):
    buffer = recurrent_trainer.update_buffer
    names = {"ObsUtil": ObsUtil, "BufferKey": BufferKey, "RewardSignalUtil": RewardSignalUtil}
    section = chapter("How experience flows").split("\n### The columns of a buffer\n")[1].split("\n### ")[0]
    listed = {}
    for key, row, _ in tables(section):
        shape, dtype = re.fullmatch(r"(\(.*\))( int32| bool)?", row).groups()
        sizes = tuple(SIZES[size] for size in re.findall(r"[*\w]+", shape))
        listed[eval(key, names, {"i": 0, "name": "extrinsic"})] = sizes, (dtype or "float32").strip()
    padded_length = 2 * SEQUENCE_LENGTH
    assert all(len(field) == padded_length for field in buffer.values())
    found = {key: (field.to_ndarray().shape[1:], str(field.to_ndarray().dtype)) for key, field in buffer.items()}
    assert found == listed


def test_the_fields_of_a_batch_are_those_of_the_table(recurrent_trainer):
    batch = recurrent_trainer.optimizer._evaluate(recurrent_trainer.update_buffer)
    rows = tables(chapter(ONE_FILE).split("\n### What the loss gets and gives\n")[1])
    assert [name for name, *_ in rows] == list(ActorCriticBatch.__dataclass_fields__)
    sizes = {"B": 2 * SEQUENCE_LENGTH, "A": SIZES["C"] + SIZES["D"]}
    for name, shape, _ in rows:
        value = getattr(batch, name)
        tensor = value["extrinsic"] if "by reward signal" in shape else value
        expected = tuple(sizes[letter] for letter in re.findall(r"[AB]", shape.partition(")")[0]))
        assert tuple(tensor.shape) == expected, name
    assert batch.masks.tolist() == [True] * N_STEPS + [False] * (2 * SEQUENCE_LENGTH - N_STEPS)
