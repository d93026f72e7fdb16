"""The environment's end over real sockets: what a trainer receives is what the environment holds."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from mlagents_envs.base_env import (
    ActionSpec,
    ActionTuple,
    BaseEnv,
    BehaviorSpec,
    DecisionSteps,
    DimensionProperty,
    ObservationSpec,
    ObservationType,
    TerminalSteps,
    vector_observation,
)
from mlagents_envs.builtin.basic import BasicEnv
from mlagents_envs.communicator_objects.command_pb2 import STEP
from mlagents_envs.communicator_objects.unity_message_pb2 import UnityMessageProto
from mlagents_envs.exception import UnityActionException, UnityCommunicationException, UnityTimeOutException
from mlagents_envs.server import EnvironmentServer, TrainerLink, serve
from mlagents_envs.side_channel.engine_configuration_channel import EngineConfigurationChannel
from mlagents_envs.side_channel.environment_parameters_channel import EnvironmentParametersChannel
from mlagents_envs.side_channel.side_channel_manager import SideChannelManager
from mlagents_envs.side_channel.stats_side_channel import StatsAggregationMethod, StatsSideChannel
from mlagents_envs.vector_env import VectorEnv


@pytest.fixture
def served(trainer):
    """Serves an environment to the trainer from a thread; what is returned tells how it ended."""
    with ThreadPoolExecutor(1) as pool:

        def start(make_env, **options):
            link = TrainerLink(trainer.port, trainer.patience_s)
            return pool.submit(EnvironmentServer(make_env, link, **options).run)

        yield start
        trainer.close()


def assert_agents(agents, spec, steps, is_terminal):
    """Check agents on the wire against the columns that they were made from, bit for bit."""
    assert [agent.id for agent in agents] == steps.agent_id.tolist()
    assert [agent.reward for agent in agents] == steps.reward.tolist()
    assert [agent.group_id for agent in agents] == steps.group_id.tolist()
    assert [agent.group_reward for agent in agents] == steps.group_reward.tolist()
    assert all(agent.done is is_terminal for agent in agents)
    for i, agent in enumerate(agents):
        if is_terminal:
            assert agent.max_step_reached == steps.interrupted[i]
        else:
            masks = (
                [] if steps.action_mask is None else np.concatenate([mask[i] for mask in steps.action_mask]).tolist()
            )
            assert list(agent.action_mask) == masks
        for values, seen, meant in zip(steps.obs, agent.observations, spec.observation_specs, strict=True):
            assert tuple(seen.shape) == meant.shape
            assert tuple(seen.dimension_properties) == meant.dimension_property
            assert (seen.observation_type, seen.name) == (meant.observation_type.value, meant.name)
            sent = np.array(seen.float_data.data, dtype=np.float32)
            np.testing.assert_array_equal(sent, values[i].ravel())


def assert_shows(message, env):
    """Check that a message shows an environment's state, agents that ended first."""
    agent_infos = message.unity_output.rl_output.agentInfos
    shown = set()
    for name, spec in env.behavior_specs.items():
        decisions, terminals = env.get_steps(name)
        if len(decisions) + len(terminals):
            shown.add(name)
            agents = agent_infos[name].value
            assert_agents(agents[: len(terminals)], spec, terminals, is_terminal=True)
            assert_agents(agents[len(terminals) :], spec, decisions, is_terminal=False)
    assert set(agent_infos) == shown


