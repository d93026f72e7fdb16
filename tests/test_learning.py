"""Agents learn: the shipped configurations, through the command, on the built-in environments.

The figure is the mean return over all episodes that ended in a run's last three summaries.
"""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import yaml
from pettingzoo.classic import tictactoe_v3
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mlagents_envs.base_env import ActionTuple
from mlagents_envs.builtin.ball3d import Ball3DEnv

CONFIGS = Path(__file__).parent.parent / "config" / "ppo"

pytestmark = pytest.mark.learning


LAMPS = '''
import numpy as np
from mlagents_envs.base_env import ActionSpec, BehaviorSpec, image_observation
from mlagents_envs.vector_env import VectorEnv

CAMERA = image_observation(3, 20, 20, "camera")


class Lamps(VectorEnv):
    """One of four lamps is on, in some colour: to name it brings 1 / 8, in each of the 8 steps of an episode."""

    def __init__(self, seed=0, side_channels=None):
        spec = BehaviorSpec([CAMERA], ActionSpec.create_discrete((4,)))
        super().__init__("Lamps", spec, 16, seed=seed, side_channels=side_channels)
        self.age, self.lamp = np.zeros(16, dtype=int), np.zeros(16, dtype=int)

    def look(self, indices):
        self.lamp[indices] = self.rng.integers(4, size=len(indices))
        image = self.rng.uniform(0.0, 0.2, (len(indices), *CAMERA.shape)).astype(np.float32)
        for row, lamp in zip(image, self.lamp[indices]):
            top, left = 10 * (lamp // 2), 10 * (lamp % 2)
            row[self.rng.integers(3), top + 2 : top + 8, left + 2 : left + 8] = 1.0
        return [image]

    def reset_agents(self, indices):
        self.age[indices] = 0
        return self.look(indices)

    def step_agents(self, actions):
        rewards = (actions.discrete[:, 0] == self.lamp) / 8
        self.age += 1
        return self.look(np.arange(16)), rewards, self.age == 8, np.zeros(16, dtype=bool)
'''

LAMPS_CONFIG = """
behaviors:
  Lamps:
    trainer_type: ppo
    hyperparameters: {batch_size: 128, buffer_size: 1024, learning_rate: 1.0e-3, num_epoch: 3}
    network_settings: {hidden_units: 64, num_layers: 1, vis_encode_type: simple}
    max_steps: 24000
    time_horizon: 8
    summary_freq: 2000
"""


