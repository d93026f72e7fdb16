"""Workers in processes of their own: the same experience as in one process, and faults that stay with their worker."""

import logging
import os
import signal
import struct
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import cloudpickle
import numpy as np
import psutil
import pytest

from mlagents.testing.fixed_policy import FixedPolicy
from mlagents.trainers import subprocess_env_manager
from mlagents.trainers.action_info import ActionInfo
from mlagents.trainers.agent_processor import AgentManager, LostAgents
from mlagents.trainers.settings import (
    ConstantSettings,
    EngineSettings,
    EnvironmentSettings,
    RunOptions,
)
from mlagents.trainers.simple_env_manager import SimpleEnvManager
from mlagents.trainers.stats import StatsReporter
from mlagents.trainers.subprocess_env_manager import SubprocessEnvManager
from mlagents_envs import timers
from mlagents_envs.base_env import ActionSpec, ActionTuple, BehaviorSpec, vector_observation
from mlagents_envs.exception import (
    UnityCommunicationException,
    UnityCommunicatorStoppedException,
    UnityEnvironmentException,
    UnityTimeOutException,
)
from mlagents_envs.side_channel.engine_configuration_channel import EngineConfigurationChannel
from mlagents_envs.side_channel.environment_parameters_channel import EnvironmentParametersChannel
from mlagents_envs.side_channel.environment_side import EnvironmentSideChannels
from mlagents_envs.side_channel.stats_side_channel import StatsAggregationMethod
from mlagents_envs.vector_env import VectorEnv

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # workers cannot import this module

NAME = "Walk?team=0"
SPEC = BehaviorSpec([vector_observation(4, "worker, life, step, place")], ActionSpec(1, ()))
N_AGENTS, HORIZON = 3, 4

posix = pytest.mark.skipif(os.name != "posix", reason="signals and pipes with names")


class Walk(VectorEnv):
    """Agents walk by what they do and by chance; episodes end at different times.

    :param fault: called with the environment, instead of anything happening, at each step of which it returns True;
        what it returns otherwise is passed over.
    """

    def __init__(self, worker_id=0, seed=0, life=0, side_channels=(), fault=None, spec=SPEC):
        super().__init__("Walk", spec, N_AGENTS, seed=seed)
        self.worker_id, self.life, self.fault = worker_id, life, fault
        self.channels = EnvironmentSideChannels(side_channels)
        self.n_steps = 0
        self.place = np.zeros(N_AGENTS)

    def reset(self):
        self.channels.exchange()
        self.n_steps = 0
        super().reset()

    def observation(self):
        marks = np.tile([self.worker_id, self.life, self.n_steps], (N_AGENTS, 1))
        return np.column_stack([marks, self.place])

    def reset_agents(self, indices):
        self.place[indices] = self.rng.normal(size=len(indices))
        return [self.observation()[indices]]

    def step_agents(self, actions):
        self.n_steps += 1
        if self.fault is not None:
            self.fault(self)
        self.place += actions.continuous[:, 0] + self.rng.normal(size=N_AGENTS)
        ended = np.abs(self.place) > 3
        self.channels.add_stat("Place", float(self.place[0]), StatsAggregationMethod.AVERAGE)
        self.channels.exchange()
        return [self.observation()], -np.abs(self.place), ended, np.zeros(N_AGENTS, dtype=bool)


class TurnBack(FixedPolicy):
    """Lets agents go half of the way back, whoever else is asked for."""

    def get_action(self, decision_requests, worker_id=0):
        action = ActionTuple(-0.5 * decision_requests.obs[0][:, 3:])
        return ActionInfo(action, action, {}, decision_requests.agent_id)


@pytest.fixture
def start():
    """Return a function that makes a `SubprocessEnvManager`; in the end none of its processes and files is left."""
    managers, processes = [], []

    def make(factory, n_env=1, *, env_path="an environment of this test", params=None, begin=True, **settings):
        callbacks = {name: settings.pop(name) for name in ("stop_requested", "on_pause") if name in settings}
        settings = {"max_lifetime_restarts": -1, "restarts_rate_limit_n": -1, "timeout_wait": 30, **settings}
        options = RunOptions(
            env_settings=EnvironmentSettings(env_path=env_path, num_envs=n_env, **settings),
            engine_settings=EngineSettings(time_scale=7.0),
        )
        manager = SubprocessEnvManager(factory, options, n_env, **callbacks)
        managers.append((manager, Path(manager._folder.name)))
        processes.extend(psutil.Process(worker.process.pid) for worker in manager.env_workers)
        manager.set_policy(NAME, TurnBack(SPEC))
        manager.set_agent_manager(NAME, AgentManager(SPEC, NAME, StatsReporter("Walk"), HORIZON))
        if begin:
            manager.reset(params)
        return manager

    yield make
    for manager, folder in managers:
        processes.extend(psutil.Process(worker.process.pid) for worker in manager.env_workers)
        manager.close()
        assert not folder.exists()
    _, alive = psutil.wait_procs(processes, timeout=5)
    for process in alive:
        process.kill()
    assert not alive


