"""Make `descriptors.bin` anew after a change of a ``.proto`` file; run as a module, it needs grpcio-tools."""

import tempfile
from pathlib import Path

from mlagents_envs.communicator_objects.builder import DESCRIPTORS, FOLDER


def compile_protos() -> bytes:
    """Return the descriptor set of the ``.proto`` files, each after those that it imports."""
    from grpc_tools import protoc  # needed for development only

    folder = DESCRIPTORS.parent
    root = folder.parents[len(Path(FOLDER).parts) - 1]
    sources = sorted(str(path) for path in folder.glob("*.proto"))
    with tempfile.TemporaryDirectory() as temporary:
        target = Path(temporary) / "descriptors.bin"
        if protoc.main(["protoc", f"-I{root}", f"--descriptor_set_out={target}", *sources]):
            raise SystemExit("The .proto files do not compile.")
        return target.read_bytes()


if __name__ == "__main__":
    DESCRIPTORS.write_bytes(compile_protos())
