"""The folder of a run: whose it is, what its names may be, and what it is when something in it is odd."""

import json
import os
import signal
import subprocess
import sys

import pytest
import torch

from mlagents.trainers.exception import TrainerConfigError, UnityTrainerException
from mlagents.trainers.model_saver.torch_model_saver import holds_states
from mlagents.trainers.run_lock import RunLock
from mlagents.trainers.stats import StatsReporter, StatsWriter
from mlagents.trainers.trainer.trainer_factory import check_behavior_name

RUN = ["--env", "Basic", "--run-id", "a", "--seed", 1]


class AtStep(StatsWriter):
    """Does something with the first summary from a step on."""

    def __init__(self, step, call):
        self.step, self.call = step, call

    def write_stats(self, category, values, step):
        if step >= self.step:
            self.step = float("inf")
            self.call()


def interrupt():
    signal.raise_signal(signal.SIGTERM)


def step_of(path):
    return int(torch.load(path, weights_only=True)["global_step"]["_GlobalSteps__global_step"])


# One process at a time

HOLDER = """
import sys, pathlib
from mlagents.trainers.run_lock import RunLock
lock = RunLock(pathlib.Path(sys.argv[1]))
lock.take()
print("taken", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def held(tmp_path):
    """Return a function that lets another process take a lock, and gives the process."""
    holders = []

    def hold(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        holder = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        holders.append(holder)
        assert holder.stdout.readline() == "taken\n"
        return holder

    yield hold
    for holder in holders:
        holder.kill()
        holder.communicate()


@pytest.mark.parametrize("flags", [["--resume"], ["--force"]])
def test_a_run_that_is_being_trained_is_left_alone(run_learn, basic_config, tmp_path, held, flags):
    run_learn(basic_config(), *RUN)
    folder = tmp_path / "results" / "a"
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    holder = held(folder / ".lock")
    code, _, error = run_learn(basic_config(max_steps=600), *RUN, *flags)
    assert (code, "Traceback" in error) == (1, False)
    assert f"The run in results/a is being trained by the process {holder.pid}." in error
    assert {path: path.read_bytes() for path in before} == before

    holder.kill()
    holder.wait()
    code, _, error = run_learn(basic_config(max_steps=600), *RUN, *flags)
    assert (code, error) == (0, "")
    assert not (folder / ".lock").exists()


def test_playing_a_run_that_is_being_trained_is_no_matter(run_learn, basic_config, tmp_path, held):
    run_learn(basic_config(), *RUN)
    held(tmp_path / "results" / "a" / ".lock")
    StatsReporter.add_writer(AtStep(100, interrupt))
    assert run_learn(basic_config(), *RUN, "--resume", "--inference")[0] == 0


def test_a_lock_is_for_one_and_then_the_next(tmp_path, held):
    path = tmp_path / "lock"
    lock = RunLock(path)
    lock.take()
    lock.take()  # it has it
    lock.release()
    lock.release()
    assert not path.exists()
    holder = held(path)
    for ask in (lock.take, lock.check):
        with pytest.raises(UnityTrainerException, match=str(holder.pid)):
            ask()
    holder.kill()  # without a chance to give it back
    holder.wait()
    lock.check()
    lock.take()
    assert path.read_text() == f"{os.getpid()}\n"
    lock.release()


# Names

SLASHED_ENV = """
from mlagents_envs.builtin.basic import BasicEnv
class Env(BasicEnv):
    def __init__(self, seed):
        super().__init__(seed)
        spec = self._specs.pop(self.behavior_name)
        turn = self._turns.pop(self.behavior_name)
        self.behavior_name = "{}?team=0"
        self._specs[self.behavior_name], self._turns[self.behavior_name] = spec, turn