@pytest.fixture
def lives(tmp_path):
    """Return a function that counts: the number of times that it was called with a worker's id before."""

    def count(worker_id):
        with open(tmp_path / f"lives-{worker_id}", "ab") as file:
            file.write(b"1")
            return file.tell() - 1

    return count


def step(manager):
    steps = manager.get_steps()
    manager.process_steps(steps)
    return [step.worker_id for step in steps]


def collect(manager, n_steps):
    """Step until every worker has done so many steps since now; return what was published, by worker."""
    counts = dict.fromkeys(range(len(manager.env_workers)), 0)
    while min(counts.values()) < n_steps:
        for worker_id in step(manager):
            counts[worker_id] += 1
    return published(manager)


def published(manager):
    queue = manager.agent_managers[NAME].trajectory_queue
    stories = {}
    for _ in range(queue.qsize()):
        item = queue.get_nowait()
        if isinstance(item, LostAgents):
            for agent_id in item.agent_ids:
                stories.setdefault(agent_id, []).append("lost")
        else:
            stories.setdefault(item.agent_id, []).append(item)
    return stories


def as_lists(trajectory):
    columns = trajectory.columns
    arrays = [*columns.obs, columns.reward, columns.continuous, *trajectory.next_obs]
    return [array.tolist() for array in arrays] + [trajectory.done_reached, trajectory.interrupted]


def assert_whole(stories, worker_id, n_steps):
    """Check that nothing is missing in what a worker's agents published, and that nothing of others is in it."""
    for agent in range(N_AGENTS):
        story = stories[f"agent_{worker_id}-{agent}"]
        observations = np.concatenate([trajectory.columns.obs[0] for trajectory in story])
        assert set(observations[:, 0]) == {worker_id}
        assert set(observations[:, 1]) == {0}
        assert observations[:, 2].tolist() == list(range(len(observations)))
        assert len(observations) > n_steps - HORIZON


def test_the_experience_is_that_of_the_same_environments_in_one_process(start):
    n_steps = 60
    manager = start(lambda worker_id, channels: Walk(worker_id, seed=worker_id), 3)
    together = collect(manager, n_steps)
    for worker_id in range(3):
        alone = SimpleEnvManager(Walk(worker_id, seed=worker_id), EnvironmentParametersChannel())
        alone.set_policy(NAME, TurnBack(SPEC))
        alone.set_agent_manager(NAME, AgentManager(SPEC, NAME, StatsReporter("Alone"), HORIZON))
        alone.reset()
        for _ in range(n_steps):
            step(alone)
        stories = published(alone)
        for agent in range(N_AGENTS):
            expected = [as_lists(trajectory) for trajectory in stories[f"agent_0-{agent}"]]
            found = [as_lists(trajectory) for trajectory in together[f"agent_{worker_id}-{agent}"]]
            assert len(expected) > n_steps / HORIZON - 1
            assert found[: len(expected)] == expected  # a worker may be ahead of the slowest, which was waited for


@posix
def test_a_slow_worker_does_not_hold_back_the_others(start, tmp_path):
    gate = tmp_path / "gate"
    os.mkfifo(gate)

    def wait(env):
        if env.worker_id == 1 and env.n_steps == 3:
            gate.read_bytes()

    manager = start(lambda worker_id, channels: Walk(worker_id, fault=wait), 3)
    counts = [0, 0, 0]
    while min(counts[0], counts[2]) < 50:
        for worker_id in step(manager):
            counts[worker_id] += 1
    assert counts[1] == 2
    gate.write_bytes(b"")
    while counts[1] < 20:
        for worker_id in step(manager):
            counts[worker_id] += 1
    stories = published(manager)
    for worker_id in range(3):
        assert_whole(stories, worker_id, counts[worker_id])


def die(env):
    os._exit(3)


def be_killed(env):
    os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))


def send_garbage(env):
    raise UnityCommunicationException(f"Worker {env.worker_id} sent garbage.")


