"""Training over the wire: the command, executables that speak it as a Unity build does, and the Editor's port."""

import contextlib
import socket
import subprocess
import sys
import textwrap
from collections import defaultdict
from pathlib import Path

import numpy as np
import psutil
import pytest
import yaml

from mlagents.testing.fixed_policy import FixedPolicy
from mlagents.trainers.action_info import ActionInfo
from mlagents.trainers.agent_processor import AgentManager, LostAgents
from mlagents.trainers.environment_host import SourceEnvFactory
from mlagents.trainers.settings import EnvironmentSettings, RunOptions
from mlagents.trainers.stats import StatsReporter
from mlagents.trainers.subprocess_env_manager import SubprocessEnvManager
from mlagents_envs.base_env import ActionTuple
from mlagents_envs.env_resolver import LaunchOptions, UnitySource

ROOT = Path(__file__).parent.parent
EDITOR_PORT = 5004
LISTENING = "[INFO] Listening on port 5004. Start training by pressing the Play button in the Unity Editor."


@pytest.fixture
def executable(tmp_path):
    """Return a function that writes an executable: `mlagents-env` with some arguments, by worker.

    The worker is known by the name of its log, as in ``-logFile Player-2.log``.
    """

    def write(arguments, by_worker=None):
        path = tmp_path / "game.x86_64"
        path.write_text(
            textwrap.dedent(f"""\
                #!{sys.executable}
                import re, sys
                from mlagents_envs.server import main
                worker = int(re.search(r"Player-(\\d+)", " ".join(sys.argv))[1])
                sys.exit(main([*sys.argv[1:], *{arguments!r}, *{by_worker or {}!r}.get(worker, [])]))
                """)
        )
        path.chmod(0o755)
        return path

    return write


def configuration(path, **behavior):
    """Write a configuration of 3DBall with some settings changed, and return its path."""
    config = yaml.safe_load((ROOT / "config" / "ppo" / "3DBall.yaml").read_text())
    config["behaviors"]["3DBall"].update(behavior)
    path.write_text(yaml.safe_dump(config))
    return path


def learn(folder, *arguments, **options):
    command = [sys.executable, "-m", "mlagents.trainers.learn", *map(str, arguments), "--torch-device", "cpu"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, **options)


def editor_port_is_free():
    with contextlib.closing(socket.socket()) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", EDITOR_PORT))
        except OSError:
            return False
        return True


@pytest.mark.xdist_group("seed_document_install")  # one worker for all tests that need the Editor's port
def test_without_an_environment_it_waits_for_the_editor_and_a_pause_of_it(tmp_path):
    if not editor_port_is_free():
        pytest.skip("somebody holds port 5004")
    config = configuration(tmp_path / "config.yaml", max_steps=3000, summary_freq=1000)
    command = [sys.executable, "-m", "mlagents.trainers.learn", config, "--run-id", "editor", "--torch-device", "cpu"]
    trainer = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        assert trainer.stdout.readline() == LISTENING + "\n"
        play = [sys.executable, "-m", "mlagents_envs.server", "3DBall"]
        subprocess.run([*play, "--fault", "goodbye@50"], check=True, capture_output=True)
        printed = []
        while not printed or printed[-1] != LISTENING + "\n":  # it listens again
            printed.append(trainer.stdout.readline())
            assert printed[-1], printed
        assert "The Editor stopped." in "".join(printed)
        checkpoints = list((tmp_path / "results" / "editor" / "3DBall").glob("3DBall-*.pt"))
        assert len(checkpoints) == 1  # what was learned is saved while it waits
        subprocess.run(play, check=True, capture_output=True)
        rest, _ = trainer.communicate()
        assert trainer.returncode == 0, rest
        assert "Training is over." in rest
    finally:
        trainer.kill()
        trainer.wait()
    assert (tmp_path / "results" / "editor" / "3DBall.onnx").exists()


def test_an_executable_that_dies_at_its_start_is_one_message(tmp_path, executable):
    config = configuration(tmp_path / "config.yaml")
    run = learn(tmp_path, config, "--env", executable(["3DBall", "--fault", "exit=3"]))
    assert run.returncode == 1
    assert "Traceback" not in run.stderr
    assert "Worker 0" in run.stderr
    assert "exit code 3" in run.stderr


def test_a_policy_is_evaluated_in_one_more_executable(executable, tmp_path):
    """Which dies in its first life, and then is started anew for the next evaluation."""
    once = ["--once-file", str(tmp_path / "died")]
    game = executable(["Basic"], {1: ["--fault", "kill=KILL@3", *once]})
    evaluation = {"interval": 200, "episodes": 2, "max_episode_steps": 20}
    behavior = {"trainer_type": "ppo", "max_steps": 500, "summary_freq": 100, "evaluation": evaluation}
    config = tmp_path / "basic.yaml"
    config.write_text(yaml.safe_dump({"behaviors": {"Basic": behavior}}))
    run = learn(tmp_path, config, "--env", game, "--run-id", "a", "--seed", 1, timeout=300)
    assert run.returncode == 0, run.stderr
    assert "Behavior Basic could not be evaluated at step 2" in run.stdout
    assert run.stdout.count("Evaluation of 2 episodes") == 1
    assert (tmp_path / "results" / "a" / "Basic" / "best.onnx").is_file()
    assert not [it for it in psutil.process_iter(["cmdline"]) if str(game) in (it.info["cmdline"] or [])]


