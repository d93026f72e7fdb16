"""Environments by the names of PettingZoo's modules."""

import re

import numpy as np
import pytest
from pettingzoo.classic import tictactoe_v3

from mlagents_envs.env_resolver import LaunchOptions, resolve_env
from mlagents_envs.exception import UnityEnvironmentException


def made(module, *args):
    return resolve_env(f"pettingzoo:{module}", LaunchOptions(args=args)).make(
        worker_id=0, seed=1, num_areas=1, side_channels=[]
    )


@pytest.mark.parametrize("module", ["pettingzoo.classic.tictactoe_v3", "classic.tictactoe_v3", "classic/tictactoe_v3"])
def test_a_module_of_pettingzoos_by_its_short_name_too(module):
    env = made(module)
    env.reset()
    (name,) = env.behavior_specs
    decisions, _ = env.get_steps(name)
    assert name == "player?team=0"
    assert decisions.obs[0].shape == (1, np.prod(tictactoe_v3.env().observation_space("player_1")["observation"].shape))
    assert not decisions.action_mask[0].any()
    env.close()


def test_the_parallel_form_is_preferred_and_takes_arguments():
    env = made("classic/rps_v2", "num_actions=5")
    env.reset()
    assert len(env.get_steps("player?team=0")[0]) == 2
    assert env.behavior_specs["player?team=0"].action_spec.discrete_branches == (5,)
    env.close()


@pytest.mark.parametrize(
    ("module", "message"),
    [
        ("classic/tictacto_v3", "there is no module of that name. Did you mean 'tictactoe_v3'?"),
        ("classic/tictactoe", "has none of parallel_env, env, raw_env"),
        ("nowhere", "there is no module of that name. Write pettingzoo:MODULE"),
        ("", "there is no module of that name"),
        ("json", "the module json has none of parallel_env"),
    ],
)
def test_what_cannot_be_found_is_said_before_anything_starts(module, message):
    with pytest.raises(UnityEnvironmentException, match=re.escape(message)):
        resolve_env(f"pettingzoo:{module}")


def test_a_module_that_needs_what_is_not_there_says_so(tmp_path, monkeypatch):
    (tmp_path / "needy_game.py").write_text("import surely_not_there")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UnityEnvironmentException, match=r"needy_game: it cannot be imported: .*surely_not_there"):
        resolve_env("pettingzoo:needy_game")


@pytest.mark.parametrize("argument", ["colour=3", "num_actions=4"])
def test_an_argument_that_the_environment_does_not_take_is_named(argument):
    with pytest.raises(UnityEnvironmentException, match=rf"rps_v2: it cannot be made with {argument[:-2]}: "):
        made("classic/rps_v2", argument)
