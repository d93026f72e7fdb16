"""`UnityEnvironment` over real sockets: recorded exchanges, and what stands in for the Editor."""

import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

import mlagents_envs
from mlagents_envs import environment
from mlagents_envs.communicator_objects.unity_message_pb2 import UnityMessageProto
from mlagents_envs.environment import UnityEnvironment
from mlagents_envs.exception import (
    UnityCommunicatorStoppedException,
    UnityTimeOutException,
    UnityWorkerInUseException,
)
from mlagents_envs.side_channel.raw_bytes_channel import RawBytesChannel
from mlagents_envs.side_channel.side_channel_manager import split_messages
from mlagents_envs.wire.messages import write_goodbye
from mlagents_envs.wire.trainer_messages import read_trainer_message

DATA = Path(__file__).parent / "data" / "wire"
WAIT_S = 20


@pytest.fixture
def port():
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


# Recorded exchanges


def _part(scene, number, end):
    return (DATA / f"{scene}-{number:02}-{end}.bin").read_bytes()


@pytest.mark.parametrize("scene", ["3DBall", "Basic"])
def test_recorded_requests_are_answered_as_they_were(port, scene):
    """A client sends what an environment sent; the same actions and side channel messages make the same bytes."""
    requests = [_part(scene, number, "env") for number in range(16)]
    recorded = [_part(scene, number, "trainer") for number in range(16)]
    name = f"{scene}?team=0"
    messages = [list(split_messages(read_trainer_message(reply).side_channel)) for reply in recorded]
    channels = {channel_id: RawBytesChannel(channel_id) for of_one in messages for channel_id, _ in of_one}
    seed = read_trainer_message(recorded[0]).initialization.seed

    with ThreadPoolExecutor(1) as pool, grpc.insecure_channel(f"localhost:{port}") as client:
        exchange = client.unary_unary("/communicator_objects.UnityToExternalProto/Exchange")
        replies = pool.submit(lambda: [exchange(r, timeout=WAIT_S, wait_for_ready=True) for r in requests])
        env = UnityEnvironment(base_port=port, seed=seed, side_channels=list(channels.values()))
        try:
            for number in range(1, 15):
                for channel_id, payload in messages[number]:
                    channels[channel_id].send_raw_data(payload)
                if number == 1:
                    env.reset()
                else:
                    env.set_actions(name, read_trainer_message(recorded[number]).actions[name])
                    env.step()
                _check_steps(env.get_steps(name), UnityMessageProto.FromString(requests[number + 1]), name)
        finally:
            env.close()  # which answers the last request
        replies = replies.result()
    greeting = UnityMessageProto.FromString(recorded[0])
    greeting.unity_input.rl_initialization_input.package_version = mlagents_envs.__version__
    assert UnityMessageProto.FromString(replies[0]) == greeting
    assert replies[1:15] == recorded[1:15]
    assert replies[15] == write_goodbye()


def _check_steps(steps, message, name):
    """Compare what came out with what protobuf reads, agent by agent."""
    infos = message.unity_output.rl_output.agentInfos[name].value
    for kind, of_kind in zip(steps, ([i for i in infos if not i.done], [i for i in infos if i.done])):
        assert kind.agent_id.tolist() == [info.id for info in of_kind]
        assert kind.reward.tolist() == [info.reward for info in of_kind]
        assert kind.obs[0].tolist() == [list(info.observations[0].float_data.data) for info in of_kind]
    assert steps[1].interrupted.tolist() == [info.max_step_reached for info in infos if info.done]


# The Editor


def _play(port, *messages):
    """Be the Editor: send messages, and return what they were answered with."""
    with grpc.insecure_channel(f"localhost:{port}") as channel:
        exchange = channel.unary_unary("/communicator_objects.UnityToExternalProto/Exchange")
        return [exchange(message, timeout=WAIT_S, wait_for_ready=True) for message in messages]


@pytest.fixture
def editor():
    """A function that plays a scene in the background."""
    with ThreadPoolExecutor(2) as pool:
        yield lambda *args: pool.submit(_play, *args)


SCENE = [_part("Basic", number, "env") for number in range(3)]


def test_the_editor_is_waited_for_as_long_as_it_takes(port, editor, capsys, monkeypatch):
    playing = []

    def wait_for(self):
        if not playing:
            playing.append(editor(port, *SCENE))

    monkeypatch.setattr(UnityEnvironment, "_check_process", wait_for)  # presses Play only after a while
    env = UnityEnvironment(base_port=port, timeout_wait=WAIT_S)
    out = capsys.readouterr().out
    line = f"Listening on port {port}. Start training by pressing the Play button in the Unity Editor."
    assert out.splitlines()[0] == f"[INFO] {line}"
    assert list(env.behavior_specs) == ["Basic?team=0"]
    env.close()
    assert playing[0].result()[-1] == write_goodbye()


def test_stop_and_play_again(port, editor):
    for _ in range(2):
        scene = editor(port, *SCENE, write_goodbye())
        env = UnityEnvironment(base_port=port)
        env.reset()
        with pytest.raises(UnityCommunicatorStoppedException, match="said goodbye during the run"):
            env.step()
        assert scene.result()[-1] == write_goodbye()


def test_an_editor_that_crashes(port, editor):
    scene = editor(port, *SCENE[:2])  # which then leaves, as it is
    env = UnityEnvironment(base_port=port, timeout_wait=WAIT_S)
    with pytest.raises(UnityCommunicatorStoppedException, match="the connection broke before the run began"):
        env.reset()
    assert len(scene.result()) == 2


def test_an_editor_that_is_paused_too_long(port):
    with grpc.insecure_channel(f"localhost:{port}") as channel, ThreadPoolExecutor(1) as pool:
        exchange = channel.unary_unary("/communicator_objects.UnityToExternalProto/Exchange")
        answers = pool.submit(lambda: [exchange(m, timeout=WAIT_S, wait_for_ready=True) for m in SCENE[:2]])
        env = UnityEnvironment(base_port=port, timeout_wait=1)
        with pytest.raises(UnityTimeOutException, match=r"^Worker 0 .*sent no message within 1 s"):
            env.reset()
        assert len(answers.result()) == 2


def test_a_held_port_names_its_holder(port):
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", port))
        holder.listen()
        with pytest.raises(UnityWorkerInUseException, match=rf"worker number 0 .*Port {port} is held by this very"):
            UnityEnvironment(base_port=port)


def test_the_editor_is_expected_where_it_looks():
    assert UnityEnvironment.DEFAULT_EDITOR_PORT == 5004
    assert UnityEnvironment.BASE_ENVIRONMENT_PORT == 5005
    made = []

    class Stop(Exception):
        pass

    def note(*args):
        made.append(args)
        raise Stop

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(environment, "RpcCommunicator", lambda *args, **kwargs: note(args, kwargs))
        with pytest.raises(Stop):
            UnityEnvironment(timeout_wait=3)
        with pytest.raises(Stop):
            UnityEnvironment("game", worker_id=2)
    assert made == [
        ((0, 5004, 3), {"any_port": False, "waits_for_user": True}),
        ((2, 5005, 60), {"any_port": True, "waits_for_user": False}),
    ]