def send_nan(env):
    env.place[1] = np.nan


FAULTS = {
    die: "Its process ended with exit code 3.",
    send_garbage: "Worker 1 sent garbage.",
    send_nan: "worker 1, agent 1, observation 'worker, life, step, place'[3]: nan",
}
if os.name == "posix":
    FAULTS[be_killed] = "Its process was killed by SIGKILL."


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_a_worker_that_fails_is_restarted_alone(start, lives, caplog, fault):
    def at_step_7(env):
        if (env.worker_id, env.life, env.n_steps) == (1, 0, 7):
            fault(env)

    def factory(worker_id, channels):
        return Walk(worker_id, seed=worker_id, life=lives(worker_id), fault=at_step_7)

    manager = start(factory, 3)
    with caplog.at_level(logging.WARNING, logger="mlagents"):
        stories = collect(manager, 30)
    warnings = [record.getMessage() for record in caplog.records if "Worker" in record.getMessage()]
    (warning,) = warnings
    assert warning.startswith("Worker 1 failed and starts anew (restart 1); the others go on. What happened: ")
    assert FAULTS[fault] in warning
    for worker_id in (0, 2):
        assert_whole(stories, worker_id, 30)
    for agent in range(N_AGENTS):
        story = stories[f"agent_1-{agent}"]
        assert story.count("lost") == 1
        end = story.index("lost")
        before, after = (
            np.concatenate([trajectory.columns.obs[0] for trajectory in part])
            for part in (story[:end] or story[:1], story[end + 1 :])
        )
        assert set(before[:, 1]) == {0}
        assert before[:, 2].tolist() == list(range(len(before)))
        assert len(before) <= 7
        assert set(after[:, 1]) == {1}
        assert after[:, 2].tolist() == list(range(len(after)))


