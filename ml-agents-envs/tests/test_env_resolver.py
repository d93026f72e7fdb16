"""What `--env` stands for, and what is said where it stands for nothing."""

import pickle
import sys

import pytest

from mlagents_envs.base_env import BaseEnv
from mlagents_envs.env_resolver import EditorSource, LaunchOptions, RegisteredSource, UnitySource, resolve_env
from mlagents_envs.exception import UnityEnvironmentException
from mlagents_envs.registry import default_registry
from mlagents_envs.side_channel.stats_side_channel import StatsSideChannel

WHAT_WORKS = (
    "What works: the path of an executable, 3DBall, Basic, GridWorld, Hallway, Sorter, module:package.module:factory, "
    "gym:ID, pettingzoo:MODULE."
)
MAKE = {"worker_id": 1, "seed": 2, "num_areas": 3, "side_channels": []}
ENVIRONMENT = """
from mlagents_envs.base_env import BaseEnv

class Env(BaseEnv):
    def __init__(self, **kwargs): self.kwargs = kwargs
    def step(self): pass
    def reset(self): pass
    def close(self): pass
    behavior_specs = {}
    def set_actions(self, behavior_name, action): pass
    def set_action_for_agent(self, behavior_name, agent_id, action): pass
    def get_steps(self, behavior_name): pass
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty current folder, which a console command has not on its search path."""
    modules = set(sys.modules)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry])
    yield tmp_path
    for name in set(sys.modules) - modules:
        file = getattr(sys.modules[name], "__file__", None)
        if file and file.startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.fixture
def module(folder):
    """Write `resolver_test_env.py` into the current folder: a `BaseEnv` named `Env`, then the given text."""

    def write(text):
        (folder / "resolver_test_env.py").write_text(ENVIRONMENT + text)

    return write


def _message(env):
    with pytest.raises(UnityEnvironmentException) as error:
        resolve_env(env)
    return str(error.value)


# Names


@pytest.mark.parametrize("name", ["3DBall", "Basic"])
def test_a_builtin_by_its_name(folder, name):
    if name == "3DBall":
        pytest.importorskip("mujoco")
    source = pickle.loads(pickle.dumps(resolve_env(name)))
    assert source.name == name
    env = source.make(**{**MAKE, "side_channels": [StatsSideChannel()]})
    assert isinstance(env, BaseEnv)
    env.close()


@pytest.mark.parametrize(
    ("env", "nearest"),
    [("3DBal", "'3DBall'"), ("basic", "'Basic'"), ("modul:my_env:make", "'module:'")],
)
def test_an_unknown_name_gets_the_nearest_one_and_the_list(folder, env, nearest):
    message = _message(env)
    assert message.startswith(f"--env {env}: there is no environment of that name")
    assert f"Did you mean {nearest}?" in message
    assert message.endswith(WHAT_WORKS)


@pytest.mark.parametrize("env", ["", "builds/Game", "C:\\Game", "nul\0byte"])
def test_something_else_altogether_gets_the_list(folder, env):
    message = _message(env)
    assert "Did you mean" not in message
    assert message.endswith(WHAT_WORKS)


@pytest.mark.parametrize(
    ("env", "scheme"),
    [("gim:CartPole-v1", "gym:"), ("petingzoo:classic.rps_v2", "pettingzoo:"), ("modul:a:b", "module:")],
)
def test_a_misspelt_kind_is_told_the_nearest_one(folder, env, scheme):
    assert f"Did you mean '{scheme}'?" in _message(env)


@pytest.mark.parametrize("env", ["gym:CartPole-v1", "pettingzoo:classic.rps_v2"])
def test_environments_of_other_libraries_can_be_made_by_a_worker(folder, env):
    source = pickle.loads(pickle.dumps(resolve_env(env)))
    assert source.name == env
    assert not source.has_own_process
    made = source.make(**MAKE)
    made.reset()
    made.step()
    made.close()


# Unity

LAUNCH = LaunchOptions(base_port=6000, timeout_wait=7, no_graphics=True, args=("--level", "2"), log_folder="logs")


def test_nothing_is_the_editor():
    source = pickle.loads(pickle.dumps(resolve_env(None, LAUNCH)))
    assert source == EditorSource(LAUNCH)
    assert source.name == "the Unity Editor"
    assert source.has_own_process


@pytest.mark.parametrize("file", ["Game", "builds/Game", "3DBall", "gym:CartPole-v1"])
def test_a_file_wins_over_a_name(folder, file):
    (folder / file).parent.mkdir(exist_ok=True)
    (folder / file).touch()
    source = pickle.loads(pickle.dumps(resolve_env(file, LAUNCH)))
    assert source == UnitySource(file, LAUNCH)
    assert source.has_own_process


def test_a_file_is_found_without_its_suffix(folder, monkeypatch):
    monkeypatch.setattr(sys, "platform", "linux")
    (folder / "Game.x86_64").touch()
    assert resolve_env("Game") == UnitySource("Game")


def test_a_file_is_told_by_the_nearest_one(folder):
    (folder / "Game.x86_64").touch()
    assert "Did you mean 'Game.x86_64'?" in _message("Gaem.x86_64")


def test_a_folder_does_not_hide_a_name(folder):
    (folder / "Basic").mkdir()
    assert resolve_env("Basic") == RegisteredSource(default_registry["Basic"])


def test_a_folder_alone_is_answered_with_what_is_in_it(folder):
    (folder / "build").mkdir()
    (folder / "build" / "Game").touch(mode=0o755)
    assert "build is a folder. Executables in it: build/Game. " in _message("build")


