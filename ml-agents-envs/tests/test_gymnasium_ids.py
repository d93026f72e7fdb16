"""Environments by the ids that Gymnasium knows them by."""

import os
import signal
import sys

import numpy as np
import pytest
from gymnasium.vector import AsyncVectorEnv, SyncVectorEnv

from mlagents_envs.base_env import ActionTuple
from mlagents_envs.env_resolver import LaunchOptions, resolve_env
from mlagents_envs.exception import UnityEnvironmentException
from mlagents_envs.external.gymnasium_ids import make_vector_env


def make(env, num_areas=2, seed=1, args=()):
    return resolve_env(env, LaunchOptions(args=args)).make(
        worker_id=0, seed=seed, num_areas=num_areas, side_channels=[]
    )


def rewards(env, n_steps):
    """The rewards of a number of steps whose actions hang on what was observed."""
    env.reset()
    seen = []
    for _ in range(n_steps):
        decisions, terminals = env.get_steps(env.behavior_name)
        seen += [*decisions.reward, *terminals.reward]
        env.set_actions(env.behavior_name, ActionTuple(continuous=np.sin(100 * decisions.obs[0][:, :1])))
        env.step()
    env.close()
    return seen


SLOW = """
import time
import gymnasium
from gymnasium import spaces
import numpy as np

class Slow(gymnasium.Env):
    observation_space = spaces.Dict(number=spaces.Box(-9, 9, (1,)), said=spaces.Text(9))
    action_space = spaces.Box(-1, 1, (1,))
    def __init__(self, step_s=0.01):
        self.step_s = step_s
        self.age = 0
    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.age = 0
        return self.observe(), {}
    def step(self, action):
        deadline = time.perf_counter() + self.step_s
        while time.perf_counter() < deadline:
            pass
        self.age += 1
        return self.observe(), float(action[0] + self.np_random.normal()), False, self.age == 5, {}
    def observe(self):
        return {"number": self.np_random.normal(size=1).astype(np.float32), "said": f"Iam{self.age}"}

gymnasium.register("games/Slow-v0", Slow)
"""


STRICT = '''
import gymnasium
import numpy as np
from gymnasium import spaces

class Strict(gymnasium.Env):
    """It refuses actions that its mask forbids, and writes all that is seen into one array."""
    observation_space = spaces.Box(0, 100, (1,))
    action_space = spaces.Discrete(4)
    def __init__(self):
        self.age = np.zeros(1, np.float32)
    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.age[0] = 0
        return self.age, {"action_mask": np.array([0, 0, 1, 0], np.int8)}
    def step(self, action):
        assert action == 2, "forbidden"
        self.age += 1
        return self.age, 1.0, False, bool(self.age[0] == 3), {"action_mask": np.array([0, 0, 1, 0], np.int8)}

gymnasium.register("Strict-v0", Strict)
'''


def test_masks_hold_from_the_first_step_and_last_observations_are_kept(tmp_path, monkeypatch):
    (tmp_path / "strict_games.py").write_text(STRICT)
    monkeypatch.syspath_prepend(tmp_path)
    env = make("gym:strict_games:Strict-v0")
    env.reset()
    for _ in range(3):
        decisions, _ = env.get_steps("Strict-v0?team=0")
        choices = np.argmin(decisions.action_mask[0], axis=1)[:, None].astype(np.int32)
        env.set_actions("Strict-v0?team=0", ActionTuple(discrete=choices))
        env.step()
    decisions, terminals = env.get_steps("Strict-v0?team=0")
    assert terminals.obs[0].tolist() == [[3], [3]]
    assert decisions.obs[0].tolist() == [[0], [0]]
    env.close()


@pytest.fixture
def slow_games(tmp_path, monkeypatch):
    """Make the module `slow_games` importable, in child processes too."""
    (tmp_path / "slow_games.py").write_text(SLOW)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop("slow_games", None)


@pytest.mark.usefixtures("slow_games")
def test_slow_environments_step_in_processes_and_say_the_same():
    by_itself = make("gym:slow_games:games/Slow-v0", args=("vectorization_mode=sync",))
    in_processes = make("gym:slow_games:games/Slow-v0")
    assert isinstance(by_itself.vector_env, SyncVectorEnv)
    assert isinstance(in_processes.vector_env, AsyncVectorEnv)
    assert by_itself.behavior_name == "Slow-v0?team=0"
    assert rewards(in_processes, 12) == rewards(by_itself, 12)


