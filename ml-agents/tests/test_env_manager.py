"""`SimpleEnvManager` and `TrainerController` together: behaviours, teams, statistics and parameters."""

import numpy as np
import pytest
import torch

from mlagents.plugins.trainer_type import register_trainer_plugins
from mlagents.trainers.exception import TrainerConfigError
from mlagents.trainers.ppo.trainer import PPOSettings
from mlagents.trainers.settings import (
    ConstantSettings,
    NetworkSettings,
    SerializationSettings,
    TrainerSettings,
    UniformSettings,
)
from mlagents.trainers.simple_env_manager import SimpleEnvManager
from mlagents.trainers.stats import StatsReporter
from mlagents.trainers.stop_request import StopRequest
from mlagents.trainers.terminal import ProgressDisplay
from mlagents.trainers.trainer import TrainerFactory
from mlagents.trainers.trainer_controller import TrainerController
from mlagents_envs.base_env import ActionSpec, BaseEnv, BehaviorMapping, BehaviorSpec, vector_observation
from mlagents_envs.side_channel.environment_parameters_channel import EnvironmentParametersChannel
from mlagents_envs.side_channel.environment_side import EnvironmentSideChannels
from mlagents_envs.side_channel.stats_side_channel import StatsAggregationMethod, StatsSideChannel
from mlagents_envs.vector_env import VectorEnv

EPISODE_LENGTH = 5
N_AGENTS = 3


class Cart(VectorEnv):
    """Each agent sees the step of its episode, and earns its action plus ten times that step."""

    def __init__(self):
        super().__init__("Cart", BehaviorSpec([vector_observation(1, "step")], ActionSpec(1, ())), N_AGENTS)
        self.age = np.zeros(N_AGENTS)

    def reset_agents(self, indices):
        self.age[indices] = 0
        return [self.age[indices, None]]

    def step_agents(self, actions):
        reward = actions.continuous[:, 0] + 10 * self.age
        self.age += 1
        ended = self.age >= EPISODE_LENGTH
        return [self.age[:, None]], reward, ended, np.zeros(N_AGENTS, dtype=bool)


class Park(BaseEnv):
    """Carts under several behaviours, each of which appears after so many steps.

    :param first_steps: behaviour id to the step at which it appears.
    """

    def __init__(self, first_steps, side_channels=()):
        self.first_steps = first_steps
        self.side_channels = EnvironmentSideChannels(side_channels)
        self.carts = {}
        self.n_steps = 0
        self.parameters_at_reset = []
        self.closed = False

    def _let_appear(self):
        for behavior_id, first_step in self.first_steps.items():
            if behavior_id not in self.carts and first_step <= self.n_steps:
                self.carts[behavior_id] = Cart()
                self.carts[behavior_id].reset()

    def reset(self):
        self.side_channels.exchange()
        given = self.side_channels.parameters
        self.parameters_at_reset.append({name: given.get_with_default(name, np.nan) for name in list(given.keys())})
        self.n_steps = 0
        for cart in self.carts.values():
            cart.reset()
        self._let_appear()

    def step(self):
        self.n_steps += 1
        for cart in self.carts.values():
            cart.step()
        self._let_appear()
        self.side_channels.add_stat("Score", float(self.n_steps), StatsAggregationMethod.AVERAGE)
        self.side_channels.add_stat("Level", float(self.n_steps), StatsAggregationMethod.MOST_RECENT)
        self.side_channels.add_stat("Goals", 2.0, StatsAggregationMethod.SUM)
        self.side_channels.exchange()

    @property
    def behavior_specs(self):
        return BehaviorMapping({name: cart.behavior_specs[cart.behavior_name] for name, cart in self.carts.items()})

    def get_steps(self, behavior_name):
        return self.carts[behavior_name].get_steps("Cart?team=0")

    def set_actions(self, behavior_name, action):
        self.carts[behavior_name].set_actions("Cart?team=0", action)

    def set_action_for_agent(self, behavior_name, agent_id, action):
        self.carts[behavior_name].set_action_for_agent("Cart?team=0", agent_id, action)

    def close(self):
        self.closed = True