def learn(config, environment, seed, folder, *flags):
    """Run the command and return the folder of the run."""
    command = [sys.executable, "-m", "mlagents.trainers.learn", str(CONFIGS / config)]
    options = ["--env", environment, "--run-id", "run", "--seed", str(seed), "--torch-device", "cpu"]
    subprocess.run([*command, *options, *flags], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    return folder / "results" / "run"


def mean_return_at_the_end(run, behavior):
    """Return the mean over the episodes of the last three summaries, read from the histograms in the event files."""
    events = EventAccumulator(str(run / behavior), size_guidance={"histograms": 0})
    events.Reload()
    last = [event.histogram_value for event in events.Histograms("Environment/Cumulative Reward_hist")[-3:]]
    episodes = sum(histogram.num for histogram in last)
    assert episodes >= 12
    return sum(histogram.sum for histogram in last) / episodes


def greedy_return(model_path, seed):
    """Return the mean return of twelve episodes of 3DBall played by an exported model alone."""
    model = onnxruntime.InferenceSession(str(model_path))
    env = Ball3DEnv(seed=seed)
    env.reset()
    returns = np.zeros(env.n_agents)
    playing = np.ones(env.n_agents, dtype=bool)
    while playing.any():
        decisions, _ = env.get_steps(env.behavior_name)
        (actions,) = model.run(["deterministic_continuous_actions"], {"obs_0": decisions.obs[0]})
        env.set_actions(env.behavior_name, ActionTuple(continuous=actions))
        env.step()
        decisions, ended = env.get_steps(env.behavior_name)
        reward = decisions.reward.copy()
        reward[ended.agent_id] = ended.reward
        returns[playing] += reward[playing]
        playing[ended.agent_id] = False
    return returns.mean()


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_3dball_is_solved_and_its_model_plays(tmp_path, seed):
    run = learn("3DBall.yaml", "3DBall", seed, tmp_path)
    assert mean_return_at_the_end(run, "3DBall") >= 95.0
    assert greedy_return(run / "3DBall.onnx", seed=100 + seed) >= 95.0


def test_3dball_is_solved_by_sac_and_its_model_plays(tmp_path):
    run = learn(CONFIGS.parent / "sac" / "3DBall.yaml", "3DBall", 1, tmp_path)
    assert mean_return_at_the_end(run, "3DBall") >= 95.0
    assert greedy_return(run / "3DBall.onnx", seed=101) >= 95.0


def test_3dball_is_solved_over_the_wire_in_two_processes(tmp_path):
    executable = shutil.which("mlagents-env", path=str(Path(sys.executable).parent))
    run = learn("3DBall.yaml", executable, 1, tmp_path, "--num-envs", "2", "--env-args", "3DBall")
    assert mean_return_at_the_end(run, "3DBall") >= 95.0
    assert sorted(log.name for log in (run / "run_logs").glob("Player-*.log")) == ["Player-0.log", "Player-1.log"]


def test_what_is_seen_is_learned_from(tmp_path):
    (tmp_path / "lamps.py").write_text(LAMPS)
    config = tmp_path / "lamps.yaml"
    config.write_text(LAMPS_CONFIG)
    run = learn(config, "module:lamps:Lamps", 1, tmp_path)
    assert mean_return_at_the_end(run, "Lamps") >= 0.9  # by chance it is 0.25


def test_basic_is_solved(tmp_path):
    run = learn("Basic.yaml", "Basic", 1, tmp_path)
    assert mean_return_at_the_end(run, "Basic") >= 0.90


def test_what_is_seen_and_asked_for_decides_where_to_go(tmp_path):
    run = learn("GridWorld.yaml", "GridWorld", 1, tmp_path)
    assert mean_return_at_the_end(run, "GridWorld") >= 0.8


@pytest.mark.parametrize(
    ("config", "threshold"),
    [
        ("ppo/CartPole-v1.yaml", 475),
        ("ppo/Pendulum-v1.yaml", -250),
        ("sac/Pendulum-v1.yaml", -200),  # within 20,000 steps
        ("ppo/LunarLander-v3.yaml", 200),
        ("ppo/MiniGrid-Empty-Random-5x5-v0.yaml", 0.85),  # of images; at random it is 0.4
    ],
)
def test_environments_of_gymnasium_are_solved(tmp_path, config, threshold):
    path = CONFIGS.parent / config
    run = learn(path, f"gym:{path.stem}", 1, tmp_path)
    assert mean_return_at_the_end(run, path.stem) >= threshold


def test_agents_of_pettingzoo_that_die_learn(tmp_path):
    environment = "pettingzoo:butterfly/knights_archers_zombies_v11"
    run = learn("knights_archers_zombies_v11.yaml", environment, 1, tmp_path)
    assert mean_return_at_the_end(run, "archer") >= 1.9  # zombies shot; in the beginning 1.2
    assert (run / "knight.onnx").exists()


def score_at_tictactoe(model_path, n_games):
    """Return won minus lost games, as a share, of an exported model against random moves, and as a list per side."""
    model = onnxruntime.InferenceSession(str(model_path))
    rng = np.random.default_rng(0)
    scores = {"player_1": [], "player_2": []}
    for game in range(n_games):
        env = tictactoe_v3.env()
        env.reset()
        side = f"player_{1 + game % 2}"
        for agent in env.agent_iter():
            observation, reward, ended, _, _ = env.last()
            if ended:
                if agent == side:
                    scores[side].append(reward)
                env.step(None)
                continue
            allowed = observation["action_mask"]
            if agent == side:
                board = observation["observation"].reshape(1, -1).astype(np.float32)
                inputs = {"obs_0": board, "action_masks": allowed[None].astype(np.float32)}
                (choice,) = model.run(["deterministic_discrete_actions"], inputs)
                env.step(int(choice[0, 0]))
            else:
                env.step(int(rng.choice(np.flatnonzero(allowed))))
    return {side: np.mean(of_side) for side, of_side in scores.items()}


def test_a_game_of_pettingzoo_in_turns_is_learned_by_playing_it_against_oneself(tmp_path):
    run = learn("tictactoe_v3.yaml", "pettingzoo:classic/tictactoe_v3", 1, tmp_path)
    score = score_at_tictactoe(run / "player.onnx", 400)  # by chance it is 0.3 for who begins and -0.3 for the other
    assert score["player_1"] >= 0.7
    assert score["player_2"] >= 0.3


def test_hallway_is_solved(tmp_path):
    run = learn("Hallway.yaml", "Hallway", 1, tmp_path)
    assert mean_return_at_the_end(run, "Hallway") >= 0.8


def test_hallway_is_not_solved_without_memory(tmp_path):
    config = yaml.safe_load((CONFIGS / "Hallway.yaml").read_text())
    del config["behaviors"]["Hallway"]["network_settings"]["memory"]
    (tmp_path / "forgetful.yaml").write_text(yaml.safe_dump(config))
    run = learn(tmp_path / "forgetful.yaml", "Hallway", 1, tmp_path)
    assert mean_return_at_the_end(run, "Hallway") <= 0.1


def test_sorter_is_solved(tmp_path):
    run = learn("Sorter.yaml", "Sorter", 1, tmp_path)
    assert mean_return_at_the_end(run, "Sorter") >= 0.8


def test_sorter_is_not_solved_without_attention(tmp_path):
    run = learn("Sorter.yaml", "module:mlagents_envs.builtin.sorter:FlatSorterEnv", 1, tmp_path)
    assert mean_return_at_the_end(run, "Sorter") <= 0.3
