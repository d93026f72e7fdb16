"""DQN learns: its shipped configuration, through the command, and the model that comes of it."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest

import mlagents_trainer_plugin
from mlagents_envs.base_env import ActionTuple
from mlagents_envs.builtin.basic import BasicEnv

CONFIG = Path(mlagents_trainer_plugin.__file__).parent / "dqn" / "dqn_basic.yaml"

pytestmark = pytest.mark.learning


def return_of_an_episode(model_path):
    """Return what an exported model alone reaches in Basic, where nothing is random."""
    model = onnxruntime.InferenceSession(str(model_path))
    env, total = BasicEnv(), 0.0
    env.reset()
    for _ in range(50):
        decisions, _ = env.get_steps(env.behavior_name)
        inputs = {"obs_0": decisions.obs[0], "action_masks": np.ones((1, 3), dtype=np.float32)}
        (choices,) = model.run(["discrete_actions"], inputs)
        env.set_actions(env.behavior_name, ActionTuple(discrete=choices.astype(np.int32)))
        env.step()
        decisions, ended = env.get_steps(env.behavior_name)
        if len(ended):
            return total + ended.reward[0]
        total += decisions.reward[0]
    return total


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_basic_is_solved_and_its_model_plays(train, seed):
    run, mean_return = train(CONFIG, "Basic", seed)
    assert mean_return >= 0.90
    assert return_of_an_episode(run / "Basic.onnx") == pytest.approx(0.93)
