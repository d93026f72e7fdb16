"""What the tests of the contract with plug-ins share: a behaviour, trajectories of it, whole plug-ins."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from mlagents.plugins import ML_AGENTS_TRAINER_TYPE
from mlagents.trainers.behavior_id_utils import BehaviorIdentifiers
from mlagents.trainers.ppo.trainer import PPOSettings, PPOTrainer
from mlagents.trainers.settings import NetworkSettings, TrainerSettings
from mlagents.trainers.trajectory import AgentExperience, LogProbsTuple, Trajectory
from mlagents_envs.base_env import ActionSpec, ActionTuple, BehaviorSpec, vector_observation

BEHAVIOR_ID = "Some?team=0"


@pytest.fixture
def spec():
    """Return a behaviour that sees two numbers, and three, and acts with one number and two choices, of 3 and of 2."""
    return BehaviorSpec([vector_observation(2, "two"), vector_observation(3, "three")], ActionSpec(1, (3, 2)))


@pytest.fixture
def identifiers():
    """Return the names of the behaviour."""
    return BehaviorIdentifiers.from_name_behavior_id(BEHAVIOR_ID)


@pytest.fixture
def make_trajectory(spec):
    """Return a function that makes a trajectory of random steps, step by step, as plug-ins' tests do."""
    rng = np.random.default_rng(7)

    def step(action_spec, is_last, interrupted, memory_size):
        continuous, branches = action_spec.continuous_size, action_spec.discrete_branches
        done = is_last is not None
        return AgentExperience(
            obs=[rng.normal(size=observation.shape).astype(np.float32) for observation in spec.observation_specs],
            reward=float(rng.normal()),
            done=done,
            action=ActionTuple(
                rng.normal(size=(1, continuous)).astype(np.float32),
                rng.integers(0, branches or (1,), (1, len(branches))),
            ),
            action_probs=LogProbsTuple(
                rng.normal(-1, 0.1, (1, continuous)).astype(np.float32),
                rng.normal(-1, 0.1, (1, len(branches))).astype(np.float32),
            ),
            action_mask=[np.zeros(size, dtype=bool) for size in branches] or None,
            prev_action=np.zeros(len(branches), dtype=np.int32),
            interrupted=done and interrupted,
            memory=rng.normal(size=memory_size).astype(np.float32) if memory_size else None,
            group_status=[],
            group_reward=0.0,
        )

    def make(n_steps=5, done=False, interrupted=False, agent_id="agent_0-1", action_spec=None, memory_size=0):
        ends = [None] * (n_steps - 1) + [True if done or interrupted else None]
        steps = [step(action_spec or spec.action_spec, end, interrupted, memory_size) for end in ends]
        next_obs = [rng.normal(size=observation.shape).astype(np.float32) for observation in spec.observation_specs]
        return Trajectory(steps=steps, next_obs=next_obs, next_group_obs=[], agent_id=agent_id, behavior_id=BEHAVIOR_ID)

    return make


@pytest.fixture
def make_trainer(tmp_path, spec, identifiers):
    """Return a function that makes a trainer with its policy: (trainer class, hyperparameters, network settings)."""

    def make(trainer_class=PPOTrainer, hyperparameters=None, training=True, load=False, **network):
        torch.manual_seed(0)
        np.random.seed(0)
        settings = TrainerSettings(
            hyperparameters=hyperparameters or PPOSettings(batch_size=4, buffer_size=8),
            network_settings=NetworkSettings(**{"hidden_units": 5, "num_layers": 1, **network}),
        )
        trainer = trainer_class("Some", 10, settings, training, load, 0, str(tmp_path))
        trainer.add_policy(identifiers, trainer.create_policy(identifiers, spec))
        return trainer

    return make


@pytest.fixture
def install_old_plugin(install_plugin):
    """Return a function that installs one of the plug-ins in the folder beside this file."""

    def install(name, **where):
        source = Path(__file__).parent / "plugins" / f"{name}.py"
        return install_plugin(name, source.read_text(encoding="utf-8"), **{"group": ML_AGENTS_TRAINER_TYPE, **where})

    return install


@pytest.fixture
def train(install_old_plugin, run_learn, basic_config, tmp_path):
    """Return a function that trains a plug-in of the folder beside this file on Basic.

    It returns what came of it: `folder` of the run, `out`, and the `state` in the checkpoint.
    """

    def train(name, *flags, installed=False, **behavior):
        if not installed:
            install_old_plugin(name)
        config = basic_config(trainer_type=name, **behavior)
        code, out, err = run_learn(config, "--env", "Basic", "--run-id", "old", "--seed", 1, *flags)
        assert code == 0, err
        folder = tmp_path / "results" / "old"
        state = torch.load(folder / "Basic" / "checkpoint.pt", weights_only=True)
        return SimpleNamespace(folder=folder, out=out, err=err, state=state)

    return train
