"""The command ``mlagents-env`` as a process, with a trainer in the test's hands and with `UnityEnvironment`."""

import os
import queue
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest

from mlagents_envs.base_env import (
    ActionSpec,
    BehaviorSpec,
    DimensionProperty,
    ObservationSpec,
    ObservationType,
    vector_observation,
)
from mlagents_envs.builtin.basic import BasicEnv
from mlagents_envs.communicator_objects.command_pb2 import STEP
from mlagents_envs.environment import UnityEnvironment
from mlagents_envs.server import main
from mlagents_envs.vector_env import VectorEnv


@pytest.fixture
def command(trainer):
    """Starts the command as a process, which is gone when the test ends."""
    started = []

    def start(*words, **options):
        command = [sys.executable, "-m", "mlagents_envs.server", "--mlagents-port", str(trainer.port), *words]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def test_the_command_serves_until_it_is_told_to_stop(trainer, command, tmp_path):
    log = tmp_path / "Player-0.log"
    process = command("-nographics", "-batchmode", "-logFile", str(log), "--debug", "-force-vulkan", "Basic")
    hello, _ = trainer.begin(seed=9, num_areas=3)
    assert hello.unity_output.rl_initialization_output.name == "Basic"
    assert len(trainer.reset().unity_output.rl_output.agentInfos["Basic?team=0"].value) == 3
    trainer.end()
    assert process.wait(trainer.patience_s) == 0
    assert process.stdout.read() == ""
    assert "seed 9, 3 area(s)" in log.read_text()
    assert "Ignored flags: -force-vulkan" in log.read_text()


def test_the_command_ends_quietly_when_the_trainer_has_gone(trainer, command):
    process = command("Basic")
    trainer.begin()
    trainer.close()
    output, _ = process.communicate(timeout=trainer.patience_s)
    assert process.returncode == 0, output
    assert f"The trainer on port {trainer.port} has gone." in output
    assert "mlagents-env: error" not in output
    assert "Traceback" not in output


def test_the_command_serves_environments_of_the_users_own(trainer, command, tmp_path):
    (tmp_path / "my_env.py").write_text(
        textwrap.dedent(
            """
            from mlagents_envs.builtin.basic import BasicEnv

            def make(num_areas):
                return BasicEnv(num_areas=10 * num_areas)
            """
        )
    )
    process = command("module:my_env:make", "--num-areas=2", cwd=tmp_path)
    trainer.begin()
    assert len(trainer.reset().unity_output.rl_output.agentInfos["Basic?team=0"].value) == 20
    trainer.end()
    assert process.wait(trainer.patience_s) == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["Basik"], "Did you mean 'Basic'"),
        ([], "one environment's NAME is needed, and none was given"),
        (["-width", "640", "Basic"], "640 and Basic were given"),
        (["Basic", "--fault", "nann"], "Did you mean 'nan'"),
        ([sys.executable], "program of its own"),
    ],
)
def test_mistakes_on_the_command_line_are_one_message(trainer, words, message, capsys):
    with pytest.raises(SystemExit) as exit_:
        sys.exit(main(["--mlagents-port", str(trainer.port), *words]))
    assert exit_.value.code in (1, 2)
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("fault", "code"), [("exit=7", 7), ("kill", -signal.SIGKILL), ("kill=SEGV@start", -signal.SIGSEGV)]
)
def test_dying_at_the_start(trainer, command, fault, code):
    assert command("Basic", "--fault", fault).wait(trainer.patience_s) == code


@pytest.mark.parametrize(("fault", "code"), [("exit=7@2", 7), ("exit=0@2", 0), ("kill@2", -signal.SIGKILL)])
def test_dying_in_a_run(trainer, command, fault, code):
    process = command("Basic", "--fault", fault)
    trainer.begin()
    trainer.reset()
    trainer.step()
    trainer.part_with(trainer.order(STEP))
    assert process.wait(trainer.patience_s) == code


def test_hanging_in_a_run(trainer, command):
    process = command("Basic", "--fault", "hang@1")
    trainer.begin()
    trainer.reset()
    trainer.part_with(trainer.order(STEP))
    with pytest.raises(queue.Empty):
        trainer.receive(timeout_s=0.3)
    assert process.poll() is None