class ZooEnv(BaseEnv):
    """Random agents of two behaviours, with images, masks and groups, that show the actions they were given.

    "Late?team=1" has no agents before the third step, nor in every second one after it.
    """

    def __init__(self, seed=0, num_areas=1, side_channels=None):
        self._rng = np.random.default_rng(seed)
        image = ObservationSpec((3, 6, 4), (DimensionProperty.NONE,) * 3, ObservationType.DEFAULT, "camera")
        goal = ObservationSpec((2,), (DimensionProperty.NONE,), ObservationType.GOAL_SIGNAL, "goal")
        self._specs = {
            "Zoo?team=0": BehaviorSpec([image, vector_observation(3, "acted")], ActionSpec.create_hybrid(1, (3, 2))),
            "Late?team=1": BehaviorSpec([goal, vector_observation(2, "acted")], ActionSpec.create_continuous(2)),
        }
        self._age = 0
        self.is_closed = False

    @property
    def behavior_specs(self):
        return self._specs

    def reset(self):
        self._age = 0
        self._advance()

    def step(self):
        self._age += 1
        self._advance()

    def _advance(self):
        self._steps = {name: self._draw(name) for name in self._specs}
        self._actions = {
            name: self._specs[name].action_spec.empty_action(len(decisions))
            for name, (decisions, _) in self._steps.items()
        }

    def _draw(self, name):
        rng, spec = self._rng, self._specs[name]
        n_decisions, n_terminals = rng.integers(0, 5), rng.integers(0, 3)
        if name.startswith("Late") and (self._age < 3 or self._age % 2):
            n_decisions = n_terminals = 0
        acted = self._acted(name) if self._age else np.zeros((0, 3 if name.startswith("Zoo") else 2))

        def columns(n):
            last = np.zeros((n, acted.shape[1]), dtype=np.float32)
            last[: len(acted)] = acted[:n]
            return {
                "obs": [rng.random((n, *spec.observation_specs[0].shape), dtype=np.float32), last],
                "reward": rng.normal(size=n).astype(np.float32),
                "agent_id": rng.choice(100_000, n, replace=False).astype(np.int32),
                "group_id": rng.integers(0, 3, n, dtype=np.int32),
                "group_reward": rng.choice(np.array([0, 0.5, -1], dtype=np.float32), n),
            }

        sizes = spec.action_spec.discrete_branches
        masks = [rng.random((n_decisions, size)) < 0.5 for size in sizes] if sizes and self._age % 3 else None
        return (
            DecisionSteps(**columns(n_decisions), action_mask=masks),
            TerminalSteps(**columns(n_terminals), interrupted=rng.random(n_terminals) < 0.5),
        )

    def _acted(self, name):
        actions = self._actions[name]
        return np.concatenate([actions.continuous, actions.discrete.astype(np.float32)], axis=1)

    def get_steps(self, behavior_name):
        return self._steps[behavior_name]

    def set_actions(self, behavior_name, action):
        decisions, _ = self._steps[behavior_name]
        self._specs[behavior_name].action_spec.check(action, len(decisions), behavior_name)
        self._actions[behavior_name] = action

    def set_action_for_agent(self, behavior_name, agent_id, action):
        raise NotImplementedError

    def close(self):
        self.is_closed = True


def make_ball(**arguments):
    ball3d = pytest.importorskip("mlagents_envs.builtin.ball3d")
    return ball3d.Ball3DEnv(**arguments)


@pytest.mark.parametrize("make_env", [ZooEnv, BasicEnv, make_ball])
def test_the_trainer_sees_what_the_environment_holds_bit_for_bit(trainer, served, make_env):
    local = make_env(seed=11, num_areas=2, side_channels=[])
    ended = served(make_env)
    trainer.begin(seed=11, num_areas=2)
    local.reset()
    message = trainer.reset()
    assert_shows(message, local)
    np.random.seed(5)
    introduced = set()
    for age in range(60):
        for brain in message.unity_output.rl_initialization_output.brain_parameters:
            assert brain.brain_name not in introduced
            introduced.add(brain.brain_name)
            spec = local.behavior_specs[brain.brain_name].action_spec
            assert brain.action_spec.num_continuous_actions == spec.continuous_size
            assert brain.action_spec.num_discrete_actions == spec.discrete_size
            assert tuple(brain.action_spec.discrete_branch_sizes) == spec.discrete_branches
        assert introduced >= set(message.unity_output.rl_output.agentInfos)
        if age == 40:
            local.reset()
            message = trainer.reset()
        else:
            actions = {
                name: spec.action_spec.random_action(len(local.get_steps(name)[0]))
                for name, spec in local.behavior_specs.items()
            }
            for name, action in actions.items():
                local.set_actions(name, action)
            local.step()
            message = trainer.step({name: action for name, action in actions.items() if len(action.continuous)})
        assert_shows(message, local)
    assert introduced == set(local.behavior_specs)
    trainer.end()
    assert ended.result(trainer.patience_s) is None


def test_order_of_the_exchanges(trainer, served):
    ended = served(BasicEnv, name="Basic")
    hello, ready = trainer.begin()
    introduction = hello.unity_output.rl_initialization_output
    assert (hello.header.status, introduction.name, introduction.communication_version) == (200, "Basic", "1.5.0")
    assert len(introduction.capabilities.ListFields()) == 7
    assert ready.header.status == 200
    assert not ready.unity_output.rl_output.agentInfos
    first, second = trainer.reset(), trainer.step()
    (brain,) = first.unity_output.rl_initialization_output.brain_parameters
    assert (brain.brain_name, brain.is_training) == ("Basic?team=0", True)
    assert not second.unity_output.HasField("rl_initialization_output")
    goodbye = UnityMessageProto()
    goodbye.header.status = 400
    trainer.part_with(goodbye)
    assert ended.result(trainer.patience_s) is None


class TeamlessEnv(BasicEnv):
    """Calls its behaviour "Basic"."""

    @property
    def behavior_specs(self):
        return {"Basic": super().behavior_specs["Basic?team=0"]}

    def get_steps(self, behavior_name):
        return super().get_steps({"Basic": "Basic?team=0"}[behavior_name])

    def set_actions(self, behavior_name, action):
        super().set_actions({"Basic": "Basic?team=0"}[behavior_name], action)