def test_making_the_environment_of_an_executable_starts_it_with_the_options(folder):
    if sys.platform == "win32":
        pytest.skip("the executable is a shell script")
    script = folder / "Game"
    script.write_text('#!/bin/sh\necho "$@" > arguments; exit 4\n')
    script.chmod(0o755)
    with pytest.raises(UnityEnvironmentException, match=r"^Worker 1 .*exit code 4"):
        resolve_env("Game", LAUNCH).make(**MAKE)
    words = (folder / "arguments").read_text().split()
    assert words[0] == "--mlagents-port"
    assert words[2:] == ["-nographics", "-batchmode", "-logFile", f"{folder}/logs/Player-1.log", "--level", "2"]


def test_what_runs_in_this_process_says_so(module):
    module("")
    assert not resolve_env("Basic").has_own_process
    assert not resolve_env("module:resolver_test_env:Env").has_own_process


# module:


def test_a_factory_of_the_current_folder(module):
    module("def make(**kwargs): return Env(**kwargs)")
    source = resolve_env("module:resolver_test_env:make")
    assert source.name == "module:resolver_test_env:make"
    assert source.make(**MAKE).kwargs == MAKE
    assert pickle.loads(pickle.dumps(source)).make(**MAKE).kwargs == MAKE


@pytest.mark.parametrize(
    ("signature", "received"),
    [
        ("", {}),
        ("seed", {"seed": 2}),
        ("num_areas, *, worker_id, size=9", {"num_areas": 3, "worker_id": 1, "size": 9}),
        ("side_channels=None, seed=0", {"side_channels": [], "seed": 2}),
        ("seed, **kwargs", {"seed": 2, "kwargs": {"worker_id": 1, "num_areas": 3, "side_channels": []}}),
        ("*args", {"args": ()}),
        ("positional=5, /", {"positional": 5}),
    ],
)
def test_a_factory_gets_what_its_signature_takes(module, signature, received):
    module(f"def make({signature}): return Env(**locals())")
    assert resolve_env("module:resolver_test_env:make").make(**MAKE).kwargs == received


def test_a_class_is_a_factory(module):
    module("class Mine(Env):\n    def __init__(self, seed): self.seed = seed")
    assert resolve_env("module:resolver_test_env:Mine").make(**MAKE).seed == 2


def test_a_module_inside_a_package(folder):
    (folder / "resolver_test_package").mkdir()
    (folder / "resolver_test_package" / "envs.py").write_text(ENVIRONMENT)
    env = resolve_env("module:resolver_test_package.envs:Env").make(**MAKE)
    assert type(env).__module__ == "resolver_test_package.envs"
    message = _message("module:resolver_test_package.env:Env")
    assert "no module 'resolver_test_package.env'" in message
    assert "Did you mean 'resolver_test_package.envs'?" in message


@pytest.mark.parametrize(
    "env",
    ["module:", "module:foo", "module:foo:", "module::make", "module:./foo.py:make", "module:foo:a:b", "module:.a:b"],
)
def test_bad_syntax_is_explained(folder, env):
    message = _message(env)
    assert message.startswith(f"--env {env}: write module:package.module:factory")


def test_a_missing_module_gets_the_nearest_one(module):
    module("")
    message = _message("module:resolver_tst_env:make")
    assert "there is no module 'resolver_tst_env'" in message
    assert "Did you mean 'resolver_test_env'?" in message
    assert "there is no module 'resolver_tst_env'" in _message("module:resolver_tst_env.inner.most:make")


def test_a_missing_factory_gets_the_nearest_one(module):
    module("def make_env(): return Env()")
    message = _message("module:resolver_test_env:make_evn")
    assert "'make_evn' has to be a function or class of the module 'resolver_test_env', and there is none." in message
    assert "Did you mean 'make_env'?" in message


def test_a_factory_that_cannot_be_called_is_named(module):
    module("answer = 42")
    assert "it is an object of type int" in _message("module:resolver_test_env:answer")


@pytest.mark.parametrize("signature", ["size", "size, **kwargs", "seed, /"])
def test_a_factory_that_needs_more_is_explained(module, signature):
    module(f"def make({signature}): return Env()")
    source = resolve_env("module:resolver_test_env:make")
    with pytest.raises(UnityEnvironmentException, match="may take any of worker_id, seed, num_areas, side_channels"):
        source.make(**MAKE)


def test_a_result_that_is_no_environment_is_named(module):
    module("class NotOne: pass")
    source = resolve_env("module:resolver_test_env:NotOne")
    with pytest.raises(UnityEnvironmentException, match=r"type resolver_test_env\.NotOne, which is not a BaseEnv"):
        source.make(**MAKE)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("import a_module_that_is_not_there", ModuleNotFoundError),
        ("from mlagents_envs import no_such_name", ImportError),
        ("1 / 0", ZeroDivisionError),
        ("def broken(:", SyntaxError),
    ],
)
def test_an_error_inside_the_module_comes_through(module, text, error):
    module(text)
    with pytest.raises(error):
        resolve_env("module:resolver_test_env:make")


def test_an_error_inside_the_factory_comes_through_with_its_traceback(module):
    module("def make(seed):\n    raise TypeError('deep inside')")
    source = resolve_env("module:resolver_test_env:make")
    with pytest.raises(TypeError, match="deep inside") as error:
        source.make(**MAKE)
    assert error.traceback[-1].path.name == "resolver_test_env.py"
