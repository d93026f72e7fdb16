"""Every name that plug-ins for ML-Agents 1.1.0 import, subclass or call is there, and is called as it was.

The names are listed in ``data/public_names.txt``, whose head describes its lines.
"""

import enum
import importlib
import inspect
import re
from functools import cached_property
from pathlib import Path

import attr
import numpy as np
import pytest
import torch

from mlagents.trainers.behavior_id_utils import BehaviorIdentifiers
from mlagents.trainers.buffer import AgentBufferField
from mlagents.trainers.ppo.trainer import PPOTrainer
from mlagents.trainers.settings import (
    EncoderType,
    NetworkSettings,
    OffPolicyHyperparamSettings,
    RewardSignalSettings,
    TrainerSettings,
)
from mlagents.trainers.stats import ConsoleWriter, TensorboardWriter
from mlagents.trainers.torch_entities.components.reward_providers import ExtrinsicRewardProvider
from mlagents.trainers.torch_entities.distributions import (
    CategoricalDistInstance,
    GaussianDistInstance,
    GaussianDistribution,
    MultiCategoricalDistribution,
)
from mlagents.trainers.torch_entities.encoders import VectorInput
from mlagents.trainers.torch_entities.layers import LSTM, LinearEncoder
from mlagents.trainers.torch_entities.networks import LearningRate, ObservationEncoder, SharedActorCritic, ValueNetwork
from mlagents.trainers.torch_entities.utils import ModelUtils
from mlagents.trainers.trainer.off_policy_trainer import OffPolicyTrainer
from mlagents.trainers.trajectory import AgentExperience, Trajectory
from mlagents_envs.base_env import ActionSpec, ActionTuple, BehaviorSpec, vector_observation

LINE = re.compile(r"(?:(static|property|attribute) )?([\w.]+)(?:\((.*)\))?(?: = (.*))?(?: < (\w+))?")
MISSING = object()
STEP = AgentExperience(
    obs=[np.zeros(2)],
    reward=0.0,
    done=True,
    action=ActionTuple(np.zeros((1, 1)), np.zeros((1, 1), dtype=np.int32)),
    action_probs=None,
    action_mask=None,
    prev_action=np.zeros(1),
    interrupted=False,
    memory=None,
    group_status=[],
    group_reward=0.0,
)
SPEC = BehaviorSpec([vector_observation(2, "seen")], ActionSpec(1, (3,)))


def _sections():
    """Return the lines of the list by module."""
    text = (Path(__file__).parents[1] / "data" / "public_names.txt").read_text(encoding="utf-8")
    sections = {}
    for line in text.splitlines():
        if line.startswith("["):
            lines = sections.setdefault(line.strip("[]"), [])
        elif line and not line.startswith("#"):
            lines.append(line)
    return sections


SECTIONS = _sections()


def _find(module, name):
    """Return what a dotted name in a module stands for, properties as such."""
    owner, _, last = name.rpartition(".")
    found = module if not owner else _find(module, owner)
    if found is MISSING:
        return MISSING
    if attr.has(found) and last in attr.fields_dict(found):
        return attr.fields_dict(found)[last]
    return getattr(found, last, MISSING)


def _text(value):
    """Write a value as the list does."""
    if isinstance(value, enum.Enum):
        return f"{type(value).__name__}.{value.name}"
    if isinstance(value, type) and issubclass(value, np.generic):
        return f"np.{value.__name__}"
    return repr(value)


def _default(module, name):
    """Return the value of a constant, of an enum's member, or of a settings field where nothing is given."""
    found = _find(module, name)
    if isinstance(found, attr.Attribute):
        if isinstance(found.default, attr.Factory):
            return getattr(_find(module, name.rpartition(".")[0])(), found.name)
        return found.default
    return found.value if isinstance(found, enum.Enum) else found


def _parameters(function):
    """Return the parameters of a function as the list writes them, and those that an old call may leave out."""
    given, optional = [], []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.name == "self":
            continue
        is_optional = parameter.default is not parameter.empty or parameter.kind in (
            parameter.VAR_POSITIONAL,
            parameter.VAR_KEYWORD,
        )
        default = "" if parameter.default is parameter.empty else f"={_text(parameter.default)}"
        given.append(parameter.name + default)
        optional.append(is_optional)
    return given, optional


def _fits(listed, ours):
    """Whether a parameter or value, written as text, can stand for the listed one."""
    name, has_default, default = listed.rpartition("=")
    our_name, _, our_default = ours.rpartition("=")
    if not has_default:
        return listed in (ours, our_name)
    return name == our_name and _is_same(default, our_default)


def _is_same(listed, ours):
    try:
        return float(listed) == float(ours)
    except ValueError:
        return listed == ours


