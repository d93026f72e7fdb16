"""Finding an executable, starting it, and ending it with all that it started."""

import os
import stat
import sys

import psutil
import pytest

from mlagents_envs import env_process, env_utils
from mlagents_envs.env_process import EnvProcess
from mlagents_envs.exception import UnityEnvironmentException

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the executables of these tests are shell scripts")
WAIT_S = 20


@pytest.fixture
def executable(tmp_path):
    """A function that writes an executable shell script, and returns its path."""

    def write(text, name="game"):
        path = tmp_path / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return str(path)

    return write


@pytest.fixture
def start(executable):
    """A function that starts a script; what still runs in the end is ended."""
    started = []

    def make(text, args=(), log_path=None):
        started.append(EnvProcess(executable(text), list(args), log_path))
        return started[-1]

    yield make
    for process in started:
        process.stop(0.0)


# Finding


@pytest.mark.parametrize("suffix", ["", ".x86_64", ".x86"])
def test_a_suffix_may_be_left_out(executable, tmp_path, monkeypatch, suffix):
    monkeypatch.setattr(sys, "platform", "linux")
    path = executable("", f"game{suffix}")
    assert env_utils.validate_environment_path(path) == path
    assert env_utils.validate_environment_path(str(tmp_path / "game")) == path


@pytest.mark.parametrize(("inside", "found"), [(["game", "x"], "game"), (["Other"], "Other"), (["x", "y"], None)])
def test_an_application_of_macos_is_a_folder(tmp_path, monkeypatch, inside, found):
    monkeypatch.setattr(sys, "platform", "darwin")
    folder = tmp_path / "game.app" / "Contents" / "MacOS"
    folder.mkdir(parents=True)
    for name in inside:
        (folder / name).touch()
    for written in ("game", "game.app", "game.app/"):
        path = env_utils.validate_environment_path(f"{tmp_path}/{written}")
        assert (os.path.realpath(path) if path else None) == (os.path.realpath(folder / found) if found else None)


@pytest.mark.parametrize("path", ["", "no/such/game", "nul\0byte", "."])
def test_what_is_no_file_is_not_found(path):
    assert env_utils.validate_environment_path(path) is None


def test_missing_says_what_was_looked_for_and_what_is_near(executable, tmp_path):
    near = executable("", "GameOfLife.x86_64")
    with pytest.raises(UnityEnvironmentException) as error:
        env_utils.launch_executable(str(tmp_path / "GaneOfLife.x86_64"), [])
    assert str(error.value).startswith(f"{tmp_path}/GaneOfLife.x86_64 cannot be started: there is no such file")
    assert f"Did you mean '{near}'?" in str(error.value)


def test_a_folder_is_answered_with_the_executables_in_it(executable, tmp_path):
    inside = executable("")
    (tmp_path / "readme.txt").touch()
    with pytest.raises(UnityEnvironmentException, match=f"is a folder. Executables in it: {inside}\\.$"):
        env_utils.launch_executable(str(tmp_path), [])


# Starting


def test_not_executable_says_how_to_make_it_so(executable):
    path = executable("")
    os.chmod(path, 0o644)
    if os.access(path, os.X_OK):
        pytest.skip("whoever runs this may execute anything")
    with pytest.raises(UnityEnvironmentException, match=f"^{path} is not executable. Make it so: chmod \\+x '{path}'$"):
        env_utils.launch_executable(path, [])


def test_not_runnable_says_why(tmp_path):
    path = tmp_path / "game"
    path.write_text("neither a script nor a program")
    path.chmod(0o755)
    with pytest.raises(
        UnityEnvironmentException, match=f"^{path} cannot be started: Exec format error. Is it made for"
    ):
        env_utils.launch_executable(str(path), [])


def test_a_bare_name_is_a_file_of_the_current_folder_and_prints_nothing_here(executable, tmp_path, monkeypatch, capfd):
    executable('echo "$@" > arguments; echo noise; echo noise >&2; ps -o sid= -p $$ > session')
    monkeypatch.chdir(tmp_path)
    with env_utils.launch_executable("game", ["--a", "b c"]) as process:
        assert process.wait(WAIT_S) == 0
    assert (tmp_path / "arguments").read_text() == "--a b c\n"
    assert int((tmp_path / "session").read_text()) == process.pid  # so Ctrl-C does not reach it
    assert capfd.readouterr() == ("", "")


# Ending


@pytest.mark.parametrize(
    ("text", "end"),
    [
        ("exit 3", "ended with exit code 3"),
        ("kill -SEGV $$", "was killed by SIGSEGV"),
        ("kill -KILL $$", "was killed by SIGKILL"),
    ],
)
def test_how_it_ended(start, text, end):
    process = start(text)
    assert process.has_ended(WAIT_S)
    assert process.describe_end() == end


def test_the_last_lines_of_the_log_and_of_the_output_are_told(start, tmp_path):
    log = tmp_path / "Player-0.log"
    process = start('seq 1 10000 > "$1"; echo; echo out; echo err >&2', [str(log)], log_path=str(log))
    assert process.has_ended(WAIT_S)
    lines = "".join(f"\n  {number}" for number in range(9991, 10001))
    assert process.describe_log() == (f"\nThe end of its log, {log}:{lines}\nThe last that it printed:\n  out\n  err")


def test_a_log_that_is_not_there_is_told_too(start, tmp_path):
    process = start("exit 0", log_path=str(tmp_path / "none.log"))
    assert process.has_ended(WAIT_S)
    assert process.describe_log() == f"\nIt wrote no log to {tmp_path}/none.log."


def test_it_may_end_by_itself(start, tmp_path):
    os.mkfifo(tmp_path / "fifo")
    process = start('read line < "$1"; exit 5', [str(tmp_path / "fifo")])
    assert not process.has_ended()
    (tmp_path / "fifo").write_text("goodbye\n")
    process.stop(WAIT_S)
    assert process.describe_end() == "ended with exit code 5"
    process.stop(WAIT_S)


@pytest.mark.parametrize("first", ["", "trap '' TERM; ", "exec 3<&0; (trap '' TERM; sleep 1000) & "])
def test_what_does_not_end_is_ended_with_what_it_started(start, tmp_path, monkeypatch, first):
    monkeypatch.setattr(env_process, "_TERMINATION_GRACE_S", 0.1)
    os.mkfifo(tmp_path / "fifo")
    process = start(f'{first}sleep 1000 & echo $! > "$1"; wait', [str(tmp_path / "fifo")])
    child = psutil.Process(int((tmp_path / "fifo").read_text()))
    process.stop(0.0)
    assert process.has_ended()
    assert psutil.wait_procs([child], timeout=WAIT_S)[1] == []


def test_children_of_one_that_died_are_ended(start, tmp_path):
    os.mkfifo(tmp_path / "fifo")
    process = start('sleep 1000 & echo $! > "$1"; exit 1', [str(tmp_path / "fifo")])
    child = psutil.Process(int((tmp_path / "fifo").read_text()))
    assert process.has_ended(WAIT_S)
    process.stop(0.0)
    assert psutil.wait_procs([child], timeout=WAIT_S)[1] == []
