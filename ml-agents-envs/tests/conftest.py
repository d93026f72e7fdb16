"""What several test modules share: a trainer in the test's hands."""

import queue
from concurrent.futures import ThreadPoolExecutor

import grpc
import hypothesis
import pytest

from mlagents_envs.communicator_objects import command_pb2
from mlagents_envs.communicator_objects.unity_message_pb2 import UnityMessageProto

# The same examples each time; `pytest --hypothesis-profile default` looks for others.
hypothesis.settings.register_profile("fixed", derandomize=True)
hypothesis.settings.load_profile("fixed")

_REFUSED = object()


class Trainer:
    """A trainer in the test's hands: it reads what the environment sends, and says what is answered."""

    patience_s = 30

    def __init__(self):
        self._requests, self._answers = queue.SimpleQueue(), queue.SimpleQueue()
        self._pool = ThreadPoolExecutor(1)
        self._server = grpc.server(
            self._pool, options=[("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", -1)]
        )
        handlers = {"Exchange": grpc.unary_unary_rpc_method_handler(self._exchange)}
        self._server.add_generic_rpc_handlers(
            [grpc.method_handlers_generic_handler("communicator_objects.UnityToExternalProto", handlers)]
        )
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()

    def _exchange(self, request, context):
        self._requests.put(request)
        answer = self._answers.get()
        if answer is _REFUSED:
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "no more of this")
        return answer

    def receive(self, timeout_s=patience_s):
        """Return the environment's next message; raises `queue.Empty` when none comes in time."""
        return UnityMessageProto.FromString(self._requests.get(timeout=timeout_s))

    def answer(self, message):
        """Send an answer, a message or bytes, and return the environment's next message."""
        self.part_with(message)
        return self.receive()

    def part_with(self, message):
        """Send an answer to which no message follows."""
        self._answers.put(message if isinstance(message, bytes) else message.SerializeToString())

    @staticmethod
    def message():
        """Return an answer with nothing in it."""
        message = UnityMessageProto()
        message.header.status = 200
        return message

    def order(self, command, actions=None, side_channel=b""):
        """Return an answer with a command and actions by behaviour id."""
        message = self.message()
        rl_input = message.unity_input.rl_input
        rl_input.command = command
        rl_input.side_channel = side_channel
        for behavior_id, action in (actions or {}).items():
            agents = rl_input.agent_actions[behavior_id]
            for continuous, discrete in zip(action.continuous.tolist(), action.discrete.tolist()):
                agents.value.add(continuous_actions=continuous, discrete_actions=discrete)
        return message

    def reset(self, side_channel=b""):
        return self.answer(self.order(command_pb2.RESET, side_channel=side_channel))

    def step(self, actions=None, side_channel=b""):
        return self.answer(self.order(command_pb2.STEP, actions, side_channel))

    def end(self):
        self.part_with(self.order(command_pb2.QUIT))

    def refuse(self):
        """Answer with an error of gRPC."""
        self._answers.put(_REFUSED)

    def begin(self, seed=0, num_areas=1, version="1.5.0"):
        """Go through the handshake; return the environment's two messages."""
        hello, answer = self.receive(), self.message()
        initialization = answer.unity_input.rl_initialization_input
        initialization.seed, initialization.num_areas, initialization.communication_version = seed, num_areas, version
        return hello, self.answer(answer)

    def close(self):
        """Break the connection off."""
        self._server.stop(0).wait()
        self._answers.put(_REFUSED)  # frees the thread that waits for an answer
        self._pool.shutdown()


@pytest.fixture
def trainer():
    trainer = Trainer()
    yield trainer
    trainer.close()
