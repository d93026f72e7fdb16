"""What the tests of `threaded: true` share: a small run whose updates are made in a thread of their own."""

import threading

import numpy as np
import pytest
import torch

from mlagents.plugins.trainer_type import register_trainer_plugins
from mlagents.trainers.ppo.trainer import PPOSettings, TorchPPOOptimizer
from mlagents.trainers.settings import NetworkSettings, SerializationSettings, TrainerSettings
from mlagents.trainers.simple_env_manager import SimpleEnvManager
from mlagents.trainers.stop_request import StopRequest
from mlagents.trainers.terminal import ProgressDisplay
from mlagents.trainers.trainer import TrainerFactory, update_thread
from mlagents.trainers.trainer_controller import TrainerController
from mlagents_envs.base_env import ActionSpec, BehaviorMapping, BehaviorSpec, vector_observation
from mlagents_envs.side_channel.environment_parameters_channel import EnvironmentParametersChannel
from mlagents_envs.vector_env import VectorEnv

N_AGENTS, EPISODE_LENGTH, HORIZON, BUFFER_SIZE = 3, 5, 4, 32
TIMEOUT_S = 60
"""For what comes at once, unless the test fails."""


class Cart(VectorEnv):
    """Each agent sees the step of its episode; every step pays 1.

    :ivar on_step: called in every step with how many there were before.
    """

    def __init__(self):
        super().__init__("Cart", BehaviorSpec([vector_observation(1, "step")], ActionSpec(1, ())), N_AGENTS)
        self.age = np.zeros(N_AGENTS)
        self.n_steps = 0
        self.on_step = lambda n_steps: None

    def reset_agents(self, indices):
        self.age[indices] = 0
        return [self.age[indices, None]]

    def step_agents(self, actions):
        self.on_step(self.n_steps)
        self.n_steps += 1
        self.age += 1
        ended = self.age >= EPISODE_LENGTH
        return [self.age[:, None]], np.ones(N_AGENTS), ended, np.zeros(N_AGENTS, dtype=bool)


class TwoTeams(Cart):
    """Carts, of whom a second team appears at the tenth step."""

    @property
    def behavior_specs(self):
        specs = super().behavior_specs
        ids = ["Cart?team=0", "Cart?team=1"] if self.n_steps >= 10 else ["Cart?team=0"]
        return BehaviorMapping(dict.fromkeys(ids, specs["Cart?team=0"]))

    def get_steps(self, behavior_name):
        return super().get_steps("Cart?team=0")

    def set_actions(self, behavior_name, action):
        super().set_actions("Cart?team=0", action)


class Session:
    """An environment, its manager and the controller of a run."""

    def __init__(self, folder, threaded=True, two_teams=False, **settings):
        behavior = TrainerSettings(
            hyperparameters=PPOSettings(batch_size=8, buffer_size=BUFFER_SIZE, num_epoch=1),
            network_settings=NetworkSettings(hidden_units=4, num_layers=1, normalize=True),
            threaded=threaded,
            **{"max_steps": 200, "time_horizon": HORIZON, **settings},
        )
        config = TrainerSettings.DefaultTrainerDict({"Cart": behavior})
        self.env = TwoTeams() if two_teams else Cart()
        self.manager = SimpleEnvManager(self.env, EnvironmentParametersChannel())
        self.stop = StopRequest()
        factory = TrainerFactory(config, str(folder), True, False, 1, {})
        self.controller = TrainerController(factory, {}, True, self.stop, ProgressDisplay())
        self.controller.reset(self.manager)
        self.trainer = self.controller.trainers["Cart"]

    @property
    def acting(self):
        return self.manager.policies["Cart?team=0"]

    @property
    def update_thread(self):
        return self.controller.update_threads["Cart"]

    def learn(self):
        """Train until the end, or an error, after which there is no thread any more."""
        try:
            self.controller.start_learning(self.manager)
        finally:
            assert not any(thread.name.startswith("updates of") for thread in threading.enumerate())

    def advance(self, n_steps=1):
        for _ in range(n_steps):
            self.controller.advance(self.manager)


@pytest.fixture
def make_session(tmp_path, monkeypatch):
    """Return a function that makes a session; its updates always run beside collection."""
    monkeypatch.setattr(SerializationSettings, "convert_to_onnx", False)
    monkeypatch.setattr(update_thread, "MIN_WAITING_SHARE", -1.0)
    register_trainer_plugins()
    torch.manual_seed(0)
    np.random.seed(0)
    sessions = []

    def make(*args, **kwargs):
        sessions.append(Session(tmp_path / str(len(sessions)), *args, **kwargs))
        return sessions[-1]

    yield make
    for session in sessions:
        for thread in session.controller.update_threads.values():
            thread.close()


class Gate:
    """Holds up every update until it is opened."""

    def __init__(self, monkeypatch):
        self.reached, self.opened = threading.Event(), threading.Event()
        update = TorchPPOOptimizer.update

        def held_up(optimizer, batch, n_sequences):
            self.reached.set()
            assert self.opened.wait(TIMEOUT_S)
            return update(optimizer, batch, n_sequences)

        monkeypatch.setattr(TorchPPOOptimizer, "update", held_up)


@pytest.fixture
def gate(monkeypatch):
    gate = Gate(monkeypatch)
    yield gate
    gate.opened.set()
