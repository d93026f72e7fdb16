"""A run that was interrupted and resumed is, in every number, the run that was not."""

import json
import signal

import numpy as np
import pytest
import torch
import yaml

from mlagents.trainers import learn
from mlagents.trainers.stats import StatsReporter, StatsWriter

MEMORY = {"memory": {"memory_size": 16, "sequence_length": 8}}
SAC = {"batch_size": 32, "buffer_init_steps": 200, "save_replay_buffer": True, "steps_per_update": 12}
PPO = {"buffer_size": 256, "batch_size": 64}
RUNS = {
    "ppo": ("3DBall", {"hidden_units": 16, "normalize": True}, PPO),
    "ppo, discrete": ("Basic", {"hidden_units": 16}, {**PPO, "shared_critic": True}),
    "ppo, memory": ("Hallway", {"hidden_units": 16, **MEMORY}, PPO),
    "ppo, images": ("GridWorld", {"hidden_units": 16}, PPO),
    "ppo, entities": ("Sorter", {"hidden_units": 16}, PPO),
    "sac": ("3DBall", {"hidden_units": 16, "normalize": True}, SAC),
    "sac, memory": ("Hallway", {"hidden_units": 16, **MEMORY}, SAC),
    "a2c": ("3DBall", {"hidden_units": 16}, PPO),
    "dqn": ("Basic", {"hidden_units": 16}, {"batch_size": 32, "save_replay_buffer": True, "steps_per_update": 4}),
}


class Interrupter(StatsWriter):
    """Sends the process a SIGTERM, as a cluster does, with the summary of a step."""

    def __init__(self, step):
        self._step = step

    def write_stats(self, category, values, step):
        if step >= self._step:
            self._step = float("inf")
            signal.raise_signal(signal.SIGTERM)


class Recorder(StatsWriter):
    """Keeps the summaries."""

    def __init__(self):
        self.summaries = {}

    def write_stats(self, category, values, step):
        self.summaries[step] = {key: (summary.num, summary.sum) for key, summary in values.items()}


@pytest.fixture
def make_config(tmp_path):
    """Return a function that writes the configuration of one of RUNS, and returns its path."""

    def make(kind="ppo, discrete", **changes):
        env, network, hyperparameters = RUNS[kind]
        settings = {
            "trainer_type": kind.split(",", maxsplit=1)[0],
            "max_steps": 2000,
            "summary_freq": 400,
            "time_horizon": 32,
            "network_settings": network,
            "hyperparameters": hyperparameters,
            **changes,
        }
        path = tmp_path / "config.yaml"
        path.write_text(yaml.safe_dump({"behaviors": {env: settings}}))
        return path

    return make


@pytest.fixture
def train(run_learn):
    """Return a function that trains, with an interruption at a step or without; it returns what was printed."""

    def train(*args, interrupted_at=None, recorder=None):
        if interrupted_at is not None:
            StatsReporter.add_writer(Interrupter(interrupted_at))
        if recorder is not None:
            StatsReporter.add_writer(recorder)
        code, out, error = run_learn(*args)
        assert code == 0, error
        assert ("Stopping after this step" in out) == (interrupted_at is not None)
        return out

    return train


def newest(results, run_id, env):
    return torch.load(results / run_id / env / "checkpoint.pt", weights_only=True)


def leaves(value, path=""):
    """Return all that nested containers hold, by path."""
    if isinstance(value, dict):
        entries = value.items()
    elif isinstance(value, (list, tuple)):
        entries = enumerate(value)
    else:
        return {path: value}
    return {name: leaf for key, entry in entries for name, leaf in leaves(entry, f"{path}/{key}").items()}


def assert_same_state(one, other):
    one, other = (
        {path: leaf for path, leaf in leaves(it).items() if not path.startswith("/about")} for it in (one, other)
    )
    assert one.keys() == other.keys()
    assert len(one) > 50
    differing = [
        path
        for path, leaf in one.items()
        if not (torch.equal(leaf, other[path]) if isinstance(leaf, torch.Tensor) else leaf == other[path])
    ]
    assert not differing


