"""A disk that is full: the run goes on, says so, and loses nothing that it can save anywhere."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from mlagents.trainers import files, rescue
from mlagents.trainers.files import Attempts
from mlagents.trainers.model_saver import checkpoint_file
from mlagents.trainers.stats import StatsReporter, StatsWriter


@pytest.fixture
def disk(monkeypatch):
    """Return a set of folders in which nothing can be written."""
    full = set()
    atomic_path = files.atomic_path

    def write(path):
        if any(folder in Path(path).resolve().parents for folder in full):
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        return atomic_path(path)

    for module in (files, checkpoint_file):
        monkeypatch.setattr(module, "atomic_path", write)
    return full


def step_of(path):
    return int(torch.load(path, weights_only=True)["global_step"]["_GlobalSteps__global_step"])


class AtStep(StatsWriter):
    def __init__(self, step, call):
        self.step, self.call = step, call

    def write_stats(self, category, values, step):
        if step == self.step:
            self.call()


def test_the_run_goes_on_and_saves_when_it_can(run_learn, basic_config, tmp_path, disk, monkeypatch):
    monkeypatch.setattr(files, "RETRY_INTERVAL_S", 0.0)
    StatsReporter.add_writer(AtStep(100, lambda: disk.add(tmp_path / "results")))
    StatsReporter.add_writer(AtStep(300, disk.clear))
    config = basic_config(max_steps=500, checkpoint_interval=50)
    code, out, error = run_learn(config, "--env", "Basic", "--run-id", "a", "--seed", 1)
    assert (code, error) == (0, "")
    assert out.count("The checkpoint of behavior Basic could not be written") == 1
    assert "No space left on device" in out
    assert "The checkpoint of behavior Basic could be written again" in out
    folder = tmp_path / "results" / "a"
    assert step_of(folder / "Basic" / "checkpoint.pt") >= 500
    numbers = sorted(int(path.stem.split("-")[1]) for path in (folder / "Basic").glob("Basic-*.pt"))
    assert not any(110 < number < 300 for number in numbers)
    assert any(300 <= number < 400 for number in numbers)


def test_at_the_end_it_is_saved_elsewhere(run_learn, basic_config, tmp_path, disk, monkeypatch):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.setattr(rescue.tempfile, "mkdtemp", lambda prefix: str(elsewhere))
    StatsReporter.add_writer(AtStep(200, lambda: disk.add(tmp_path / "results")))
    config = basic_config(max_steps=300)
    code, _, error = run_learn(config, "--env", "Basic", "--run-id", "a", "--seed", 1)
    assert code == 1
    assert f"What was learned is in {elsewhere}/checkpoint.pt: copy it to" in error
    assert step_of(elsewhere / "checkpoint.pt") >= 300
    disk.clear()
    folder = tmp_path / "results" / "a" / "Basic"
    (elsewhere / "checkpoint.pt").replace(folder / "checkpoint.pt")
    code, _, error = run_learn(basic_config(max_steps=400), "--env", "Basic", "--run-id", "a", "--resume")
    assert (code, error) == (0, "")
    assert step_of(folder / "checkpoint.pt") >= 400


@pytest.mark.parametrize("is_stopped", [False, True])
@pytest.mark.parametrize("is_given_up", [False, True])
def test_where_nothing_can_be_written_it_waits(
    run_learn, basic_config, tmp_path, disk, monkeypatch, is_given_up, is_stopped
):
    """Until the user gives up: that training was stopped before does not say so."""
    disk_is_full = [tmp_path]
    waits = []

    def wait(seconds):
        waits.append(seconds)
        if len(waits) == 3:
            if is_given_up:
                signal.raise_signal(signal.SIGTERM)
            else:
                disk.clear()

    monkeypatch.setattr(rescue.time, "sleep", wait)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.setattr(rescue.tempfile, "mkdtemp", lambda prefix: str(tmp_path / "elsewhere"))
    StatsReporter.add_writer(AtStep(200, lambda: disk.update(disk_is_full)))
    if is_stopped:
        StatsReporter.add_writer(AtStep(200, lambda: signal.raise_signal(signal.SIGTERM)))
    code, out, error = run_learn(basic_config(max_steps=300), "--env", "Basic", "--run-id", "a", "--seed", 1)
    assert len(waits) == 3
    assert "Nor can it be written elsewhere. Free some space" in out
    assert not (tmp_path / "elsewhere").exists()
    if is_given_up:
        assert code == 1
        assert "What was learned since its last checkpoint is lost." in error
    else:
        assert (code, error) == (0, "")
        assert step_of(tmp_path / "results" / "a" / "Basic" / "checkpoint.pt") >= (200 if is_stopped else 300)
        status = json.loads((tmp_path / "results" / "a" / "run_logs" / "training_status.json").read_text())
        assert status["metadata"]["run_status"] == ("interrupted" if is_stopped else "finished")


def test_the_state_finds_room_where_the_replay_buffer_does_not(run_learn, basic_config, tmp_path, monkeypatch):
    def no_room(self):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("mlagents.trainers.trainer.off_policy_trainer.OffPolicyTrainer.save_replay_buffer", no_room)
    config = basic_config(checkpoint_interval=100)
    settings = yaml.safe_load(config.read_text())
    replay = {"save_replay_buffer": True, "batch_size": 16, "steps_per_update": 8}
    settings["behaviors"]["Basic"].update(trainer_type="dqn", hyperparameters=replay)
    config.write_text(yaml.safe_dump(settings))
    code, out, _ = run_learn(config, "--env", "Basic", "--run-id", "a", "--seed", 1)
    assert code == 0
    assert out.count("The replay buffer of behavior Basic could not be written") == 1
    folder = tmp_path / "results" / "a" / "Basic"
    assert step_of(folder / "checkpoint.pt") >= 300
    assert len(list(folder.glob("Basic-*.pt"))) >= 3


def test_attempts_are_made_again_after_a_while():
    now = [0.0]
    attempts = Attempts("It", clock=lambda: now[0])
    assert attempts.may_try()
    with attempts:
        raise OSError("full")
    assert not attempts.may_try()
    now[0] += files.RETRY_INTERVAL_S
    assert attempts.may_try()
    with attempts:
        pass
    now[0] += 0.1
    assert attempts.may_try()
    with pytest.raises(ValueError, match="no matter of the disk"), attempts:
        raise ValueError("no matter of the disk")


def test_a_results_folder_that_is_deleted_comes_back(run_learn, basic_config, tmp_path):
    folder = tmp_path / "results" / "a"
    StatsReporter.add_writer(AtStep(200, lambda: shutil.rmtree(folder)))
    config = basic_config(max_steps=500, checkpoint_interval=100)
    code, out, error = run_learn(config, "--env", "Basic", "--run-id", "a", "--seed", 1)
    assert (code, error) == (0, "")
    configuration = folder / "configuration.yaml"
    assert out.count(f"{configuration.relative_to(tmp_path)} was gone, and maybe more of the run.") == 1
    assert yaml.safe_load(configuration.read_text())["env_settings"]["seed"] == 1
    assert step_of(folder / "Basic" / "checkpoint.pt") >= 500
    assert (folder / "Basic.onnx").is_file()
    assert (
        json.loads((folder / "run_logs" / "training_status.json").read_text())["metadata"]["run_status"] == "finished"
    )
    assert list((folder / "Basic").glob("events.out.tfevents.*"))


def test_after_a_failure_what_is_saved_is_of_one_moment(run_learn, basic_config, tmp_path, disk, monkeypatch):
    """The trainer's own checkpoint is written as the disk fills up; later, states of both are of the later moment."""
    monkeypatch.setattr(files, "RETRY_INTERVAL_S", 0.0)
    state = checkpoint_file.write_checkpoint
    written = []

    def fail_once(path, *args):
        if Path(path).name == "run_state.pt" and len(written) == 1:
            written.append(None)
            raise OSError(errno.ENOSPC, "No space left on device")
        if Path(path).name in ("run_state.pt", "checkpoint.pt"):
            written.append(Path(path).name)
        return state(path, *args)

    for module in ("mlagents.trainers.run_state", "mlagents.trainers.model_saver.torch_model_saver"):
        monkeypatch.setattr(f"{module}.write_checkpoint", fail_once)
    config = basic_config(max_steps=200, checkpoint_interval=10_000)
    code, _, error = run_learn(config, "--env", "Basic", "--run-id", "a", "--seed", 1)
    assert (code, error) == (0, "")
    assert written == ["checkpoint.pt", None, "checkpoint.pt", "run_state.pt", "checkpoint.pt", "run_state.pt"]