def test_the_logs_of_executables_are_in_the_runs_folder(tmp_path, executable):
    config = configuration(tmp_path / "config.yaml", max_steps=500, summary_freq=500)
    path = executable(["3DBall"])
    for _ in range(2):  # the second replaces the first
        run = learn(tmp_path, config, "--env", path, "--num-envs", 2, "--run-id", "logs", "--force")
        assert run.returncode == 0, run.stderr
        logs = tmp_path / "results" / "logs" / "run_logs"
        assert sorted(log.name for log in logs.glob("Player-*.log")) == ["Player-0.log", "Player-1.log"]


TRACED = '''
import numpy as np
from mlagents_envs.base_env import ActionSpec, BehaviorSpec, vector_observation
from mlagents_envs.vector_env import VectorEnv

class TracedEnv(VectorEnv):
    """Each observation says which start of the trainer's clock it is of, its episode, and its step."""

    def __init__(self, seed=0, side_channels=None):
        spec = BehaviorSpec([vector_observation(3, "trace")], ActionSpec.create_continuous(1))
        super().__init__("Traced", spec, 3, side_channels=side_channels)
        self.seed, self.episode, self.age = seed, np.full(3, -1), np.zeros(3, dtype=int)

    def observe(self):
        return np.stack([np.full(3, self.seed), self.episode, self.age], axis=1)

    def reset_agents(self, indices):
        self.episode[indices] += 1
        self.age[indices] = 0
        return [self.observe()[indices]]

    def step_agents(self, actions):
        self.age += 1
        return [self.observe()], self.age, self.age == 7, np.zeros(3, dtype=bool)
'''
BEHAVIOR = "Traced?team=0"


class StillPolicy(FixedPolicy):
    """Never moves."""

    def get_action(self, decision_requests, worker_id=0):
        still = ActionTuple(np.zeros((len(decision_requests), 1), dtype=np.float32))
        return ActionInfo(still, still, {}, decision_requests.agent_id)


def check_whole(trajectories):
    """Check that an agent's trajectories go on where the last stopped; return how often it began from nothing."""
    n_lives, episode, age = 0, -1, 0
    for trajectory in trajectories:
        trace = np.array([step.obs[0] for step in trajectory.steps])
        if (episode, age) != (trace[0, 1], trace[0, 2]):
            assert (trace[0, 1], trace[0, 2]) == (0, 0)
            n_lives += 1
        assert len({tuple(row) for row in trace[:, :2].tolist()}) == 1
        assert np.diff(trace[:, 2]).tolist() == [1] * (len(trace) - 1)
        assert [step.reward for step in trajectory.steps] == (trace[:, 2] + 1).tolist()
        episode, age = (trace[0, 1] + 1, 0) if trajectory.done_reached else (trace[0, 1], trace[-1, 2] + 1)
    return n_lives


def test_one_dies_again_and_again_one_hangs_one_sends_nan_and_the_rest_is_whole(tmp_path, executable, monkeypatch):
    (tmp_path / "traced_env.py").write_text(TRACED)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    path = executable(
        ["module:traced_env:TracedEnv", "--sleep-ms", "5"],
        {
            1: ["--fault", "kill=KILL@300"],  # after some two seconds, in every life
            2: ["--fault", "hang@150", "--once-file", str(tmp_path / "hung")],
            3: ["--fault", "nan=obs@250", "--once-file", str(tmp_path / "nan")],
        },
    )
    launch = LaunchOptions(timeout_wait=3, log_folder=str(tmp_path))
    settings = EnvironmentSettings(
        env_path=str(path), timeout_wait=3, max_lifetime_restarts=-1, restarts_rate_limit_n=-1
    )
    factory = SourceEnvFactory(UnitySource(str(path), launch), 1, 1)
    manager = SubprocessEnvManager(factory, RunOptions(env_settings=settings), 4)
    try:
        manager.reset()
        spec = manager.training_behaviors[BEHAVIOR]
        agents = AgentManager(spec, BEHAVIOR, StatsReporter("Traced"), 5)
        manager.set_agent_manager(BEHAVIOR, agents)
        manager.set_policy(BEHAVIOR, StillPolicy(spec))
        n_steps = defaultdict(int)
        while min(n_steps[worker_id] for worker_id in range(4)) < 700:
            steps = manager.get_steps()
            manager.process_steps(steps)
            for step in steps:
                n_steps[step.worker_id] += 1
    finally:
        manager.close()
        StatsReporter.stats_dict.clear()
    by_agent, lost = defaultdict(list), defaultdict(int)
    while not agents.trajectory_queue.empty():
        item = agents.trajectory_queue.get_nowait()
        if isinstance(item, LostAgents):
            lost[int(item.agent_ids[0].split("_")[1].split("-")[0])] += 1
        else:
            by_agent[item.agent_id].append(item)
    assert lost[1] >= 2
    assert (lost[0], lost[2], lost[3]) == (0, 1, 1)
    assert len(by_agent) == 12
    for agent_id, trajectories in by_agent.items():
        worker_id = int(agent_id.split("_")[1].split("-")[0])
        n_lives = check_whole(trajectories)
        assert n_lives in (lost[worker_id], lost[worker_id] + 1), agent_id  # the last may have been too short