@pytest.mark.parametrize("kind", RUNS)
def test_resumed_equals_uninterrupted(train, make_config, tmp_path, kind):
    if "3DBall" in RUNS[kind]:
        pytest.importorskip("mujoco")
    env, config = RUNS[kind][0], make_config(kind)
    whole, parts = Recorder(), Recorder()
    train(config, "--env", env, "--run-id", "whole", "--seed", 3, recorder=whole)
    train(config, "--env", env, "--run-id", "parts", "--seed", 3, interrupted_at=800, recorder=parts)
    np.random.seed(99)  # the random numbers of the process it is resumed in are no matter
    train(config, "--env", env, "--run-id", "parts", "--resume", interrupted_at=1200, recorder=parts)
    out = train(config, "--env", env, "--run-id", "parts", "--resume", recorder=parts)
    assert "new episodes" not in out
    results = tmp_path / "results"
    assert_same_state(newest(results, "whole", env), newest(results, "parts", env))
    assert whole.summaries == parts.summaries
    assert {400, 800, 1200, 1600, 2000} <= whole.summaries.keys()


def status_of(results, run_id):
    return json.loads((results / run_id / "run_logs" / "training_status.json").read_text())


def test_the_run_says_how_it_ended_and_keeps_its_seed(train, make_config, tmp_path):
    config, results = make_config(), tmp_path / "results"
    train(config, "--env", "Basic", "--run-id", "a", "--seed", 0, interrupted_at=800)
    assert status_of(results, "a")["metadata"]["run_status"] == "interrupted"
    train(config, "--env", "Basic", "--run-id", "a", "--resume")
    metadata = status_of(results, "a")["metadata"]
    assert (metadata["run_status"], metadata["sessions"]) == ("finished", 2)
    assert yaml.safe_load((results / "a" / "configuration.yaml").read_text())["env_settings"]["seed"] == 0
    train(config, "--env", "Basic", "--run-id", "a", "--resume", "--seed", 5)
    assert yaml.safe_load((results / "a" / "configuration.yaml").read_text())["env_settings"]["seed"] == 5


def test_an_environment_that_cannot_be_saved_begins_new_episodes_and_says_so(train, make_config):
    config = make_config("ppo, discrete", max_steps=800)
    text = config.read_text().replace("Basic:", "CartPole-v1:")
    config.write_text(text)
    train(config, "--env", "gym:CartPole-v1", "--run-id", "a", "--seed", 3, interrupted_at=400)
    out = train(config, "--env", "gym:CartPole-v1", "--run-id", "a", "--resume")
    assert "The run goes on with new episodes: this environment cannot be saved" in out


def test_another_number_of_areas_begins_new_episodes_and_says_so(train, make_config, tmp_path):
    config = make_config()
    train(config, "--env", "Basic", "--run-id", "a", "--seed", 3, interrupted_at=800)
    out = train(config, "--env", "Basic", "--run-id", "a", "--resume", "--num-areas", 3)
    assert "goes on with new episodes: The state that was saved is not of this environment" in out
    assert status_of(tmp_path / "results", "a")["Basic"]["final_checkpoint"]["steps"] >= 2000


def test_a_checkpoint_that_was_put_there_is_gone_on_with(train, make_config, tmp_path):
    config, folder = make_config(checkpoint_interval=400), tmp_path / "results" / "a" / "Basic"
    train(config, "--env", "Basic", "--run-id", "a", "--seed", 3)
    older = min((path for path in folder.glob("Basic-*.pt")), key=lambda path: int(path.stem.split("-")[1]))
    step = int(older.stem.split("-")[1])
    assert step < 600
    (folder / "checkpoint.pt").write_bytes(older.read_bytes())
    out = train(config, "--env", "Basic", "--run-id", "a", "--resume")
    assert f"Resuming from step {step} of" in out
    assert "goes on with new episodes: what belongs to its checkpoints is not there" in out


