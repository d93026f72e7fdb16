"""Other libraries train on environments of this one, through their own classes, unmodified."""

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import stable_baselines3.common.env_checker
import torch
from stable_baselines3 import PPO
from torchrl.envs import GymWrapper, UnityMLAgentsEnv, UnityMLAgentsWrapper
from torchrl.envs.utils import check_env_specs

from mlagents_envs.envs.sb3_vec_env import SB3VecEnv
from mlagents_envs.envs.unity_gym_env import UnityToGymWrapper
from mlagents_envs.envs.unity_vector_env import UnityVectorEnv
from mlagents_envs.exception import UnityEnvironmentException
from mlagents_envs.registry import default_registry

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")


def make(name, seed=1):
    return default_registry[name].make(seed=seed)


def test_stable_baselines3_checks_and_trains_on_one_agent():
    env = UnityToGymWrapper(make("Basic"))
    stable_baselines3.common.env_checker.check_env(env)
    model = PPO(
        "MlpPolicy", env, n_steps=64, batch_size=64, n_epochs=10, gamma=0.9, learning_rate=3e-3, device="cpu", seed=1
    )
    model.learn(8000)
    assert np.mean([episode["r"] for episode in model.ep_info_buffer]) > 0.8  # by chance it is about 0.2


def test_stable_baselines3_trains_on_all_agents_of_all_environments():
    env = SB3VecEnv(UnityVectorEnv([make("3DBall", seed) for seed in (1, 2)]))
    model = PPO("MlpPolicy", env, n_steps=64, batch_size=256, device="cpu", seed=1)
    model.learn(2 * 24 * 64)
    assert model.num_timesteps == 2 * 24 * 64


def test_stable_baselines3_gets_last_observations_cuts_and_masks():
    vector_env = UnityVectorEnv([make("GridWorld")])
    env = SB3VecEnv(vector_env)
    env.seed(3)
    observations = env.reset()
    assert {key: part.shape for key, part in observations.items()} == {"0": (16, 3, 64, 84), "1": (16, 2)}
    rng = np.random.default_rng(0)
    n_ends = n_cuts = 0
    for _ in range(110):
        masks = env.action_masks()
        assert not masks.all()
        actions = np.array([rng.choice(np.flatnonzero(row)) for row in masks])
        observations, _, ended, infos = env.step(actions)
        for agent in range(16):
            assert ended[agent] == ("terminal_observation" in infos[agent])
            if ended[agent]:
                n_ends += 1
                n_cuts += infos[agent]["TimeLimit.truncated"]
                assert env.observation_space.contains(infos[agent]["terminal_observation"])
    assert n_ends > n_cuts
    assert env.env_method("action_masks", indices=[0, 5])[1].shape == (5,)
    assert env.has_attr("action_masks")  # by which MaskablePPO knows it
    assert not SB3VecEnv(UnityVectorEnv([make("3DBall")])).has_attr("action_masks")
    env.close()


def test_a_vector_environment_of_another_mode_is_refused():
    import gymnasium

    with pytest.raises(UnityEnvironmentException, match="SAME_STEP"):
        SB3VecEnv(gymnasium.make_vec("CartPole-v1", 2))


def test_torchrl_runs_on_the_registry():
    env = UnityMLAgentsEnv(registered_name="3DBall")
    rollout = env.rollout(20, break_when_any_done=False)
    assert rollout["group_0", "agent_3", "continuous_action"].shape == (20, 2)
    rewards = torch.stack([rollout["next", "group_0", f"agent_{agent}", "reward"] for agent in range(12)])
    assert ((rewards == -1) | (rewards == np.float32(0.1))).all()
    env.close()


def test_torchrl_runs_on_an_executable():
    executable = shutil.which("mlagents-env", path=str(Path(sys.executable).parent))
    env = UnityMLAgentsEnv(file_name=executable, additional_args=["GridWorld"], worker_id=40)
    rollout = env.rollout(10, break_when_any_done=False)
    assert rollout["group_0", "agent_15", "discrete_action"].shape == (10, 5)
    env.close()


def test_torchrl_wraps_what_was_made_already():
    env = UnityMLAgentsWrapper(make("Basic"))
    assert env.rollout(5, break_when_any_done=False)["next", "group_0", "agent_0", "reward"].shape == (5, 1)
    env.close()


def test_torchrl_checks_the_gymnasium_form():
    env = GymWrapper(UnityToGymWrapper(make("Basic")))
    check_env_specs(env)
    env.close()