class Session:
    """An environment, its manager and the controller of a run."""

    def __init__(self, tmp_path, first_steps, configured=None, parameters=None, max_steps=10_000):
        names = configured or list(dict.fromkeys(name.partition("?")[0] for name in first_steps))
        config = TrainerSettings.DefaultTrainerDict(
            {
                name: TrainerSettings(
                    hyperparameters=PPOSettings(batch_size=8, buffer_size=32),
                    network_settings=NetworkSettings(hidden_units=4, num_layers=1),
                    max_steps=max_steps,
                    time_horizon=4,
                )
                for name in names
            }
        )
        params, stats = EnvironmentParametersChannel(), StatsSideChannel()
        self.env = Park(first_steps, [params, stats])
        self.manager = SimpleEnvManager(self.env, params, stats)
        factory = TrainerFactory(config, str(tmp_path), True, False, 1, {})
        self.controller = TrainerController(factory, parameters or {}, True, StopRequest(), ProgressDisplay())

    def run(self, n_steps):
        self.controller.reset(self.manager)
        for _ in range(n_steps):
            self.controller.advance(self.manager)
        return self.controller.trainers


@pytest.fixture
def make_session(tmp_path, monkeypatch):
    monkeypatch.setattr(SerializationSettings, "convert_to_onnx", False)  # its tests are elsewhere, and take a second
    register_trainer_plugins()
    torch.manual_seed(0)
    np.random.seed(0)
    return lambda *args, **kwargs: Session(tmp_path, *args, **kwargs)


def published(n_steps):
    """Return how many experiences an agent has handed over: of the episode under way, only whole trajectories of 4."""
    episodes, rest = divmod(n_steps, EPISODE_LENGTH)
    return episodes * EPISODE_LENGTH + rest // 4 * 4


def test_what_agents_do_earns_what_they_are_recorded_with(make_session):
    """The action of a step, as the environment took it, stands beside that step's observation and reward."""
    session = make_session({"Cart?team=0": 0, "Wagon?team=0": 0})
    session.controller.reset(session.manager)
    queues = {name: manager.trajectory_queue for name, manager in session.manager.agent_managers.items()}
    for _ in range(EPISODE_LENGTH):
        session.manager.process_steps(session.manager.get_steps())
    for queue in queues.values():
        # Horizon 4, episodes of 5.
        trajectories = [queue.get_nowait() for _ in range(queue.qsize())]
        assert [(len(t), t.done_reached) for t in trajectories] == [(4, False)] * 3 + [(1, True)] * 3
        assert {t.agent_id for t in trajectories} == {"agent_0-0", "agent_0-1", "agent_0-2"}
        for t in trajectories:
            taken = np.clip(t.columns.continuous[:, 0], -3, 3) / 3
            np.testing.assert_allclose(t.columns.reward, taken + 10 * t.columns.obs[0][:, 0], rtol=1e-5)
            assert t.next_obs[0] == t.columns.obs[0][-1] + 1


def test_a_behavior_that_appears_later_is_trained_from_then_on(make_session, capsys):
    session = make_session({"Cart?team=0": 0, "Late?team=0": 7})
    trainers = session.run(7)
    assert "Configured, but not in the environment so far: Late. In it: Cart." in capsys.readouterr().out
    assert trainers.keys() == {"Cart", "Late"}
    assert trainers["Late"].get_step == 0
    for _ in range(33):
        session.controller.advance(session.manager)
    assert trainers["Cart"].get_step == N_AGENTS * published(40)
    assert trainers["Late"].get_step == N_AGENTS * published(33)
    assert session.manager.training_behaviors.keys() == {"Cart?team=0", "Late?team=0"}
    policies = [session.manager.policies[name] for name in ("Cart?team=0", "Late?team=0")]
    assert policies[0] is not policies[1]
    assert trainers["Late"].optimizer.optimizer.state  # it has updated its policy


def test_a_run_waits_for_its_first_behavior(make_session):
    session = make_session({"Cart?team=0": 3}, max_steps=30)
    session.controller.reset(session.manager)
    assert session.controller.trainers == {}
    session.controller.start_learning(session.manager)
    assert session.controller.trainers["Cart"].get_step >= 30