def _problem(module, line):
    """Say what is wrong with a listed name, or return None."""
    kind, name, parameters, value, base = LINE.fullmatch(line).groups()
    if kind == "attribute":
        return None  # of instances, see below
    found = _find(module, name)
    if found is MISSING:
        return "missing"
    if base is not None:
        return None if base in {cls.__name__ for cls in found.__mro__} else "it is none"
    if kind == "property":
        return None if isinstance(found, (property, cached_property)) else f"not a property, but {found!r}"
    if value is not None:
        ours = _text(_default(module, name))
        return None if _is_same(value, ours) else f"it is {ours}"
    if parameters is None:
        return None
    owner = _find(module, name.rpartition(".")[0]) if "." in name else module
    is_bare = isinstance(inspect.getattr_static(owner, name.rpartition(".")[2]), (staticmethod, classmethod))
    if kind == "static" and not is_bare:
        return "it needs an instance"
    listed = [part for part in re.split(r",\s*(?![^(]*\))", parameters) if part]
    ours, optional = _parameters(found)
    wrong = [f"{old} is {new}" for old, new in zip(listed, ours) if not _fits(old, new)]
    wrong += [f"{old} is missing" for old in listed[len(ours) :]]
    wrong += [
        f"{new} is new and required" for new, may_miss in list(zip(ours, optional))[len(listed) :] if not may_miss
    ]
    return ", ".join(wrong) or None


@pytest.mark.parametrize("module_name", SECTIONS)
def test_names_are_there_and_are_called_as_they_were(module_name):
    module = importlib.import_module(module_name)
    problems = {line: _problem(module, line) for line in SECTIONS[module_name]}
    assert {line: problem for line, problem in problems.items() if problem} == {}


class SomeOffPolicyTrainer(OffPolicyTrainer):
    """With what is abstract."""

    def _process_trajectory(self, trajectory):
        super()._process_trajectory(trajectory)

    create_policy = PPOTrainer.create_policy
    create_optimizer = PPOTrainer.create_optimizer

    @staticmethod
    def get_trainer_name():
        return "some"


@pytest.fixture
def instances(tmp_path):
    """Return an instance of every class of which the list names attributes, by the class's name."""
    memory = NetworkSettings.MemorySettings(sequence_length=4, memory_size=6)
    settings = TrainerSettings(network_settings=NetworkSettings(memory=memory, normalize=True))
    trainer = PPOTrainer("A", 1, settings, True, False, 0, str(tmp_path))
    identifiers = BehaviorIdentifiers.from_name_behavior_id("A?team=0")
    trainer.add_policy(identifiers, trainer.create_policy(identifiers, SPEC))
    replaying_settings = TrainerSettings(hyperparameters=OffPolicyHyperparamSettings())
    actor = SharedActorCritic(SPEC.observation_specs, settings.network_settings, SPEC.action_spec, ["extrinsic"])
    critic = ValueNetwork(["extrinsic"], SPEC.observation_specs, settings.network_settings)
    reward_provider = ExtrinsicRewardProvider(SPEC, RewardSignalSettings())
    made = [
        trainer,
        SomeOffPolicyTrainer("A", 1, replaying_settings, True, False, 0, str(tmp_path)),
        trainer.policy,
        trainer.optimizer,
        trainer.model_saver,
        trainer.model_saver.exporter,
        trainer.stats_reporter,
        reward_provider,
        actor,
        actor.action_model,
        critic,
        critic.network_body,
        critic.value_heads,
        ObservationEncoder(SPEC.observation_specs, 4, EncoderType.SIMPLE),
        VectorInput(2),
        LSTM(4, 6),
        LinearEncoder(2, 1, 4),
        LearningRate(0.1),
        GaussianDistribution(4, 1),
        MultiCategoricalDistribution(4, [3]),
        GaussianDistInstance(torch.zeros(2, 1), torch.ones(2, 1)),
        CategoricalDistInstance(torch.zeros(2, 3)),
        Trajectory([STEP], [np.zeros(2)], [], "a", "A?team=0"),
        ModelUtils.DecayedValue(settings.hyperparameters.learning_rate_schedule, 1.0, 0.0, 10),
        AgentBufferField(),
        ConsoleWriter(),
        TensorboardWriter(str(tmp_path)),
    ]
    return {cls.__qualname__: instance for instance in made for cls in type(instance).__mro__}


@pytest.mark.parametrize("module_name", SECTIONS)
def test_instances_have_the_attributes_they_had(module_name, instances):
    names = [line.removeprefix("attribute ") for line in SECTIONS[module_name] if line.startswith("attribute ")]
    owners = {name: instances[name.rpartition(".")[0]] for name in names}
    assert [name for name, owner in owners.items() if not hasattr(owner, name.rpartition(".")[2])] == []


def test_the_list_is_read_as_it_is_meant():
    """The checks above find what they are to find."""
    import mlagents.trainers.settings as module

    assert _problem(module, "NetworkSettings.nothing") == "missing"
    assert _problem(module, "ScheduleType.LINEAR = 'straight'") == "it is 'linear'"
    assert _problem(module, "NetworkSettings.num_layers = 3") == "it is 2"
    assert _problem(module, "property NetworkSettings") is not None
    buffer = importlib.import_module("mlagents.trainers.buffer")
    assert _problem(buffer, "AgentBuffer.make_mini_batch(start)") == "end is new and required"
    assert _problem(buffer, "AgentBuffer.make_mini_batch(first, end)") == "first is start"
    truncate = "AgentBuffer.truncate(max_length, sequence_length=2)"
    assert _problem(buffer, truncate) == "sequence_length=2 is sequence_length=1"
    assert _problem(buffer, "static AgentBuffer.truncate(max_length)") == "it needs an instance"
