"""`UnityEnvironment` on communicators that follow a script."""

import gc

import numpy as np
import pytest

import mlagents_envs
from mlagents_envs import timers
from mlagents_envs.base_env import (
    ActionSpec,
    ActionTuple,
    BehaviorSpec,
    DecisionSteps,
    TerminalSteps,
    vector_observation,
)
from mlagents_envs.communicator import Communicator
from mlagents_envs.communicator_objects import command_pb2
from mlagents_envs.environment import UnityEnvironment
from mlagents_envs.exception import (
    UnityActionException,
    UnityCommunicationException,
    UnityCommunicatorStoppedException,
    UnityEnvironmentException,
)
from mlagents_envs.mock_communicator import EPISODE_LENGTH, MockCommunicator
from mlagents_envs.wire.messages import write_goodbye
from mlagents_envs.wire.steps_encoder import StepsEncoder
from mlagents_envs.wire.trainer_messages import read_trainer_message, write_environment_message, write_handshake

MOCK = "RealFakeBrain"


class Recorder(MockCommunicator):
    """Keeps what the trainer says."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.received = []

    def send_message(self, message):
        self.received.append(read_trainer_message(message))
        super().send_message(message)


class Script(Communicator):
    """Says what it was given, one message after the other, then nothing any more."""

    def __init__(self, *messages):
        super().__init__()
        self.messages = list(messages)

    def receive_message(self, poll_callback=None):
        return self.messages.pop(0) if self.messages else None

    def send_message(self, message):
        pass

    def await_message(self, patience_s, poll_callback=None):
        return True

    def close(self):
        self.messages.clear()


@pytest.fixture
def attach(monkeypatch):
    """A function that makes an environment on a given communicator."""

    def make(communicator, **kwargs):
        monkeypatch.setattr(UnityEnvironment, "_get_communicator", staticmethod(lambda *args: communicator))
        return UnityEnvironment(**kwargs)

    return make


# The low-level API


def test_the_handshake_tells_seed_versions_capabilities_and_areas(attach):
    communicator = Recorder()
    env = attach(communicator, seed=-7, num_areas=3)
    told = communicator.received[0].initialization
    assert (told.seed, told.num_areas) == (-7, 3)
    assert (told.communication_version, told.package_version) == ("1.5.0", mlagents_envs.__version__)
    assert len(told.capabilities.ListFields()) == 7
    assert all(value for _, value in told.capabilities.ListFields())
    assert env.academy_capabilities.multiAgentGroups


@pytest.mark.parametrize("seed", [2**31, -(2**31) - 1])
def test_a_seed_beyond_32_bits_is_one_message(attach, seed):
    communicator = MockCommunicator()
    with pytest.raises(UnityEnvironmentException, match=rf"the seed \({seed}\)"):
        attach(communicator, seed=seed)
    assert communicator.has_been_closed


def test_only_the_first_worker_can_be_the_editor():
    with pytest.raises(UnityEnvironmentException, match="Worker 1 has no executable"):
        UnityEnvironment(worker_id=1)


@pytest.mark.parametrize("discrete", [False, True])
@pytest.mark.parametrize("images", [0, 2])
def test_specifications_come_with_the_first_reset(attach, discrete, images):
    communicator = Recorder(discrete_action=discrete, visual_inputs=images, vec_obs_size=4)
    env = attach(communicator)
    (name, spec), *others = env.behavior_specs.items()
    assert (name, others) == (MOCK, [])
    assert [o.shape for o in spec.observation_specs] == [(3, 4, 5)] * images + [(4,)]
    assert spec.action_spec == (ActionSpec(0, (2,)) if discrete else ActionSpec(2, ()))
    assert [message.command for message in communicator.received[1:]] == [command_pb2.RESET]


def test_steps_arrive_as_they_were_sent(attach):
    env = attach(MockCommunicator(visual_inputs=1, num_agents=2))
    env.reset()
    for step in range(EPISODE_LENGTH + 1):
        decisions, terminals = env.get_steps(MOCK)
        image, vector = decisions.obs
        assert image.shape == (2, 3, 4, 5)
        assert vector.tolist() == [[step] * 3, [step + 1] * 3]
        assert np.array_equal(image[:, 2, 3, 4], vector[:, 0])
        assert decisions.agent_id.tolist() == [0, 1]
        assert decisions.reward.tolist() == [float(step > 0)] * 2
        assert terminals.agent_id.tolist() == ([1] if step == EPISODE_LENGTH else [])
        env.step()
    env.reset()
    assert env.get_steps(MOCK)[0].obs[1].tolist() == [[0] * 3, [1] * 3]


def test_the_first_step_is_a_reset_and_the_next_one_is_not(attach):
    communicator = Recorder()
    env = attach(communicator)
    env.step()
    env.step()
    assert [message.command for message in communicator.received[1:]] == [command_pb2.RESET, command_pb2.STEP]


def test_actions_are_sent_once_and_are_zeros_otherwise(attach):
    communicator = Recorder(num_agents=2)
    env = attach(communicator)
    env.reset()
    values = np.array([[1, 2], [3, 4]], dtype=np.float32)
    env.set_actions(MOCK, ActionTuple(continuous=values))
    values[:] = 9  # no longer the environment's concern
    env.step()
    env.step()
    sent = [message.actions[MOCK].continuous.tolist() for message in communicator.received[2:]]
    assert sent == [[[1, 2], [3, 4]], [[0, 0], [0, 0]]]


def test_actions_of_single_agents_join_those_of_all(attach):
    communicator = Recorder(discrete_action=True)
    env = attach(communicator)
    env.reset()
    env.set_action_for_agent(MOCK, 2, ActionTuple(discrete=[[1]]))
    env.step()
    env.set_actions(MOCK, ActionTuple(discrete=[[1], [1], [1]]))
    env.set_action_for_agent(MOCK, 1, ActionTuple(discrete=[[0]]))
    env.step()
    sent = [message.actions[MOCK].discrete.tolist() for message in communicator.received[2:]]
    assert sent == [[[0], [0], [1]], [[1], [0], [1]]]


def test_actions_that_do_not_fit_are_refused(attach):
    env = attach(MockCommunicator(num_agents=2))
    env.reset()
    one = ActionTuple(continuous=np.zeros((1, 2)))
    with pytest.raises(UnityActionException, match=r"RealFakeBrain needs continuous actions of shape \(2, 2\)"):
        env.set_actions(MOCK, one)
    with pytest.raises(UnityActionException, match=r"shape \(1, 2\) .* received \(1, 3\)"):
        env.set_action_for_agent(MOCK, 0, ActionTuple(continuous=np.zeros((1, 3))))
    with pytest.raises(UnityActionException, match=r"no agent 2 that waits for an action: those that wait are 0, 1\."):
        env.set_action_for_agent(MOCK, 2, one)
    with pytest.raises(UnityActionException, match=r"no behavior RealFakeBrian: .*Did you mean 'RealFakeBrain'"):
        env.set_actions("RealFakeBrian", one)


def test_nothing_to_see_before_the_reset_and_after_the_close(attach):
    env = attach(MockCommunicator())
    with pytest.raises(UnityEnvironmentException, match=r"has not started: call reset\(\) first"):
        env.get_steps(MOCK)
    env.close()
    env.close()
    for method in (env.reset, env.step, lambda: env.get_steps(MOCK)):
        with pytest.raises(UnityEnvironmentException, match=r"Worker 0 \(the Unity Editor\) is closed"):
            method()


def test_an_environment_that_nobody_holds_is_closed(attach):
    communicator = MockCommunicator()
    attach(communicator).reset()
    gc.collect()
    assert communicator.has_been_closed


def test_an_exchange_is_timed_inside_the_step(attach):
    env = attach(MockCommunicator())
    env.reset()
    timers.reset_timers()
    env.step()
    tree = timers.get_timer_tree()
    assert tree["children"]["UnityEnvironment.step"]["children"]["communicator.exchange"]["count"] == 1


# Which agents act


SPEC = BehaviorSpec([vector_observation(1, "Sensor")], ActionSpec.create_continuous(1))


def _steps(kind, ids, **kwargs):
    n = len(ids)
    return kind(
        obs=[np.zeros((n, 1), dtype=np.float32)],
        reward=np.zeros(n, dtype=np.float32),
        agent_id=np.array(ids, dtype=np.int32),
        group_id=np.zeros(n, dtype=np.int32),
        group_reward=np.zeros(n, dtype=np.float32),
        **kwargs,
    )


def _infos(name, waiting, ended=()):
    decisions = _steps(DecisionSteps, waiting, action_mask=None)
    terminals = _steps(TerminalSteps, ended, interrupted=np.zeros(len(ended), dtype=bool))
    return StepsEncoder(name, SPEC).encode(decisions, terminals)


def _script(first, *others):
    """Return a communicator with the handshake, the first steps with the specification of `A`, then the others."""
    messages = [write_environment_message([first], {"A": SPEC}), *(write_environment_message([o]) for o in others)]
    return Script(write_handshake("Script"), write_environment_message(), *messages)


def test_agents_may_skip_steps_and_still_end(attach, capsys):
    env = attach(_script(_infos("A", [1, 2]), _infos("A", [2]), _infos("A", [2]), _infos("A", [3], [1, 2])))
    env.reset()
    ended = []
    for _ in range(3):
        env.step()
        ended.append(env.get_steps("A")[1].agent_id.tolist())
    assert ended == [[], [], [1, 2]]
    assert "WARNING" not in capsys.readouterr().out


@pytest.mark.parametrize("unknown", [9, 1, 3])
def test_only_an_episode_that_began_can_end(attach, capsys, unknown):
    """9 was never there, the episode of 1 has ended before, and 3 begins only in the same message."""
    env = attach(_script(_infos("A", [1, 2]), _infos("A", [2], [1]), _infos("A", [2, 3], [unknown, 2])))
    env.reset()
    env.step()
    assert env.get_steps("A")[1].agent_id.tolist() == [1]
    env.step()
    assert env.get_steps("A")[1].agent_id.tolist() == [2]
    assert f"Worker 0 (the Unity Editor): agent {unknown} of the behavior A ended" in capsys.readouterr().out


def test_a_reset_begins_all_episodes_anew(attach, capsys):
    env = attach(_script(_infos("A", [1]), _infos("A", [2], [1]), _infos("A", [3], [1, 2])))
    env.reset()
    env.reset()
    assert env.get_steps("A")[1].agent_id.tolist() == [1]
    env.step()
    assert env.get_steps("A")[1].agent_id.tolist() == [2]


def test_a_behavior_without_agents_in_a_message_has_no_steps_and_no_actions(attach):
    env = attach(_script(_infos("A", [1]), b"", _infos("A", [1])))
    env.reset()
    env.set_actions("A", ActionTuple(continuous=[[5.0]]))
    env.step()
    assert [len(steps) for steps in env.get_steps("A")] == [0, 0]
    env.set_actions("A", ActionTuple(continuous=np.zeros((0, 1))))
    env.step()
    assert env.get_steps("A")[0].agent_id.tolist() == [1]


# Faults of the conversation


def test_agents_of_a_behavior_that_was_never_specified(attach):
    env = attach(_script(_infos("A", [1]), _infos("B", [1])))
    env.reset()
    with pytest.raises(
        UnityCommunicationException, match=r"^Worker 0 \(the Unity Editor\): .* of the behavior B, whose"
    ):
        env.step()


def test_a_specification_may_come_before_the_first_agents(attach):
    early = write_environment_message([_infos("A", [1])], {"A": SPEC, "B": SPEC})
    late = write_environment_message([_infos("B", [1])])
    env = attach(Script(write_handshake("Script"), write_environment_message(), early, late))
    assert list(env.behavior_specs) == ["A"]
    env.step()
    assert list(env.behavior_specs) == ["A", "B"]


@pytest.mark.parametrize(
    ("messages", "kind", "message"),
    [
        ([], UnityCommunicatorStoppedException, "the connection broke before the run began"),
        ([write_goodbye()], UnityCommunicatorStoppedException, "said goodbye before the run began"),
        ([write_environment_message()], UnityCommunicationException, "does not introduce it"),
        ([write_handshake("x"), write_goodbye()], UnityCommunicatorStoppedException, "said goodbye before the run"),
    ],
)
def test_a_handshake_that_fails(attach, messages, kind, message):
    with pytest.raises(kind, match=rf"^Worker 0 \(the Unity Editor\): .*{message}"):
        attach(Script(*messages))


# Steps in two parts


def test_a_step_in_two_parts_is_a_step(attach):
    communicator = Recorder()
    env = attach(communicator)
    env.step_async()  # the first is a reset, as that of `step` is
    env.step_wait()
    env.set_actions(MOCK, ActionTuple(np.full((3, 2), 0.5, dtype=np.float32)))
    env.step_async()
    assert [message.command for message in communicator.received[1:]] == [command_pb2.RESET, command_pb2.STEP]
    assert communicator.received[-1].actions[MOCK].continuous.tolist() == [[0.5, 0.5]] * 3
    assert env.is_step_over()
    env.step_wait()
    assert env.get_steps(MOCK)[0].obs[0][:, 0].tolist() == [1, 2, 3]


def test_a_reset_drops_the_step_that_is_under_way(attach):
    communicator = Recorder()
    env = attach(communicator)
    env.reset()
    env.step_async()
    env.reset()
    commands = [message.command for message in communicator.received[1:]]
    assert commands == [command_pb2.RESET, command_pb2.STEP, command_pb2.RESET]
    assert env.get_steps(MOCK)[0].obs[0][:, 0].tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("is_under_way", "call", "message"),
    [
        (True, lambda env: env.step_async(), "a step is under way: call step_wait"),
        (True, lambda env: env.step(), "a step is under way: call step_wait"),
        (True, lambda env: env.get_steps(MOCK), "a step is under way: call step_wait"),
        (True, lambda env: env.set_actions(MOCK, ActionTuple()), "a step is under way: call step_wait"),
        (False, lambda env: env.step_wait(), "no step is under way: call step_async"),
        (False, lambda env: env.is_step_over(), "no step is under way: call step_async"),
    ],
)
def test_parts_of_a_step_come_in_their_order(attach, is_under_way, call, message):
    env = attach(MockCommunicator())
    env.reset()
    if is_under_way:
        env.step_async()
    with pytest.raises(UnityEnvironmentException, match=message):
        call(env)
