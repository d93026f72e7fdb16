"""What a worker's process does with requests, and what it tells of errors."""

import threading
from multiprocessing import Pipe

import cloudpickle
import numpy as np
import pytest

from mlagents.trainers.env_worker import (
    EnvironmentCommand,
    EnvironmentRequest,
    Failure,
    WorkerOptions,
    receive,
    run_worker,
    send,
)
from mlagents.trainers.environment_host import SourceEnvFactory
from mlagents.trainers.settings import EngineSettings
from mlagents_envs import exception, logging_util
from mlagents_envs.base_env import ActionSpec, BehaviorSpec, vector_observation
from mlagents_envs.env_resolver import EnvSource
from mlagents_envs.exception import (
    UnityCommunicationException,
    UnityEnvironmentException,
    UnityTimeOutException,
    UnityWorkerInUseException,
)
from mlagents_envs.shared_steps import StepsReader, make_shared_folder
from mlagents_envs.vector_env import VectorEnv

SPEC = BehaviorSpec([vector_observation(1, "step")], ActionSpec(1, ()))


class Brittle(VectorEnv):
    """Breaks at its third step, and then for good."""

    n_steps = 0
    is_closed = False

    def __init__(self):
        super().__init__("Brittle", SPEC, 1)

    def reset_agents(self, indices):
        return [np.zeros((1, 1))]

    def step_agents(self, actions):
        self.n_steps += 1
        if self.n_steps >= 3:
            raise BrokenPipeError("to something of the environment's own")
        return [np.full((1, 1), self.n_steps)], np.zeros(1), np.zeros(1, dtype=bool), np.zeros(1, dtype=bool)

    def close(self):
        self.is_closed = True


@pytest.fixture
def made():
    """The environments that workers have made."""
    return []


@pytest.fixture
def worker(made):
    """A worker in a thread of this process, and the trainer's end of the connection to it."""

    def make(worker_id, side_channels):
        made.append(Brittle())
        return made[-1]

    class Reference:
        """Stands for the factory: what is pickled by value would be another list of environments."""

        def __reduce__(self):
            return _find, (key,)

    key = id(make)
    _FACTORIES[key] = make
    ours, theirs = Pipe()
    with make_shared_folder() as folder, ours:
        options = WorkerOptions(cloudpickle.dumps(Reference()), 0, EngineSettings(), folder, logging_util.INFO)
        thread = threading.Thread(target=run_worker, args=(theirs, options))
        thread.start()
        yield ours
        ours.close()
        thread.join()
        del _FACTORIES[key]


_FACTORIES = {}


def _find(key):
    return _FACTORIES[key]


def ask(connection, cmd, payload=None):
    send(connection, EnvironmentRequest(cmd, {} if payload is None else payload))


def observed(responses):
    """Return what the agent saw at each step."""
    reader, specs = StepsReader(), {"Brittle?team=0": SPEC}
    read = [reader.read(response.payload.all_step_result, specs) for response in responses]
    return [steps["Brittle?team=0"][0].obs[0].item() for steps in read[-2:]]  # those before are gone


def test_after_a_failure_all_is_passed_over_until_a_restart(worker, made):
    """What the trainer sent before it knew must not be answered: answers would then no longer fit what was asked."""
    for cmd in [EnvironmentCommand.RESET, *[EnvironmentCommand.STEP] * 6, EnvironmentCommand.RESET]:
        ask(worker, cmd)
    responses = [receive(worker) for _ in range(4)]
    assert [response.cmd.name for response in responses] == ["RESET", "STEP", "STEP", "ENV_EXITED"]
    assert "to something of the environment's own" in responses[-1].payload.message
    ask(worker, EnvironmentCommand.RESTART)
    ask(worker, EnvironmentCommand.STEP)
    again = [receive(worker) for _ in range(2)]
    assert [response.cmd.name for response in again] == ["RESET", "STEP"]
    assert observed([responses[0], *again]) == [0.0, 1.0]
    assert [env.is_closed for env in made] == [True, False]


def test_specifications_come_with_the_first_step_of_an_environment(worker):
    for cmd in [EnvironmentCommand.RESET, EnvironmentCommand.RESET, EnvironmentCommand.STEP]:
        ask(worker, cmd)
    assert [receive(worker).payload.new_specs for _ in range(3)] == [{"Brittle?team=0": SPEC}, {}, {}]
    ask(worker, EnvironmentCommand.RESTART)
    assert receive(worker).payload.new_specs == {"Brittle?team=0": SPEC}


def test_a_worker_closes_its_environment_when_told_to(worker, made):
    ask(worker, EnvironmentCommand.RESET)
    ask(worker, EnvironmentCommand.CLOSE)
    responses = [receive(worker), receive(worker)]
    assert responses[1].cmd is EnvironmentCommand.CLOSED
    assert made[0].is_closed


def test_a_worker_whose_trainer_is_gone_closes_its_environment(worker, made):
    ask(worker, EnvironmentCommand.RESET)
    receive(worker)
    closed = threading.Event()
    made[0].close = closed.set
    worker.close()
    assert closed.wait(timeout=10)


class _Peculiar(UnityTimeOutException):
    """An exception that the trainer's process does not know."""


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (UnityCommunicationException("garbage"), UnityCommunicationException, "garbage"),
        (_Peculiar("slow"), UnityTimeOutException, "slow"),
        (UnityWorkerInUseException(4, "Held by x."), UnityEnvironmentException, "worker number 4 is still in use"),
    ],
)
def test_an_error_of_an_environment_arrives_as_what_it_is(error, kind, message):
    failure = Failure.of(error)
    assert failure.is_foreseen
    arrived = failure.error(worker_id=7)
    assert type(arrived) is kind
    assert message in str(arrived)
    assert hasattr(exception, failure.kind)


def test_a_bug_arrives_as_its_traceback():
    try:
        {}["a key of mine"]
    except KeyError as error:
        failure = Failure.of(error)
    assert not failure.is_foreseen
    message = str(failure.error(worker_id=7))
    assert message.startswith("The environment of worker 7 raised an error:\nTraceback (most recent call last):")
    assert message.endswith("KeyError: 'a key of mine'")


def test_each_worker_has_a_seed_of_its_own():
    class Noting(EnvSource):
        name, has_own_process = "noting", False

        def make(self, **arguments):
            return arguments

    factory = SourceEnvFactory(Noting(), seed=40, num_areas=3)
    channels = []
    assert factory(2, channels) == {"worker_id": 2, "seed": 42, "num_areas": 3, "side_channels": channels}
