"""The examples install, pass their own tests and do in a run what their pages say."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from mlagents.testing.environments import MemoryEnv
from mlagents_envs.base_env import ActionTuple

EXAMPLES = Path(__file__).parent.parent / "examples"
NAMES = sorted(path.parent.name for path in EXAMPLES.glob("*/pyproject.toml"))
MEMORY_ENV = "module:mlagents.testing.environments:MemoryEnv"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Return a function that runs a Python module where the examples are installed: a folder of this test's own."""
    copies, site = tmp_path_factory.mktemp("examples"), tmp_path_factory.mktemp("site")
    for name in NAMES:  # building leaves files beside the source
        shutil.copytree(EXAMPLES / name, copies / name)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--target", site]
    subprocess.run([*pip, *(copies / name for name in NAMES)], check=True)
    path = os.pathsep.join(filter(None, [str(site), os.environ.get("PYTHONPATH")]))

    def run(folder, *args):
        command = [sys.executable, "-m", *map(str, args)]
        environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
        return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)

    return run


@pytest.fixture
def learn(run, tmp_path):
    """Return a function that runs ``mlagents-learn`` in the test's folder."""
    return lambda *args: run(tmp_path, "mlagents.trainers.learn", *args, "--seed", 1, "--torch-device", "cpu")


def write_basic_configuration(folder, trainer_type):
    path = folder / "basic.yaml"
    path.write_text(
        f"behaviors: {{Basic: {{trainer_type: {trainer_type}, max_steps: 300, summary_freq: 100, time_horizon: 8}}}}"
    )
    return path


def test_the_index_lists_every_example():
    index = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    assert len(NAMES) >= 2
    assert sorted(re.findall(r"^\| \[(\w+)\]\(\1/README\.md\)", index, re.MULTILINE)) == NAMES


@pytest.mark.learning
@pytest.mark.parametrize("name", NAMES)
def test_its_own_tests_pass(run, tmp_path, name):
    shutil.copytree(EXAMPLES / name / "tests", tmp_path / "tests")
    result = run(tmp_path, "pytest", "-q", "-p", "no:cacheprovider", "tests")
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_writer_leaves_a_line_for_every_summary(learn, tmp_path):
    config = write_basic_configuration(tmp_path, "ppo")
    result = learn(config, "--env", "Basic", "--run-id", "first")
    assert result.returncode == 0, result.stdout + result.stderr
    lines = (tmp_path / "results" / "first" / "stats.jsonl").read_text(encoding="utf-8").splitlines()
    summaries = [json.loads(line) for line in lines]
    assert [summary["step"] for summary in summaries] == [100, 200, 300]
    assert {summary["category"] for summary in summaries} == {"Basic"}
    assert -1 <= summaries[0]["statistics"]["Environment/Cumulative Reward"] <= 0.93


def test_a_forced_run_takes_the_earlier_lines_aside_with_the_run(learn, tmp_path):
    config = write_basic_configuration(tmp_path, "ppo")
    for options in ([], ["--force"]):
        result = learn(config, "--env", "Basic", "--run-id", "again", *options)
        assert result.returncode == 0, result.stdout + result.stderr
    (aside,) = (tmp_path / "results" / ".trash").glob("again-*/stats.jsonl")
    assert len(aside.read_text(encoding="utf-8").splitlines()) == 3
    assert len((tmp_path / "results" / "again" / "stats.jsonl").read_text(encoding="utf-8").splitlines()) == 3


def play_memory(model_path, n_episodes=20):
    """Return the mean return of an exported model that is given back what it remembered."""
    model = onnxruntime.InferenceSession(str(model_path))
    env = MemoryEnv(seed=2)
    env.reset()
    returns = []
    while len(returns) < n_episodes * env.n_agents:
        memories = np.zeros((env.n_agents, 1, 16), dtype=np.float32)  # all agents begin their episodes together
        for _ in range(env.N_STEPS):
            decisions, _ = env.get_steps(env.behavior_name)
            masks = np.ones((env.n_agents, env.N_CUES), dtype=np.float32)
            inputs = {"obs_0": decisions.obs[0], "action_masks": masks, "recurrent_in": memories}
            actions, memories = model.run(["deterministic_discrete_actions", "recurrent_out"], inputs)
            env.set_actions(env.behavior_name, ActionTuple(discrete=actions))
            env.step()
        _, terminals = env.get_steps(env.behavior_name)
        returns += terminals.reward.tolist()
    return np.mean(returns)


@pytest.mark.learning
def test_the_recurrent_trainer_remembers_and_so_does_its_model(learn, tmp_path):
    config = EXAMPLES / "gru_trainer" / "memory.yaml"
    result = learn(config, "--env", MEMORY_ENV, "--run-id", "gru")
    assert result.returncode == 0, result.stdout + result.stderr
    assert play_memory(tmp_path / "results" / "gru" / "Memory.onnx") >= 0.95


def test_the_recurrent_trainer_says_that_it_needs_a_memory(learn, tmp_path):
    result = learn(write_basic_configuration(tmp_path, "gru"), "--env", "Basic", "--run-id", "none")
    assert result.returncode == 1
    assert (
        "Behavior Basic, trainer type gru: network_settings.memory is missing; give its memory_size." in result.stderr
    )
    assert "Traceback" not in result.stderr