@pytest.mark.usefixtures("slow_games")
@pytest.mark.skipif(sys.platform == "win32", reason="processes get no such signal there")
def test_ctrl_c_is_left_to_the_trainer():
    env = make("gym:slow_games:games/Slow-v0", args=("vectorization_mode=async",))
    env.reset()
    for process in env.vector_env.processes:
        os.kill(process.pid, signal.SIGINT)
    assert len(rewards(env, 12)) == 28  # 2 copies, which end at the steps 5 and 10


@pytest.mark.usefixtures("slow_games")
def test_fast_environments_and_single_ones_step_in_this_process():
    for num_areas, args in [(2, ("step_s=0",)), (1, ())]:
        env = make("gym:slow_games:games/Slow-v0", num_areas, args=args)
        assert isinstance(env.vector_env, SyncVectorEnv)
        env.close()


def test_an_environment_that_has_a_vector_form_is_stepped_by_it():
    assert type(make_vector_env("CartPole-v1", 2, {})).__name__ == "CartPoleVectorEnv"
    assert isinstance(make_vector_env("CartPole-v1", 2, {"sutton_barto_reward": True}), SyncVectorEnv)


def test_arguments_reach_the_constructor():
    env = make("gym:Pendulum-v1", args=("g=3.5", "vectorization_mode=sync"))
    assert env.vector_env.envs[0].unwrapped.g == 3.5
    env.close()


def test_the_id_of_an_atari_game():
    pytest.importorskip("ale_py")
    env = make("gym:ALE/Pong-v5")
    env.reset()
    env.step()
    decisions, _ = env.get_steps("Pong-v5?team=0")
    assert decisions.obs[0].shape == (2, 4, 84, 84)
    assert 0.2 < decisions.obs[0].max() <= 1
    env.close()


def test_the_id_of_a_minigrid():
    pytest.importorskip("minigrid")
    env = make("gym:MiniGrid-Empty-5x5-v0")
    env.reset()
    assert {spec.name: spec.shape for spec in env.behavior_specs["MiniGrid-Empty-5x5-v0?team=0"].observation_specs} == {
        "direction": (4,),
        "image": (3, 7, 7),
    }
    env.close()


@pytest.mark.parametrize(
    ("env", "args", "message"),
    [
        ("gym:CartPole-v9", (), r"--env gym:CartPole-v9: .*`v1`"),
        ("gym:CartPoel-v1", (), r"CartPoel.*Write gym:ID"),
        ("gym:not a name", (), "Malformed environment ID"),
        ("gym:gymnasium.nowhere:Walk-v0", (), "the module gymnasium.nowhere, .* cannot be imported: No module"),
        ("gym:no_such_package:Walk-v0", (), "the package no_such_package, which is not installed"),
        ("gym:Pendulum-v1", ("g",), r"--env-args takes .* KEY=VALUE but was given 'g'"),
        ("gym:Pendulum-v1", ("g=[1",), "the value of g .* cannot be read: while parsing"),
    ],
)
def test_what_cannot_be_found_is_said_before_anything_starts(env, args, message):
    with pytest.raises(UnityEnvironmentException, match=message):
        resolve_env(env, LaunchOptions(args=args))


@pytest.mark.parametrize(
    ("env", "args", "message"),
    [
        ("gym:Pendulum-v1", ("gravity=3",), r"cannot be made with gravity: .*unexpected keyword argument 'gravity'"),
        ("gym:Pendulum-v1", ("vectorization_mode=fast",), "is 'fast' but must be one of sync, async"),
        ("gym:CartPole-v1", ("vectorization_mode=vector_entry_point", "x=1"), "cannot be made with x"),
        ("gym:CartPole-v1", ("max_episode_steps=-3",), "cannot be made with max_episode_steps"),
        ("gym:FrozenLake-v1", ("map_name=9x9",), "cannot be made with map_name: '9x9'"),
        ("gym:Pendulum-v1", ("vectorization_mode=vector_entry_point",), "doesn't have a vector entry point"),
        ("gym:phys2d/CartPole-v1", (), "it cannot be made: .*jax"),
    ],
)
def test_what_cannot_be_made_is_said_in_one_message(env, args, message):
    with pytest.raises(UnityEnvironmentException, match=message):
        make(env, args=args)
