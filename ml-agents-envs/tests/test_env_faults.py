"""Everything that can go wrong with an environment's process: each is one message, from the real command."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from mlagents_envs import unity_behavior
from mlagents_envs.environment import UnityEnvironment
from mlagents_envs.exception import (
    UnityCommunicationException,
    UnityCommunicatorStoppedException,
    UnityEnvironmentException,
    UnityObservationException,
    UnitySideChannelException,
    UnityTimeOutException,
)

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the executable of these tests is a shell script")
BASIC = "Basic?team=0"


@pytest.fixture
def command(tmp_path):
    """The path of an executable that is `mlagents-env`, also where that is not installed."""
    path = tmp_path / "mlagents-env"
    path.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m mlagents_envs.server "$@"\n')
    path.chmod(0o755)
    return str(path)


@pytest.fixture
def start(command, tmp_path):
    """A function that starts the environment `Basic` with a fault; no process of it is left in the end."""
    before = set(psutil.Process().children())
    made = []

    def make(*faults, timeout_wait=20, worker_id=1):
        args = ["Basic", *(word for fault in faults for word in ("--fault", fault))]
        made.append(
            UnityEnvironment(
                command,
                worker_id=worker_id,
                timeout_wait=timeout_wait,
                additional_args=args,
                log_folder=str(tmp_path / "logs"),
            )
        )
        return made[-1]

    yield make
    for env in made:
        env.close()
    assert set(psutil.Process().children()) <= before


def _run(env, n_steps):
    """Reset, then step with random actions."""
    env.reset()
    for _ in range(n_steps):
        decisions, _ = env.get_steps(BASIC)
        env.set_actions(BASIC, env.behavior_specs[BASIC].action_spec.random_action(len(decisions)))
        env.step()


def test_without_a_fault_nothing_is_wrong(start, tmp_path, capfd):
    env = start()
    _run(env, 20)
    env.close()
    log = (tmp_path / "logs" / "Player-1.log").read_text()
    assert "Connected to the trainer" in log
    assert "Connected to the trainer" not in capfd.readouterr().out


def test_closed_in_the_middle_of_a_step_it_is_told_goodbye(start):
    env = start()
    _run(env, 3)
    env.step_async()
    env.close()
    assert env._process.describe_end() == "ended with exit code 0"


def test_a_step_is_waited_for_in_parts_and_no_longer_than_the_time_out(start):
    env = start("hang@3", timeout_wait=20)
    _run(env, 2)
    env._communicator.timeout_wait = 0.3
    env.step_async()
    assert not env.is_step_over(0.01)
    assert not env.is_step_over(0.05)
    with pytest.raises(UnityTimeOutException, match=r"sent no message within 0\.3 s"):
        env.is_step_over(10)


def test_missing(tmp_path):
    with pytest.raises(UnityEnvironmentException, match=rf"^Worker 3 \({tmp_path}/no\): .*there is no such file"):
        UnityEnvironment(f"{tmp_path}/no", worker_id=3)


def test_not_executable(command):
    os.chmod(command, 0o644)
    if os.access(command, os.X_OK):
        pytest.skip("whoever runs this may execute anything")
    with pytest.raises(UnityEnvironmentException, match=r"^Worker 0 .* is not executable\. Make it so: chmod \+x"):
        UnityEnvironment(command)


@pytest.mark.parametrize(
    ("fault", "end"), [("exit=3@start", "ended with exit code 3"), ("kill=TERM@start", "was killed by SIGTERM")]
)
def test_dies_at_the_start(start, fault, end):
    with pytest.raises(UnityEnvironmentException, match=rf"^Worker 1 \(.*\): its process {end} before the run began\."):
        start(fault)


def test_dies_at_the_start_and_says_why(start):
    with pytest.raises(UnityEnvironmentException) as error:
        start("no-such-fault")
    assert "ended with exit code 2" in str(error.value)
    assert "The last that it printed:\n" in str(error.value)
    assert "there is no fault 'no-such-fault'" in str(error.value)


@pytest.mark.parametrize(
    ("fault", "end"), [("exit=5@3", "ended with exit code 5"), ("kill=SEGV@3", "was killed by SIGSEGV")]
)
def test_dies_in_the_run(start, tmp_path, fault, end):
    env = start(fault)
    with pytest.raises(UnityEnvironmentException) as error:
        _run(env, 3)
    assert str(error.value).startswith(f"Worker 1 ({tmp_path}/mlagents-env): its process {end} during the run.\n")
    assert f"The end of its log, {tmp_path}/logs/Player-1.log:\n" in str(error.value)
    assert "Connected to the trainer" in str(error.value)
    with pytest.raises(UnityEnvironmentException, match="is closed"):
        env.step()


def test_hangs_at_the_start(start):
    with pytest.raises(UnityTimeOutException, match=r"^Worker 1 .* sent no message within 0\.2 s\. .*--timeout-wait"):
        start("hang@start", timeout_wait=0.2)


def test_hangs_in_the_run(start):
    env = start("hang@3", timeout_wait=5)
    env._communicator.timeout_wait = 0.2  # a start takes longer than that
    with pytest.raises(
        UnityTimeOutException, match=r"^Worker 1 .* sent no message within 0\.2 s\. .*\n.*Player-1\.log"
    ):
        _run(env, 3)


@pytest.mark.parametrize(
    ("fault", "kind", "message"),
    [
        ("garbage@start", UnityCommunicationException, ""),
        ("garbage@3", UnityCommunicationException, ""),
        ("goodbye@start", UnityCommunicatorStoppedException, "said goodbye before the run began"),
        ("goodbye@3", UnityCommunicatorStoppedException, "said goodbye during the run"),
        ("version=2.1.0", UnityEnvironmentException, r"'2\.1\.0' .*'1\.5\.0' .*Update this package, mlagents_envs\."),
        ("version=0.15.0", UnityEnvironmentException, r"'0\.15\.0' .*Update the environment's package, com\.unity\.ml"),
        ("nan=obs@3", UnityObservationException, r"Basic\?team=0.*agent 0.*nan"),
        ("nan=reward@3", UnityObservationException, r"Basic\?team=0.*agent 0.*reward.*nan"),
        ("wrong-shape@3", UnityObservationException, r"\(21,\).*Basic\?team=0.*agent 0.*\(20,\)"),
        ("short-side-channel@3", UnitySideChannelException, "break off"),
    ],
)
def test_says_what_it_must_not_say(start, fault, kind, message):
    with pytest.raises(kind, match=rf"^Worker 1 \(.*mlagents-env\): .*{message}"):
        _run(start(fault), 3)


def test_an_agent_never_introduced_is_left_out_with_a_warning(start, capsys):
    env = start("unknown-agent@2", "unknown-agent@3")
    _run(env, 3)
    assert len(env.get_steps(BASIC)[1]) == 0
    out = capsys.readouterr().out
    assert out.count("WARNING") == 1
    assert f"agent 999999 of the behavior {BASIC} ended an episode" in out


def test_a_behavior_that_vanishes_is_missed_once(start, monkeypatch, capsys):
    monkeypatch.setattr(unity_behavior, "MESSAGES_UNTIL_MISSED", 5)
    env = start("vanish@2")
    _run(env, 5)  # four messages without the behaviour, after that of the reset and one more
    assert "WARNING" not in capsys.readouterr().out
    for _ in range(10):
        env.step()
    out = capsys.readouterr().out
    assert out.count("WARNING") == 1
    assert "[WARNING] Worker 1 (" in out
    assert f"the behavior {BASIC} has had no agent in the last 5 steps" in out
    assert [len(steps) for steps in env.get_steps(BASIC)] == [0, 0]


def test_a_behavior_may_appear_late(start):
    env = start("late-behavior@2")
    _run(env, 1)
    assert list(env.behavior_specs) == [BASIC]
    env.step()
    assert list(env.behavior_specs) == [BASIC, "Late?team=0"]
    assert env.get_steps("Late?team=0")[0].obs[0].tolist() == [[0.5]]
    env.step()


def test_ten_at_once_share_no_port(start):
    with ThreadPoolExecutor(10) as pool:
        envs = list(pool.map(lambda _: start(timeout_wait=60), range(10)))
    for env in envs:
        _run(env, 2)
    assert len({env._communicator.port for env in envs}) == 10


@pytest.mark.parametrize("end", ["", "; 1 / 0", "; raise KeyboardInterrupt"])
def test_no_executable_survives_the_trainer(command, end):
    code = (
        "from mlagents_envs.environment import UnityEnvironment\n"
        f"env = UnityEnvironment({command!r}, additional_args=['Basic'])\n"
        f"env.reset(); print(env._process.pid){end}"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (result.returncode == 0) == (end == "")
    assert not psutil.pid_exists(int(result.stdout.splitlines()[-1]))