@posix
def test_a_worker_that_hangs_is_ended_and_restarted(start, lives, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(subprocess_env_manager, "_STEP_GRACE_S", 1.0)
    gate = tmp_path / "gate"
    os.mkfifo(gate)

    def hang(env):
        if (env.worker_id, env.life, env.n_steps) == (0, 0, 5):
            gate.read_bytes()

    manager = start(lambda worker_id, channels: Walk(worker_id, life=lives(worker_id), fault=hang), 2, timeout_wait=1)
    with caplog.at_level(logging.WARNING, logger="mlagents"):
        stories = collect(manager, 20)
    (warning,) = [record.getMessage() for record in caplog.records if "Worker" in record.getMessage()]
    assert "Worker 0 failed and starts anew (restart 1)" in warning
    assert "It did not answer within 2 s (timeout_wait and some more)." in warning
    assert_whole(stories, 1, 20)
    assert stories["agent_0-0"].count("lost") == 1


def test_beyond_the_limit_the_run_ends_with_the_cause_and_the_setting(start, lives):
    def fault(env):
        if env.worker_id == 1 and env.n_steps == 4:
            raise UnityTimeOutException("It took its time.")

    manager = start(
        lambda worker_id, channels: Walk(worker_id, life=lives(worker_id), fault=fault), 2, max_lifetime_restarts=2
    )
    with pytest.raises(UnityTimeOutException) as error:
        collect(manager, 100)
    assert str(error.value).startswith("Worker 1 failed and is not started again: it was restarted 2 times in this run")
    assert "max_lifetime_restarts" in str(error.value)
    assert str(error.value).endswith("What happened: It took its time.")
    assert lives(1) == 3


def test_an_environment_that_cannot_be_started_at_first_is_an_error_at_once(start, lives):
    def factory(worker_id, channels):
        lives(worker_id)
        raise UnityEnvironmentException(f"Worker {worker_id}: no such executable.")

    with pytest.raises(UnityEnvironmentException, match=r"^Worker \d: no such executable\.$"):
        start(factory, 2)
    assert lives(0) <= 1


@pytest.mark.parametrize("n_steps", [0, 5])
def test_a_mistake_in_the_environments_code_shows_its_traceback(start, lives, n_steps):
    def divide(env):
        if env.n_steps == n_steps:
            1 / 0  # noqa: B018

    def factory(worker_id, channels):
        env = Walk(worker_id, life=lives(worker_id), fault=divide)
        if n_steps == 0:
            divide(env)
        return env

    with pytest.raises(UnityEnvironmentException) as error:
        collect(start(factory), 10)
    assert "The environment of worker 0 raised an error:\nTraceback (most recent call last):" in str(error.value)
    assert "in divide" in str(error.value)
    assert str(error.value).endswith("ZeroDivisionError: division by zero")
    assert lives(0) == 1


def test_a_worker_that_comes_back_as_another_is_an_error(start, lives):
    def factory(worker_id, channels):
        life = lives(worker_id)
        spec = SPEC if life == 0 else SPEC._replace(action_spec=ActionSpec(2, ()))
        return Walk(worker_id, life=life, fault=lambda env: env.n_steps == 3 and send_garbage(env), spec=spec)

    with pytest.raises(UnityEnvironmentException, match=r"Worker 0: behavior Walk\?team=0 is not what it was"):
        collect(start(factory), 10)


def test_the_end_of_play_is_a_pause_that_no_limit_counts(start, lives, caplog):
    """Also, while nobody presses Play, time-outs are no news, and nothing is saved again."""
    pauses = []

    def factory(worker_id, channels):
        life = lives(worker_id)
        if life in (2, 3):
            raise UnityTimeOutException("Nobody pressed Play.")
        return Walk(worker_id, life=life, fault=stop_playing)

    def stop_playing(env):
        if env.n_steps == 5:
            raise UnityCommunicatorStoppedException("The Editor stopped.")

    manager = start(
        factory,
        env_path=None,
        max_lifetime_restarts=0,
        restarts_rate_limit_n=0,
        on_pause=lambda: pauses.append(manager.agent_managers[NAME].trajectory_queue.qsize()),
    )
    with caplog.at_level(logging.INFO, logger="mlagents"):
        while len(pauses) < 4:
            step(manager)
    messages = [record.getMessage() for record in caplog.records if "Editor" in record.getMessage()]
    expected = "The Editor stopped. What was learned is saved; press Play to go on, or Ctrl-C to end the run."
    assert messages == [expected] * 4
    lives_seen = {
        life for item in published(manager)["agent_0-0"] if item != "lost" for life in item.columns.obs[0][:, 1]
    }
    assert lives_seen == {0, 1, 4, 5}


def test_a_request_to_stop_ends_the_wait_for_the_first_steps(start, tmp_path):
    """The environment, which nobody has seen yet, is not waited for."""
    asked = []

    def never(worker_id, channels):
        time.sleep(1000)

    def stop_requested():
        asked.append(time.monotonic())
        return len(asked) > 3

    manager = start(never, 2, begin=False, stop_requested=stop_requested)
    with pytest.raises(KeyboardInterrupt):
        manager.reset()
    assert max(np.diff(asked)) < 0.5
    begin_s = time.monotonic()
    manager.close()
    assert time.monotonic() - begin_s < 5


@posix
def test_a_request_to_stop_ends_the_wait_for_a_step(start, tmp_path):
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    stop = []
    manager = start(
        lambda worker_id, channels: Walk(worker_id, fault=lambda env: gate.read_bytes()),
        stop_requested=lambda: bool(stop),
    )
    stop.append("Ctrl-C")
    assert step(manager) == []
    gate.write_bytes(b"")


def test_parameters_engine_settings_and_statistics_pass_through_the_side_channels(start):
    class Scale(Walk):
        def observation(self):
            given = self.channels.parameters
            values = [given.get_with_default(name, -1.0) for name in ("mass", "length")]
            observation = super().observation()
            observation[:, 1:3] = values
            return observation

    def factory(worker_id, channels):
        (engine,) = (channel for channel in channels if isinstance(channel, EngineConfigurationChannel))
        assert struct.pack("<f", 7.0) in b"".join(bytes(message) for message in engine.message_queue)  # the time scale
        return Scale(worker_id, side_channels=channels)

    manager = start(factory, 2, params={"mass": ConstantSettings(value=2.5)})
    assert [step.current_all_step_result[NAME][0].obs[0][0, 1:3].tolist() for step in manager.first_step_infos] == [
        [2.5, -1.0]
    ] * 2
    collect(manager, 2)
    manager.set_env_parameters({"length": ConstantSettings(value=4.0)})
    collect(manager, 2)
    for worker in manager.env_workers:
        assert worker.previous_step.current_all_step_result[NAME][0].obs[0][0, 1:3].tolist() == [2.5, 4.0]
    assert StatsReporter("Walk").get_stats_summaries("Place").values.size >= 8


def test_a_reset_begins_all_environments_anew_whatever_they_are_doing(start):
    manager = start(lambda worker_id, channels: Walk(worker_id), 3)
    collect(manager, 5)
    assert manager.reset() == 3
    assert [info.worker_id for info in manager.first_step_infos] == [0, 1, 2]
    for info in manager.first_step_infos:
        assert info.brain_name_to_action_info == {}
        assert set(info.current_all_step_result[NAME][0].obs[0][:, 2]) == {0.0}
    stories = collect(manager, 20)
    for worker_id in range(3):
        assert_whole(stories, worker_id, 20)


def test_behaviors_are_those_of_all_workers_together(start):
    def factory(worker_id, channels):
        env = Walk(worker_id)
        return env if worker_id == 0 else VectorStill(f"Still{worker_id}")

    class VectorStill(VectorEnv):
        def __init__(self, name):
            super().__init__(name, BehaviorSpec([vector_observation(1, "x")], ActionSpec(0, (2,))), 1)

        def reset_agents(self, indices):
            return [np.zeros((len(indices), 1))]

        def step_agents(self, actions):
            return [np.zeros((1, 1))], np.zeros(1), np.zeros(1, dtype=bool), np.zeros(1, dtype=bool)

    behaviors = start(factory, 3).training_behaviors
    assert sorted(behaviors) == ["Still1?team=0", "Still2?team=0", NAME]
    assert behaviors[NAME] == SPEC


def test_the_time_that_workers_took_is_told_when_they_close(start):
    timers.reset_timers()
    manager = start(lambda worker_id, channels: Walk(worker_id), 2)
    collect(manager, 10)
    manager.close()
    for worker_id in range(2):
        worker = timers.get_timer_root().children[f"worker{worker_id}"]
        assert worker.is_parallel
        assert worker.children["env_step"].count >= 10


def test_an_environment_that_fails_to_close_is_a_warning(start, caplog):
    class Stuck(Walk):
        def close(self):
            raise UnityEnvironmentException("It does not close.")

    manager = start(lambda worker_id, channels: Stuck(worker_id))
    with caplog.at_level(logging.WARNING, logger="mlagents"):
        manager.close()
    assert "Worker 0 failed while it was closed: It does not close." in caplog.text


def test_a_worker_loads_no_torch(start):
    class Look(Walk):
        def observation(self):
            loaded = [name in sys.modules for name in ("torch", "tensorboard", "onnx")]
            return np.tile([*loaded, 0], (N_AGENTS, 1))

    manager = start(lambda worker_id, channels: Look(worker_id))
    collect(manager, 2)
    assert manager.env_workers[0].previous_step.current_all_step_result[NAME][0].obs[0][0].tolist() == [0, 0, 0, 0]


SCRIPT = """
import subprocess, sys, time
from mlagents.trainers import env_worker
from mlagents.trainers.settings import EnvironmentSettings, RunOptions
from mlagents.trainers.subprocess_env_manager import SubprocessEnvManager
from mlagents_envs.builtin.basic import BasicEnv

print("main", flush=True)  # without the usual guard: workers do not import this again


def make(worker_id, side_channels):
    class Env(BasicEnv):
        def step(self):
            env_worker._GRACE_S = 0.1
            subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
            time.sleep(1000 * worker_id)
            super().step()
    return Env()


manager = SubprocessEnvManager(make, RunOptions(env_settings=EnvironmentSettings(env_path="Basic")), 2)
manager.reset()
print(manager._folder.name, flush=True)
for worker in manager.env_workers:
    worker.send(env_worker.EnvironmentCommand.STEP, {})
manager.env_workers[0].recv()
print(*(worker.process.pid for worker in manager.env_workers), flush=True)
time.sleep(1000)
"""


@posix
def test_workers_never_outlive_the_trainer_though_it_is_killed_and_they_hang(tmp_path):
    path = tmp_path / "script.py"
    path.write_text(textwrap.dedent(SCRIPT), encoding="utf-8")
    with subprocess.Popen([sys.executable, str(path)], stdout=subprocess.PIPE, text=True) as trainer:
        processes = []
        try:
            lines = [trainer.stdout.readline().strip() for _ in range(3)]
            assert lines[0] == "main"
            workers = [psutil.Process(int(pid)) for pid in lines[2].split()]
            processes = [*workers, *(child for worker in workers for child in worker.children(recursive=True))]
        finally:
            trainer.kill()
        _, alive = psutil.wait_procs(processes, timeout=20)
        for process in alive:
            process.kill()
    assert len(processes) >= 3  # the second worker may not have started anything yet
    assert not alive
    assert not Path(lines[1]).exists()