def test_hanging_at_the_start(trainer, command):
    process = command("Basic", "--fault", "hang=0.05")
    trainer.begin()
    trainer.end()
    assert process.wait(trainer.patience_s) == 0


def test_a_restarted_process_is_healthy(trainer, command, tmp_path):
    words = ("Basic", "--fault", "exit=3", "--once-file", os.fspath(tmp_path / "once"))
    assert command(*words).wait(trainer.patience_s) == 3
    process = command(*words)
    trainer.begin()
    trainer.end()
    assert process.wait(trainer.patience_s) == 0


class PictureEnv(VectorEnv):
    """Shows images of 8 bits per value, forbids a choice, and ends an episode now and then."""

    def __init__(self, seed=0, num_areas=1, side_channels=None):
        image = ObservationSpec((4, 6, 5), (DimensionProperty.NONE,) * 3, ObservationType.DEFAULT, "camera")
        spec = BehaviorSpec([image, vector_observation(1, "speed")], ActionSpec.create_discrete((3, 2)))
        super().__init__("Picture", spec, 2 * num_areas, seed=seed, side_channels=side_channels)

    def reset_agents(self, indices):
        return [self._pixels(len(indices)), np.zeros((len(indices), 1))]

    def step_agents(self, actions):
        ended = self.rng.random((2, self.n_agents)) < 0.2
        return [self._pixels(self.n_agents), actions.discrete[:, :1] / 3], self.rng.random(self.n_agents), *ended

    def action_masks(self):
        return [self.rng.random((self.n_agents, 3)) < 0.3, np.zeros((self.n_agents, 2))]

    def _pixels(self, n):
        return self.rng.integers(0, 256, (n, 4, 6, 5)) / np.float32(255)


@pytest.fixture
def executable(tmp_path):
    """The command as a file that can be given to ``--env``."""
    path = tmp_path / "mlagents-env"
    path.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m mlagents_envs.server "$@"\n')
    path.chmod(0o755)
    return os.fspath(path)


def make_ball(**arguments):
    ball3d = pytest.importorskip("mlagents_envs.builtin.ball3d")
    return ball3d.Ball3DEnv(**arguments)


def assert_same_steps(ours, theirs, tolerance):
    """Check steps against others, bit for bit but for the observations' tolerance."""
    for mine, other in zip(ours.obs, theirs.obs, strict=True):
        np.testing.assert_allclose(mine, other, rtol=tolerance, atol=0)
    for field in set(vars(ours)) - {"obs", "agent_id_to_index"}:
        mine, other = getattr(ours, field), getattr(theirs, field)
        if field == "action_mask" and mine is not None:
            mine, other = np.concatenate(mine, axis=1), np.concatenate(other, axis=1)
        np.testing.assert_array_equal(mine, other)


@pytest.mark.parametrize(
    ("words", "make_env", "tolerance"),
    [
        (["Basic"], BasicEnv, 0),
        (["3DBall"], make_ball, 0),
        (["module:test_server_command:PictureEnv"], PictureEnv, 0),
        (["--png", "module:test_server_command:PictureEnv"], PictureEnv, 3e-7),
    ],
)
@pytest.mark.skipif(os.name == "nt", reason="the executable is a shell script")
def test_as_an_executable_it_gives_what_the_environment_gives_in_process(
    executable, words, make_env, tolerance, monkeypatch
):
    monkeypatch.chdir(Path(__file__).parent)
    here = make_env(seed=4, num_areas=2, side_channels=[])
    there = UnityEnvironment(executable, seed=4, num_areas=2, additional_args=words, no_graphics=True)
    try:
        here.reset()
        there.reset()
        ((name, spec),) = here.behavior_specs.items()
        assert there.behavior_specs[name] == spec
        np.random.seed(8)
        for age in range(40):
            if age == 30:
                here.reset()
                there.reset()
            for ours, theirs in zip(here.get_steps(name), there.get_steps(name)):
                assert_same_steps(ours, theirs, tolerance)
            actions = spec.action_spec.random_action(here.n_agents)
            for env in (here, there):
                env.set_actions(name, actions)
                env.step()
    finally:
        there.close()
