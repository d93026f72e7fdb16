"""Write docs/configuration.md, the reference of all settings, from the settings classes: run it after changing one."""

from __future__ import annotations

import inspect
import re
import typing
from enum import Enum
from pathlib import Path
from typing import Any, Dict, Iterator, NamedTuple

import attr
import yaml

from mlagents.plugins.trainer_type import get_default_trainer_types
from mlagents.trainers.settings import (
    BehavioralCloningSettings,
    CheckpointSettings,
    CompletionCriteriaSettings,
    EngineSettings,
    EnvironmentParameterSettings,
    EnvironmentSettings,
    EvaluationSettings,
    HyperparamSettings,
    Lesson,
    NetworkSettings,
    ParameterRandomizationSettings,
    ParameterRandomizationType,
    RewardSignalSettings,
    RewardSignalType,
    RunOptions,
    SelfPlaySettings,
    TorchSettings,
    TrainerSettings,
)
from mlagents.trainers.settings.fields import Range, help_of
from mlagents.trainers.settings.plain import to_plain

PAGE = Path(__file__).with_name("configuration.md")

INTRODUCTION = """\
# Configuration

All keys of a configuration file, generated from the settings classes by `docs/generate_configuration.py`. How a file
is put together is told in [Training](training.md#the-configuration-file). Every key may be left out that is not marked
as required. Some keys ask for what is [not there yet](training.md#not-there-yet); they pass as long as they have their
default values.
"""

SAMPLER_INTRODUCTION = """\
How the environment draws the values of a parameter: `sampler_type`, one of
{types}, and `sampler_parameters`, whose keys depend on the type.
"""

TYPE_NAMES = {bool: "`true` or `false`", int: "whole number", float: "number", str: "text"}


class Section(NamedTuple):
    """A table of the page: the fields of one class."""

    title: str
    settings_class: type


def sections() -> Iterator[Section]:
    """Yield the tables in their order on the page."""
    yield Section("Top level", RunOptions)
    yield Section("behaviors and default_settings", TrainerSettings)
    for trainer_type, settings_class in get_default_trainer_types()[1].items():
        yield Section(f"hyperparameters of {trainer_type}", settings_class)
    yield Section("network_settings", NetworkSettings)
    yield Section("memory", NetworkSettings.MemorySettings)
    for signal in RewardSignalType:
        yield Section(f"reward_signals: {signal.value}", signal.to_settings())
    yield Section("self_play", SelfPlaySettings)
    yield Section("behavioral_cloning", BehavioralCloningSettings)
    yield Section("evaluation", EvaluationSettings)
    yield Section("env_settings", EnvironmentSettings)
    yield Section("engine_settings", EngineSettings)
    yield Section("environment_parameters", EnvironmentParameterSettings)
    yield Section("curriculum", Lesson)
    yield Section("completion_criteria", CompletionCriteriaSettings)
    yield Section("Samplers", ParameterRandomizationSettings)
    for sampler in ParameterRandomizationType:
        yield Section(f"sampler_type: {sampler.value}", sampler.to_settings())
    yield Section("checkpoint_settings", CheckpointSettings)
    yield Section("torch_settings", TorchSettings)


def render() -> str:
    """Return the page."""
    links = {section.settings_class: f"[{section.title}](#{_anchor(section.title)})" for section in sections()}
    links[HyperparamSettings] = "by `trainer_type`: " + _links_of("hyperparameters of ", links)
    links[RewardSignalSettings] = "by signal: " + _links_of("reward_signals: ", links)
    links[ParameterRandomizationSettings] = "number or [sampler](#samplers)"
    links[EnvironmentParameterSettings] = "number, [sampler](#samplers) or [lessons](#environment_parameters)"
    links[TrainerSettings.DefaultTrainerDict] = f"name: {links[TrainerSettings]}"
    parts = [INTRODUCTION, *(_render_section(section, links) for section in sections())]
    return "\n".join(parts)


def _links_of(prefix: str, links: Dict[type, str]) -> str:
    return ", ".join(link.replace(f"[{prefix}", "[") for link in links.values() if link.startswith(f"[{prefix}"))


def _anchor(title: str) -> str:
    """Return the anchor that both MkDocs and GitHub give a heading."""
    return re.sub(r"[^\w\s-]", "", title).strip().lower().replace(" ", "-")


def _render_section(section: Section, links: Dict[type, str]) -> str:
    settings_class = section.settings_class
    if settings_class is ParameterRandomizationSettings:  # abstract: its tables are those of the sampler types
        types = ", ".join(f"`{sampler.value}`" for sampler in ParameterRandomizationType)
        return f"## {section.title}\n\n{SAMPLER_INTRODUCTION.format(types=types)}"
    hints = typing.get_type_hints(settings_class)
    rows = [["key", "type", "default", "meaning"], ["---"] * 4]
    for field in attr.fields(settings_class):
        kind = _type_name(hints[field.name], links) + _limits(field)
        rows.append([f"`{field.name}`", kind, _default(settings_class, field), help_of(settings_class, field.name)])
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    summary = (inspect.getdoc(settings_class) or "").partition("\n\n")[0]
    return f"## {section.title}\n\n{summary}\n\n{table}\n"


def _type_name(kind: Any, links: Dict[type, str]) -> str:
    """Say what may stand for a value. Raises `KeyError` for a class that has no table."""
    arguments = typing.get_args(kind)
    container = typing.get_origin(kind) or kind
    if kind in TYPE_NAMES:
        return TYPE_NAMES[kind]
    if container is typing.Union:
        return " or ".join("`null`" if member is type(None) else _type_name(member, links) for member in arguments)
    if container is dict:
        return f"name: {_type_name(arguments[1], links)}" if arguments[0] is str else _type_name(arguments[1], links)
    if container is list:
        return f"list of {_type_name(arguments[0], links)}"
    if container is tuple:
        return f"[{', '.join(_type_name(argument, links) for argument in arguments)}]"
    if issubclass(kind, Enum):
        return ", ".join(f"`{member.value}`" for member in kind)
    return links[kind]


def _limits(field: attr.Attribute[Any]) -> str:
    limits = str(field.validator) if isinstance(field.validator, Range) else ""
    return f", {limits}" if limits and limits != "a finite number" else ""


def _default(settings_class: type, field: attr.Attribute[Any]) -> str:
    if field.default is attr.NOTHING:
        return "required"
    required = {other.name: None for other in attr.fields(settings_class) if other.default is attr.NOTHING}
    value = getattr(settings_class(**required), field.name)
    if attr.has(type(value)):
        return "its defaults"
    if isinstance(value, dict):
        return ", ".join(f"`{to_plain(name)}`" for name in value) or "empty"
    return f"`{_as_yaml(to_plain(value))}`"


def _as_yaml(plain: Any) -> str:
    return yaml.safe_dump(plain, default_flow_style=True).removesuffix("\n").removesuffix("\n...")


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