def test_teams_share_trainer_and_policy(make_session):
    session = make_session({"Cart?team=0": 0, "Cart?team=1": 0, "Cart?team=2": 10})
    trainers = session.run(40)
    assert trainers.keys() == {"Cart"}
    trainer = trainers["Cart"]
    ids = [f"Cart?team={team}" for team in range(3)]
    for policies in (session.manager.policies, trainer.policies):
        assert list(policies) == ids
        assert all(policy is trainer.policy for policy in policies.values())
    assert len({id(manager) for manager in session.manager.agent_managers.values()}) == 3
    assert trainer.get_step == N_AGENTS * (2 * published(40) + published(30))
    assert trainer.policy.get_current_step() == trainer.get_step
    modules = trainer.model_saver.modules
    assert modules["Policy"] is trainer.policy.actor
    assert modules["Optimizer:critic"] is trainer.optimizer.critic


def test_agents_of_different_teams_are_not_mixed_up(make_session):
    """Their ids are the same; the returns of their episodes are their own."""
    session = make_session({"Cart?team=0": 0, "Cart?team=1": 2})
    trainer = session.run(22)["Cart"]
    # An episode earns 10 * (0 + 1 + 2 + 3 + 4), and five actions within [-1, 1].
    returns = trainer.stats_reporter.get_stats_summaries("Environment/Cumulative Reward").values
    assert len(returns) == N_AGENTS * (22 // 5 + 20 // 5)
    assert np.all(np.abs(returns - 100.0) <= 5.0)
    lengths = trainer.stats_reporter.get_stats_summaries("Environment/Episode Length").values
    assert set(lengths) == {5}


def test_statistics_of_the_environment_reach_every_behavior_once(make_session):
    """Also one that has several teams: a sum would otherwise be that much too large."""
    session = make_session({"Cart?team=0": 0, "Cart?team=1": 0, "Wagon?team=0": 0})
    session.run(4)
    for name in ("Cart", "Wagon"):
        reporter = StatsReporter(name)
        score, level, goals = (reporter.get_stats_summaries(key) for key in ("Score", "Level", "Goals"))
        assert score.values.tolist() == [1.0, 2.0, 3.0, 4.0]
        assert (score.aggregation_method, score.aggregated_value) == (StatsAggregationMethod.AVERAGE, 2.5)
        assert (level.aggregation_method, level.aggregated_value) == (StatsAggregationMethod.MOST_RECENT, 4.0)
        assert (goals.aggregation_method, goals.aggregated_value) == (StatsAggregationMethod.SUM, 8.0)


def test_parameters_are_sent_before_the_reset(make_session):
    parameters = {"mass": ConstantSettings(value=2.5), "scale": UniformSettings(min_value=3.0, max_value=4.0, seed=1)}
    session = make_session({"Cart?team=0": 0}, parameters=parameters)
    session.controller.reset(session.manager)
    (seen,) = session.env.parameters_at_reset
    assert seen["mass"] == 2.5
    assert 3.0 <= seen["scale"] <= 4.0
    session.manager.set_env_parameters({"mass": ConstantSettings(value=4.0)})
    session.manager.reset()
    assert session.env.parameters_at_reset[1]["mass"] == 4.0


def test_a_reset_drops_the_experience_under_way(make_session):
    session = make_session({"Cart?team=0": 0})
    session.run(3)
    assert session.manager.reset() == 1
    for _ in range(4):
        session.controller.advance(session.manager)
    trajectories = session.controller.trainers["Cart"].update_buffer
    # One trajectory of four steps per agent, all from after the reset.
    assert trajectories.num_experiences == N_AGENTS * 4


def test_a_behavior_that_is_not_configured_is_an_error_that_lists_what_there_is(make_session):
    session = make_session({"Cart?team=0": 0, "Wagon?team=0": 0}, configured=["Cart", "Wagn"])
    with pytest.raises(TrainerConfigError, match=r"Wagon.*The environment's behaviors: Cart, Wagon\."):
        session.controller.reset(session.manager)


def test_the_environment_is_closed_with_its_manager(make_session):
    session = make_session({"Cart?team=0": 0})
    session.run(1)
    assert not session.env.closed
    session.manager.close()
    assert session.env.closed
