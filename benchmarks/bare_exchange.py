"""What one exchange costs in bare gRPC, of a server and a client in a process of its own.

Back to back, or at the pace of a training: the client computes for some time before each call, as an environment
simulates, and the server before each answer, as a trainer collects and learns. That is dearer, since whoever waits for
long sleeps deeper: on a virtual machine twice as dear.
"""

from __future__ import annotations

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

import grpc

METHOD = "/communicator_objects.UnityToExternalProto/Exchange"
OPTIONS = (("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1))
EXCHANGES = 2000


class _Answer(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpc has no types
    def __init__(self, answer: bytes, busy_s: float):
        def respond(request: bytes, context: grpc.ServicerContext) -> bytes:
            compute(busy_s)
            return answer

        self._handler = grpc.unary_unary_rpc_method_handler(respond)

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        """Answer everything alike."""
        return self._handler


def compute(seconds: float) -> None:
    """Keep the processor busy."""
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


def seconds_per_exchange(request: bytes, answer: bytes, client_s: float = 0.0, server_s: float = 0.0) -> float:
    """Return how long a client in another process waits for an answer, without what the server computes meanwhile.

    :param client_s: how long the client computes before each call.
    :param server_s: how long the server computes before each answer.
    """
    server = grpc.server(ThreadPoolExecutor(max_workers=1), handlers=[_Answer(answer, server_s)], options=OPTIONS)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with TemporaryDirectory() as folder:
            path = Path(folder) / "request"
            path.write_bytes(request)
            command = [sys.executable, "-m", "benchmarks.bare_exchange", str(port), str(path), str(client_s)]
            printed = subprocess.run(
                command, check=True, capture_output=True, text=True, cwd=Path(__file__).parent.parent
            )
            return float(printed.stdout) - server_s
    finally:
        server.stop(None)


def main() -> None:
    """Be the client."""
    port, path, busy_s = sys.argv[1:]
    request = Path(path).read_bytes()
    with grpc.insecure_channel(f"127.0.0.1:{port}", options=OPTIONS) as channel:
        call = channel.unary_unary(METHOD)
        for _ in range(100):
            call(request)
        waited = 0.0
        for _ in range(EXCHANGES):
            compute(float(busy_s))
            start = time.perf_counter()
            call(request)
            waited += time.perf_counter() - start
        print(waited / EXCHANGES)


if __name__ == "__main__":
    main()
