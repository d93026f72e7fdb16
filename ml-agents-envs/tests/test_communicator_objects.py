"""The message classes: the modules and names that are imported from elsewhere, and that they are what the files say."""

import importlib
import re
from pathlib import Path

import pytest
from google.protobuf import descriptor_pb2

import mlagents_envs.communicator_objects
from mlagents_envs.communicator_objects import command_pb2, observation_pb2, space_type_pb2, unity_message_pb2
from mlagents_envs.communicator_objects.builder import DESCRIPTORS

FOLDER = Path(mlagents_envs.communicator_objects.__file__).parent
PROTOS = sorted(path.stem for path in FOLDER.glob("*.proto"))


def test_there_is_a_module_for_each_file():
    assert len(PROTOS) == 21
    assert sorted(path.stem.removesuffix("_pb2") for path in FOLDER.glob("*_pb2.py")) == PROTOS


@pytest.mark.parametrize("proto", PROTOS)
def test_a_module_holds_the_classes_of_its_file(proto):
    module = importlib.import_module(f"mlagents_envs.communicator_objects.{proto}_pb2")
    source = (FOLDER / f"{proto}.proto").read_text(encoding="utf-8")
    for name in re.findall(r"^message (\w+)", source, re.MULTILINE):
        message = getattr(module, name)()
        assert message.DESCRIPTOR.full_name == f"communicator_objects.{name}"
        assert getattr(module, name).FromString(message.SerializeToString()) == message
    for name in re.findall(r"^enum (\w+)", source, re.MULTILINE):
        for value, number in getattr(module, name).items():
            assert getattr(module, value) == number


def test_enum_values_stand_at_module_level():
    assert (command_pb2.STEP, command_pb2.RESET, command_pb2.QUIT) == (0, 1, 2)
    assert (observation_pb2.NONE, observation_pb2.PNG) == (0, 1)
    assert (observation_pb2.DEFAULT, observation_pb2.GOAL_SIGNAL) == (0, 1)
    assert (space_type_pb2.discrete, space_type_pb2.continuous) == (0, 1)
    assert command_pb2.CommandProto.Name(1) == "RESET"


def test_a_name_that_a_module_does_not_hold_is_an_attribute_error():
    with pytest.raises(AttributeError, match="unity_message_pb2 has no Nonsense"):
        _ = unity_message_pb2.Nonsense


def test_nested_messages_are_made_as_generated_ones_are():
    data = observation_pb2.ObservationProto.FloatData(data=[1.0, 2.0])
    observation = observation_pb2.ObservationProto(float_data=data, shape=[2])
    assert observation.WhichOneof("observation_data") == "float_data"
    observation.compressed_data = b"png"
    assert observation.WhichOneof("observation_data") == "compressed_data"


def test_the_descriptors_are_those_of_the_files():
    pytest.importorskip("grpc_tools", reason="grpcio-tools compiles the files")
    from mlagents_envs.communicator_objects.compile_protos import compile_protos

    compiled, kept = (
        descriptor_pb2.FileDescriptorSet.FromString(d) for d in (compile_protos(), DESCRIPTORS.read_bytes())
    )
    assert {file.name: file for file in compiled.file} == {file.name: file for file in kept.file}
