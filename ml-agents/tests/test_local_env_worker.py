"""One executable, spoken to from the trainer's process: the same experience, and the same answers to its faults."""

import logging
import sys
import textwrap
import threading

import numpy as np
import psutil
import pytest

from mlagents.testing.fixed_policy import FixedPolicy
from mlagents.trainers.action_info import ActionInfo
from mlagents.trainers.agent_processor import AgentManager, LostAgents
from mlagents.trainers.environment_host import SourceEnvFactory
from mlagents.trainers.settings import ConstantSettings, EnvironmentSettings, RunOptions
from mlagents.trainers.simple_env_manager import SimpleEnvManager
from mlagents.trainers.stats import StatsReporter
from mlagents.trainers.subprocess_env_manager import SubprocessEnvManager
from mlagents_envs import environment
from mlagents_envs.base_env import ActionTuple
from mlagents_envs.builtin.ball3d import Ball3DEnv
from mlagents_envs.env_resolver import LaunchOptions, UnitySource
from mlagents_envs.exception import UnityTimeOutException
from mlagents_envs.side_channel.environment_parameters_channel import EnvironmentParametersChannel

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the executable of these tests is a script")

NAME, HORIZON, SEED = "3DBall?team=0", 10, 7
SPEC = Ball3DEnv().behavior_specs[NAME]


class Tilt(FixedPolicy):
    """Tilts by what it sees."""

    def get_action(self, decision_requests, worker_id=0):
        action = ActionTuple(np.clip(decision_requests.obs[0][:, 2:4], -1, 1))
        return ActionInfo(action, action, {}, decision_requests.agent_id)


def prepare(manager):
    manager.set_policy(NAME, Tilt(SPEC))
    manager.set_agent_manager(NAME, AgentManager(SPEC, NAME, StatsReporter("Tilt"), HORIZON))
    return manager


@pytest.fixture
def start(tmp_path):
    """A function that makes a manager of 3DBall as an executable, whose first life has faults; no process is left."""
    before = set(psutil.Process().children())
    managers = []

    def make(*faults, timeout_wait=20, **settings):
        path = tmp_path / "game"
        words = [word for fault in faults for word in ("--fault", fault)]
        path.write_text(
            textwrap.dedent(f"""\
                #!{sys.executable}
                import sys
                from pathlib import Path
                from mlagents_envs.server import main
                lives = Path({str(tmp_path / "lives")!r})
                faults = [] if lives.exists() else {words!r}
                lives.touch()
                sys.exit(main([*sys.argv[1:], "3DBall", *faults]))
                """)
        )
        path.chmod(0o755)
        callbacks = {name: settings.pop(name) for name in ("stop_requested",) if name in settings}
        settings = {"max_lifetime_restarts": -1, "restarts_rate_limit_n": -1, "timeout_wait": timeout_wait, **settings}
        options = RunOptions(env_settings=EnvironmentSettings(env_path=str(path), **settings))
        source = UnitySource(str(path), LaunchOptions(timeout_wait=timeout_wait))
        factory = SourceEnvFactory(source, SEED, num_areas=1)
        managers.append(SubprocessEnvManager(factory, options, has_own_process=True, **callbacks))
        return prepare(managers[-1])

    yield make
    for manager in managers:
        manager.close()
    assert set(psutil.Process().children()) <= before


def collect(manager, n_steps):
    """Step so many times; return what was published, by agent."""
    stories, n_done = {}, 0
    while n_done < n_steps:
        n_done += manager.process_steps(manager.get_steps())
    queue = manager.agent_managers[NAME].trajectory_queue
    for _ in range(queue.qsize()):
        item = queue.get_nowait()
        if isinstance(item, LostAgents):
            for agent_id in item.agent_ids:
                stories.setdefault(agent_id, []).append("lost")
        else:
            obs = np.concatenate([item.columns.obs[0], item.next_obs[0][None]])
            what = [obs.tolist(), item.columns.reward.tolist(), item.done_reached, item.interrupted]
            stories.setdefault(item.agent_id, []).append(what)
    return stories


def reference(n_steps):
    """Return what such an environment gives in this process."""
    manager = prepare(SimpleEnvManager(Ball3DEnv(seed=SEED), EnvironmentParametersChannel()))
    manager.reset()
    return collect(manager, n_steps)


def test_the_experience_is_that_of_the_same_environment_in_this_process(start):
    manager = start()
    manager.reset()
    found, expected = collect(manager, 100), reference(100)
    assert len(expected) == 12
    assert any(len(story) > 100 / HORIZON for story in expected.values())  # episodes ended
    assert found == expected


def test_the_environment_simulates_while_its_step_is_collected(start):
    manager = start()
    manager.reset()
    manager.get_steps()
    (worker,) = manager.env_workers
    assert worker.waiting
    assert worker._env.is_step_over(10)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("exit=5@20", "ended with exit code 5"),
        ("kill=SEGV@20", "was killed by SIGSEGV"),
        ("hang@20", "sent no message within 2 s"),
        ("nan@20", "not finite"),
        ("garbage@20", "are no message"),
    ],
)
def test_an_executable_that_fails_is_started_anew(start, caplog, fault, message):
    with caplog.at_level(logging.WARNING):
        manager = start(fault, timeout_wait=2 if "hang" in fault else 20)
        manager.reset()
        stories = collect(manager, 60)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert message in caplog.text
    assert "Worker 0 failed and starts anew (restart 1)" in caplog.text
    whole = reference(60)
    assert len(stories) == 12
    for agent_id, story in stories.items():
        at = story.index("lost")
        before, after = story[:at], story[at + 1 :]  # the same seed makes both lives alike
        assert len(after) > 2
        assert whole[agent_id][: len(before)] == before
        assert whole[agent_id][: len(after)] == after


def test_beyond_the_limit_the_run_ends(start):
    manager = start("exit=5@3", max_lifetime_restarts=0)
    manager.reset()
    with pytest.raises(Exception, match=r"(?s)Worker 0 failed and is not started again.*exit code 5"):
        collect(manager, 10)


def test_parameters_reach_the_executable_with_the_next_step(start):
    stories = []
    for scale in (1.0, 2.0):
        manager = start()
        manager.reset({"scale": ConstantSettings(value=1.0)})
        manager.set_env_parameters({"scale": ConstantSettings(value=scale)})
        stories.append(collect(manager, 100))
    assert stories[0] == reference(100)
    assert stories[1] != stories[0]  # later episodes have another ball


def test_a_request_to_stop_ends_the_wait_for_the_first_steps_and_the_executable(start):
    threads, before = set(threading.enumerate()), set(psutil.Process().children())
    started = iter([False, True])
    manager = start("hang@start", timeout_wait=60, stop_requested=lambda: next(started, True))
    with pytest.raises(KeyboardInterrupt):
        manager.reset()
    manager.close()
    assert set(psutil.Process().children()) <= before
    assert not [thread for thread in set(threading.enumerate()) - threads if "_begin" in thread.name]


def test_a_request_to_stop_ends_the_wait_for_a_step(start, monkeypatch):
    monkeypatch.setattr(environment, "_CLOSE_GRACE_S", 0.1)
    requested = []
    manager = start("hang@5", timeout_wait=60, stop_requested=lambda: bool(requested))
    manager.reset()
    collect(manager, 4)
    requested.append(True)
    assert manager.get_steps() == []


def test_an_executable_that_cannot_be_started_at_first_is_an_error_at_once(start):
    with pytest.raises(UnityTimeOutException, match=r"^Worker 0 .* sent no message within 1 s"):
        start("hang@start", timeout_wait=1).reset()
