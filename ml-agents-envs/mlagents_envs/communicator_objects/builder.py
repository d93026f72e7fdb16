"""Message classes and enums from the descriptor set, in a pool of their own, where no other package's can clash."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.internal.enum_type_wrapper import EnumTypeWrapper

FOLDER = "mlagents_envs/communicator_objects"
DESCRIPTORS = Path(__file__).parent / "descriptors.bin"


def _load_pool() -> descriptor_pool.DescriptorPool:
    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(DESCRIPTORS.read_bytes()).file:
        pool.AddSerializedFile(file.SerializeToString())
    return pool


_POOL = _load_pool()


def names_of(proto: str) -> Dict[str, Any]:
    """Return what a generated module would hold: descriptor, message classes, enums and their values, by name.

    :param proto: the name of a ``.proto`` file, without its suffix.
    """
    file = _POOL.FindFileByName(f"{FOLDER}/{proto}.proto")
    names: Dict[str, Any] = {"DESCRIPTOR": file}
    for name, message in file.message_types_by_name.items():
        names[name] = message_factory.GetMessageClass(message)
    for name, enum in file.enum_types_by_name.items():
        names[name] = EnumTypeWrapper(enum)
        names.update((value.name, value.number) for value in enum.values)
    return names