def test_a_name_without_a_team_goes_by_team_0_on_the_wire(trainer, served):
    served(TeamlessEnv)
    trainer.begin(num_areas=2)
    assert set(trainer.reset().unity_output.rl_output.agentInfos) == {"Basic?team=0"}
    left_and_right = ActionTuple(discrete=np.array([[1], [2]]))
    message = trainer.step({"Basic?team=0": left_and_right, "Stranger?team=0": left_and_right})
    agents = message.unity_output.rl_output.agentInfos["Basic?team=0"].value
    assert [list(agent.observations[0].float_data.data).index(1) for agent in agents] == [9, 11]
    trainer.end()


class TalkativeEnv(VectorEnv):
    """Says on side channels what it hears, and shows the parameter "mass"."""

    def __init__(self, seed=0, num_areas=1, side_channels=None):
        spec = BehaviorSpec([vector_observation(1, "mass")], ActionSpec.create_continuous(1))
        super().__init__("Talker", spec, num_areas, seed=seed, side_channels=side_channels)

    def reset_agents(self, indices):
        return [np.zeros((len(indices), 1))]

    def step_agents(self, actions):
        mass = self.parameters.get_with_default("mass", 1.0)
        self.side_channels.add_stat("weighed", mass, StatsAggregationMethod.MOST_RECENT)
        never = np.zeros(self.n_agents, dtype=bool)
        return [np.full((self.n_agents, 1), mass)], np.zeros(self.n_agents), never, never


def test_side_channels_in_both_directions(trainer, served):
    parameters, engine, stats = EnvironmentParametersChannel(), EngineConfigurationChannel(), StatsSideChannel()
    channels = SideChannelManager([parameters, engine, stats])
    served(TalkativeEnv)
    trainer.begin()
    parameters.set_float_parameter("mass", 2.5)
    engine.set_configuration_parameters(time_scale=20.0)
    trainer.reset(bytes(channels.generate_side_channel_messages()))
    message = trainer.step()
    assert list(
        message.unity_output.rl_output.agentInfos["Talker?team=0"].value[0].observations[0].float_data.data
    ) == [2.5]
    parameters.set_float_parameter("mass", 4.0)
    for _ in range(2):
        message = trainer.step(side_channel=bytes(channels.generate_side_channel_messages()))
        channels.process_side_channel_message(message.unity_output.rl_output.side_channel)
    weighed = [value for value, _ in stats.get_and_reset_stats()["weighed"]]
    assert weighed == [2.5, 4.0], "a statistic leaves with the step after the one that counted it"
    trainer.end()


def test_num_areas_of_the_server_beats_the_trainers(trainer, served):
    served(BasicEnv, num_areas=5)
    trainer.begin(num_areas=2)
    assert len(trainer.reset().unity_output.rl_output.agentInfos["Basic?team=0"].value) == 5
    trainer.end()


def test_a_trainer_of_another_major_version_is_refused(trainer, served):
    ended = served(BasicEnv)
    hello, answer = trainer.receive(), trainer.message()
    answer.unity_input.rl_initialization_input.communication_version = "2.1.0"
    trainer.part_with(answer)
    with pytest.raises(UnityCommunicationException, match=r"version 2\.1\.0 .* version 1\.5\.0"):
        ended.result(trainer.patience_s)
    assert hello.header.status == 200


@pytest.mark.parametrize(
    ("answer", "error", "message"),
    [
        (b"\xff\xff", UnityCommunicationException, "2 bytes is no message"),
        (
            {"Basic?team=0": ActionTuple(discrete=np.zeros((3, 1)))},
            UnityActionException,
            r"Basic\?team=0 needs continuous actions of shape \(1, 0\).*received \(3, 0\)",
        ),
    ],
)
def test_nonsense_from_the_trainer_is_an_error(trainer, served, answer, error, message):
    ended = served(BasicEnv)
    trainer.begin()
    trainer.reset()
    trainer.part_with(answer if isinstance(answer, bytes) else trainer.order(STEP, answer))
    with pytest.raises(error, match=message):
        ended.result(trainer.patience_s)


def test_being_refused_is_an_error(trainer, served):
    ended = served(BasicEnv)
    trainer.receive()
    trainer.refuse()
    with pytest.raises(UnityCommunicationException, match="refuses this environment: no more of this"):
        ended.result(trainer.patience_s)


def test_serving_an_environment_that_exists(trainer):
    env = ZooEnv(seed=3)
    with ThreadPoolExecutor(1) as pool:
        ended = pool.submit(serve, env, trainer.port)
        trainer.begin()
        assert_shows(trainer.reset(), env)
        trainer.end()
        ended.result(trainer.patience_s)
    assert env.is_closed


def test_a_trainer_that_never_comes(trainer):
    unused = trainer.port
    trainer.close()
    with pytest.raises(UnityTimeOutException, match=f"port {unused} within 0.1 s"):
        serve(BasicEnv, unused, connect_timeout_s=0.1)