"""


def test_a_behavior_may_have_a_slash_in_its_name(run_learn, basic_config, tmp_path):
    (tmp_path / "slashed_env.py").write_text(SLASHED_ENV.format("Team/Basic"))
    config = basic_config(checkpoint_interval=100, max_steps=1000)
    config.write_text(config.read_text().replace("Basic:", "Team/Basic:"))
    run = ["--env", "module:slashed_env:Env", "--run-id", "a", "--seed", 1]
    StatsReporter.add_writer(AtStep(300, interrupt))
    assert run_learn(config, *run)[0] == 0
    folder = tmp_path / "results" / "a" / "Team" / "Basic"
    assert {path.name.split("-")[0] for path in folder.glob("*.onnx")} == {"Basic"}
    step = step_of(folder / "checkpoint.pt")
    assert 300 <= step < 400

    (folder / "checkpoint.pt").write_bytes(b"damaged")
    StatsReporter.add_writer(AtStep(500, interrupt))
    code, out, error = run_learn(config, *run, "--resume")
    assert (code, error) == (0, "")
    assert "Instead the newest whole one is used" in out
    assert "begins anew" not in out
    assert step_of(folder / "checkpoint.pt") >= 500
    _, out, _ = run_learn(config, *run, "--force")
    assert "Team/Basic: 5" in out  # hundred steps


@pytest.mark.parametrize("name", ["../q", ".", "a/../b", "run_logs", "inference/Basic", "", "/etc", "a//b", "..\\q"])
def test_a_behavior_cannot_be_called_so_that_its_files_go_elsewhere(name):
    with pytest.raises(TrainerConfigError, match="A behavior cannot be called"):
        check_behavior_name(name)


@pytest.mark.parametrize("name", ["Basic", "Team/Basic", "a.b", "...", "run", "Pong-v5", "run_logs2"])
def test_most_names_are_good(name):
    check_behavior_name(name)


@pytest.mark.parametrize(("run_id", "problem"), [(".trash", "'.trash' is not allowed"), ("x" * 300, "too long")])
def test_run_ids_that_can_be_no_folders_are_refused(run_learn, basic_config, tmp_path, run_id, problem):
    code, _, error = run_learn(basic_config(), "--env", "Basic", "--run-id", run_id)
    assert (code, "Traceback" in error) == (1, False)
    assert problem in error
    assert not (tmp_path / "results").exists()


def test_only_replaced_runs_are_removed_from_the_trash(run_learn, basic_config, tmp_path):
    trash = tmp_path / "results" / ".trash"
    own = trash / "my notes"
    own.mkdir(parents=True)
    for _ in range(5):
        assert run_learn(basic_config(max_steps=20), *RUN, "--force")[0] == 0
    assert own.exists()
    assert len(list(trash.glob("a-*"))) == 3


def test_force_beside_resume_says_that_it_does_nothing(run_learn, basic_config, tmp_path):
    run_learn(basic_config(), *RUN)
    _, out, _ = run_learn(basic_config(max_steps=400), *RUN, "--resume", "--force")
    assert "--force has no effect beside --resume" in out
    assert step_of(tmp_path / "results" / "a" / "Basic" / "checkpoint.pt") >= 400
    assert not (tmp_path / "results" / ".trash").exists()


# What may be in it

LATE_ENV = """
import numpy as np
from mlagents_envs.base_env import ActionSpec, BehaviorSpec, DecisionSteps, TerminalSteps, vector_observation
from mlagents_envs.local_env import LocalEnv
SPEC = BehaviorSpec([vector_observation(2, "seen")], ActionSpec.create_discrete((2,)))
class Env(LocalEnv):
    n = 0
    def __init__(self, seed):
        super().__init__({"Early?team=0": SPEC}, seed=seed)
    def _publish_all(self):
        if self.n == 120:
            self._add_behavior("Late?team=0", SPEC)
        for agent, name in enumerate(self._specs):
            agents, zeros = np.array([agent], np.int32), np.zeros(1, np.float32)
            seen = np.zeros((1, 2), np.float32)
            ended = TerminalSteps([seen], zeros, np.zeros(1, bool), agents, agents, zeros) if self.n % 10 == 0 else None
            self._publish(name, DecisionSteps([seen], zeros, agents, None, agents, zeros), ended)
    def _begin_episodes(self):
        self._publish_all()
    def _simulate(self):
        self.n += 1
        self._publish_all()
