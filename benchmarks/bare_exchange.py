"""What one exchange costs in bare gRPC: a server that answers at once, and a client in a process of its own."""

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
    def __init__(self, answer: bytes):
        self._handler = grpc.unary_unary_rpc_method_handler(lambda request, context: answer)

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        """Answer everything alike."""
        return self._handler


def seconds_per_exchange(request: bytes, answer: bytes) -> float:
    """Return how long a client in another process waits for an answer."""
    server = grpc.server(ThreadPoolExecutor(max_workers=1), handlers=[_Answer(answer)], options=OPTIONS)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        with TemporaryDirectory() as folder:
            path = Path(folder) / "request"
            path.write_bytes(request)
            command = [sys.executable, "-m", "benchmarks.bare_exchange", str(port), str(path)]
            printed = subprocess.run(
                command, check=True, capture_output=True, text=True, cwd=Path(__file__).parent.parent
            )
            return float(printed.stdout)
    finally:
        server.stop(None)


def main() -> None:
    """Be the client."""
    port, path = sys.argv[1:]
    request = Path(path).read_bytes()
    with grpc.insecure_channel(f"127.0.0.1:{port}", options=OPTIONS) as channel:
        call = channel.unary_unary(METHOD)
        for _ in range(100):
            call(request)
        start = time.perf_counter()
        for _ in range(EXCHANGES):
            call(request)
        print((time.perf_counter() - start) / EXCHANGES)


if __name__ == "__main__":
    main()