def test_other_environment_parameters_count_from_the_resume_on(train, make_config, tmp_path, monkeypatch):
    pytest.importorskip("mujoco")
    from mlagents_envs.builtin.ball3d import Ball3DEnv

    masses = []
    monkeypatch.setattr(Ball3DEnv, "close", lambda env: masses.append(set(env._ball_mass.tolist())))
    config = make_config("ppo")
    settings = yaml.safe_load(config.read_text())
    for mass, resume in ((1.0, []), (3.0, ["--resume"])):
        config.write_text(yaml.safe_dump({**settings, "environment_parameters": {"mass": mass}}))
        train(config, "--env", "3DBall", "--run-id", "a", "--seed", 3, *resume, interrupted_at=None if resume else 800)
    assert masses[0] == {1.0}
    assert 3.0 in masses[1]  # those whose episodes have ended since


def test_the_newest_whole_checkpoint_is_taken(train, make_config, tmp_path):
    config, folder = make_config(checkpoint_interval=500), tmp_path / "results" / "a"
    train(config, "--env", "Basic", "--run-id", "a", "--seed", 3, interrupted_at=1600)
    newest_state, previous = folder / "Basic" / "checkpoint.pt", folder / "Basic" / "checkpoint.previous.pt"
    step = int(torch.load(previous, weights_only=True)["global_step"]["_GlobalSteps__global_step"])
    assert 1500 <= step < 1600
    for path in (newest_state, *folder.glob("Basic/Basic-16*.pt")):  # those of the interruption
        path.write_bytes(path.read_bytes()[:-100])
    out = train(config, "--env", "Basic", "--run-id", "a", "--resume")
    shown = previous.relative_to(tmp_path)
    assert f"{newest_state.relative_to(tmp_path)} could not be read as a checkpoint" in out
    assert f"Instead the newest whole one is used: {shown}, of step {step}." in out
    assert f"Resuming from step {step} of {shown}" in out
    assert "new episodes" not in out  # what belongs to it was kept as well


@pytest.mark.parametrize("has_configuration", [False, True])
def test_a_run_that_was_killed_as_it_began_begins_anew(train, make_config, tmp_path, has_configuration):
    config, folder = make_config(max_steps=100), tmp_path / "results" / "a"
    folder.mkdir(parents=True)
    if has_configuration:
        (folder / "configuration.yaml").write_text("behaviors: {}\n")
    leftover = folder / f".configuration.yaml.{'0' * 32}.tmp"
    leftover.write_text("half")
    out = train(config, "--env", "Basic", "--run-id", "a", "--resume")
    assert "ended before it had a first checkpoint; it begins anew" in out
    assert not leftover.exists()


def test_there_is_a_state_from_the_first_step_on(run_learn, make_config, tmp_path, monkeypatch):
    def fail(*_):
        raise MemoryError("just now")

    monkeypatch.setattr("mlagents.trainers.trainer_controller.TrainerController.advance", fail)
    with pytest.raises(MemoryError):
        run_learn(make_config(), "--env", "Basic", "--run-id", "a", "--seed", 3)
    monkeypatch.undo()
    assert newest(tmp_path / "results", "a", "Basic")["global_step"]["_GlobalSteps__global_step"] == 0
    assert status_of(tmp_path / "results", "a")["metadata"]["run_status"] == "failed"


def test_states_are_saved_by_the_clock_too(train, make_config, tmp_path):
    config, folder = make_config(), tmp_path / "results" / "a"
    seen = []

    class Reader(StatsWriter):
        def write_stats(self, category, values, step):
            seen.append((step, int(newest(tmp_path / "results", "a", "Basic")["about"]["step"])))

    StatsReporter.add_writer(Reader())
    train(config, "--env", "Basic", "--run-id", "a", "--seed", 3, "--checkpoint-interval-s", 1e-9)
    assert all(summarised - 100 < saved <= summarised for summarised, saved in seen)
    assert len(seen) == 5
    assert len(list(folder.glob("Basic/Basic-*.pt"))) == 1  # the final one


def test_learning_knows_where_a_session_seed_comes_from(make_config, tmp_path):
    (tmp_path / "results" / "a").mkdir(parents=True)
    (tmp_path / "results" / "a" / "configuration.yaml").write_text("env_settings: {seed: 17}\n")
    options = learn.parse_command_line(
        [str(make_config()), "--run-id", "a", "--results-dir", str(tmp_path / "results")]
    )
    assert learn.RunDirectory(options.checkpoint_settings).seed == 17