"""


def test_a_behavior_that_appeared_late_has_a_state_from_then_on(run_learn, basic_config, tmp_path):
    """And where it has none, for the run was killed just then, it begins anew; the others do not."""
    (tmp_path / "late_env.py").write_text(LATE_ENV)
    config = basic_config(max_steps=200)
    settings = config.read_text()
    config.write_text(settings.replace("Basic:", "Early:") + settings.split("\n", 1)[1].replace("Basic:", "Late:"))
    run = ["--env", "module:late_env:Env", "--run-id", "a", "--seed", 1]
    seen = []
    late = tmp_path / "results" / "a" / "Late" / "checkpoint.pt"

    class Watch(StatsWriter):
        def write_stats(self, category, values, step):
            if category == "Late" and step == 100:
                seen.append(step_of(late))
                interrupt()

    StatsReporter.add_writer(Watch())
    code, _, error = run_learn(config, *run)
    assert (code, error) == (0, "")
    assert seen == [0]
    for path in late.parent.glob("*.pt"):
        path.unlink()
    config.write_text(config.read_text().replace("max_steps: 200", "max_steps: 500"))
    code, out, error = run_learn(config, *run, "--resume")
    assert (code, error) == (0, "")
    assert "There is no state of behavior Late in results/a/Late; it begins anew." in out
    assert "Resuming from step 2" in out  # hundred, of Early
    assert step_of(late) >= 500


def test_the_best_alone_is_no_state_to_go_on_from(tmp_path):
    for name in ("best.pt", "notes.pt"):
        (tmp_path / name).touch()
    assert not holds_states(str(tmp_path))
    (tmp_path / "Ball-100.pt").touch()
    assert holds_states(str(tmp_path))


@pytest.mark.parametrize(
    "status",
    [[1], {"Basic": [1]}, {"Basic": {"checkpoints": 5}}, {"Basic": {"checkpoints": [{"steps": "x", "file_path": 5}]}}],
)
@pytest.mark.parametrize("flags", [["--resume"], ["--force"]])
def test_a_status_of_another_shape_is_passed_over(run_learn, basic_config, tmp_path, status, flags):
    run_learn(basic_config(max_steps=100), *RUN)
    (tmp_path / "results" / "a" / "run_logs" / "training_status.json").write_text(json.dumps(status))
    code, _, error = run_learn(basic_config(max_steps=200, checkpoint_interval=20, keep_checkpoints=1), *RUN, *flags)
    assert (code, error) == (0, "")


def add_a_column(state):
    ((_, manager),) = state["environments"]["agents"].items()
    manager["columns"]["arrays"]["prev_discrete"] = manager["columns"]["arrays"]["discrete"]


@pytest.mark.parametrize(
    "change", [lambda state: state.pop("environments"), lambda state: state.update(random=3), add_a_column]
)
def test_a_run_state_of_another_layout_begins_new_episodes(run_learn, basic_config, tmp_path, change):
    run_learn(basic_config(max_steps=100), *RUN)
    path = tmp_path / "results" / "a" / "run_state.pt"
    content = torch.load(path, weights_only=True)
    change(content["state"])
    torch.save(content, path)
    code, out, error = run_learn(basic_config(max_steps=300), *RUN, "--resume")
    assert (code, error) == (0, "")
    assert "goes on with new episodes: what belongs to its checkpoints cannot be read" in out
    assert step_of(tmp_path / "results" / "a" / "Basic" / "checkpoint.pt") >= 300


def test_a_run_starts_from_what_is_whole_of_another(run_learn, basic_config, tmp_path):
    run_learn(basic_config(), *RUN)
    (tmp_path / "results" / "a" / "Basic" / "checkpoint.pt").write_bytes(b"damaged")
    code, out, error = run_learn(basic_config(), "--env", "Basic", "--run-id", "b", "--initialize-from", "a")
    assert (code, error) == (0, "")
    assert "Instead the newest whole one is used: results/a/Basic/" in out
    assert "initialized from results/a/Basic/" in out