# A real disk: a file system of the test's own, in a namespace of its own

ON_A_SMALL_DISK = """
import subprocess, sys
from mlagents.trainers import learn
from mlagents.trainers.stats import StatsReporter, StatsWriter

size, at_step_200 = sys.argv.pop(1), sys.argv.pop(1)
subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "none", "small"], check=True)

class AtStep(StatsWriter):
    def write_stats(self, category, values, step):
        if step == 200:
            subprocess.run(at_step_200, shell=True, check=True)

StatsReporter.add_writer(AtStep())
learn.main()
"""
NAMESPACE = ("unshare", "--mount", "--map-root-user")


def may_mount():
    if shutil.which("unshare") is None:
        return False
    done = subprocess.run([*NAMESPACE, "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True, check=False)
    return done.returncode == 0


@pytest.mark.skipif(not may_mount(), reason="no file system can be mounted here")
@pytest.mark.parametrize(
    ("size", "at_step_200", "problem"),
    [
        ("40m", "mount -t tmpfs -o ro none small", "Read-only file system"),
        ("1m", "cat /dev/zero > small/zeros || true", "No space left on device"),
    ],
)
def test_a_disk_that_becomes_full_or_read_only(basic_config, tmp_path, size, at_step_200, problem):
    (tmp_path / "small").mkdir()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    config = basic_config(max_steps=1500, checkpoint_interval=100)
    run = subprocess.run(
        [*NAMESPACE, sys.executable, "-c", ON_A_SMALL_DISK, size, at_step_200,
         str(config), "--env", "Basic", "--run-id", "a", "--results-dir", "small", "--seed", "1"],
        cwd=tmp_path, env={**os.environ, "TMPDIR": str(elsewhere)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert run.returncode == 1
    assert "Traceback" not in run.stdout + run.stderr
    assert problem in run.stdout
    assert "Training goes on; it is tried again every 30 s." in run.stdout
    (saved,) = elsewhere.glob("mlagents-Basic-*/checkpoint.pt")
    assert f"What was learned is in {saved}: copy it to small/a/Basic to resume the run." in run.stderr
    assert step_of(saved) >= 1500
