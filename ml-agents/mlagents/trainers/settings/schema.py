"""A JSON Schema of the configuration file, made of the settings classes, by which editors complete and check it.

It lets pass all that the reader (`reader`) takes. What it cannot say, and the reader finds:

- whether a number that is written as text, which YAML makes of 5e5, is whole and in its range;
- conditions between several keys, such as the order of the ends of an interval;
- a key that is required in a behaviour, since `default_settings` may have it; and the hyperparameters of one that does
  not say its `trainer_type`;
- what is not there yet, see `not_built`.

``mlagents-validate --schema`` prints it, with the trainers of all plug-ins that are installed.
"""

from __future__ import annotations

import json
import types
import typing
from enum import Enum
from typing import Any, Callable, Dict, List, Sequence
from urllib.parse import quote

import attr

from mlagents.plugins.trainer_type import get_settings_class
from mlagents.trainers.settings.environment_parameters import (
    EnvironmentParameterSettings,
    ParameterRandomizationSettings,
    ParameterRandomizationType,
)
from mlagents.trainers.settings.fields import HELP, ensure_attrs_class
from mlagents.trainers.settings.plain import to_plain
from mlagents.trainers.settings.reader import annotations_of, is_section
from mlagents.trainers.settings.run import RunOptions
from mlagents.trainers.settings.trainer import TrainerSettings

Schema = Dict[str, Any]

_DIGITS = r"(\d[\d_]*\.?[\d_]*|\.\d[\d_]*)([eE][+-]?\d[\d_]*)?"
_INFINITY = "[iI][nN][fF]([iI][nN][iI][tT][yY])?"
_NUMBER_AS_TEXT = {"type": "string", "pattern": rf"^\s*[+-]?({_DIGITS}|{_INFINITY})\s*$"}
_AS_TEXT = "number-as-text"
_NULL = {"type": "null"}
_SCALARS: Dict[Any, Schema] = {
    bool: {"enum": [True, False, 0, 1]},
    int: {"type": "integer"},
    float: {"type": "number"},
    str: {"type": ["string", "number"]},
}


def render(trainer_types: Sequence[str]) -> str:
    """Return the schema as a file holds it."""
    return json.dumps(configuration_schema(trainer_types), indent=1) + "\n"


def configuration_schema(trainer_types: Sequence[str]) -> Schema:
    """Return the schema (JSON Schema, draft 2020-12), with the hyperparameters of these trainer types.

    :raises TrainerConfigError: there is no such trainer type.
    """
    schema = _Definitions(trainer_types)
    root = schema.of_fields(RunOptions)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Configuration of mlagents-learn",
        **root,
        "type": "object",
        "$defs": dict(sorted(schema.definitions.items())),
    }


class _Definitions:
    """Makes schemas of types; those of classes are definitions, which the others refer to.

    :ivar definitions: so far, by name.
    """

    def __init__(self, trainer_types: Sequence[str]):
        self.definitions: Dict[str, Schema] = {_AS_TEXT: _NUMBER_AS_TEXT}
        self._trainer_types = list(trainer_types)

    def of(self, kind: Any) -> Schema:
        """Return the schema of what the reader takes for a type annotation."""
        container, arguments = typing.get_origin(kind) or kind, typing.get_args(kind)
        if container in _SCALARS:
            return dict(_SCALARS[container])
        if container in self._special:
            name, make = self._special[container]
            return self._defined(name, lambda: make(self))
        if container in (typing.Union, types.UnionType):
            return {"anyOf": [_NULL if member is type(None) else self.of_value(member, {}) for member in arguments]}
        if container is tuple and arguments[-1] is not Ellipsis:
            items = [self.of_value(member, {}) for member in arguments]
            return {"type": "array", "prefixItems": items, "minItems": len(items), "maxItems": len(items)}
        if container in (list, tuple):
            return {"type": "array", "items": self.of_value(arguments[0], {}) if arguments else {}}
        if container is dict:
            return self._of_mapping(*arguments)
        if isinstance(container, type) and issubclass(container, Enum):
            return {"enum": [member.value for member in container]}
        if isinstance(container, type) and attr.has(container):
            return self._defined(container.__qualname__, lambda: self.of_fields(container))
        return {}

    def of_value(self, kind: Any, limits: Schema) -> Schema:
        """Return the schema of a value within limits; numbers may be written as text."""
        arguments = typing.get_args(kind)
        if type(None) in arguments and len(arguments) == 2:
            (kind,) = (member for member in arguments if member is not type(None))
            return {"anyOf": [*_alternatives(self.of_value(kind, limits)), _NULL]}
        if kind in (int, float):
            return {"anyOf": [{**self.of(kind), **limits}, {"$ref": f"#/$defs/{_AS_TEXT}"}]}
        return self.of(kind)

    def _defined(self, name: str, make: Callable[[], Schema]) -> Schema:
        if name not in self.definitions:
            self.definitions[name] = {}  # it may refer to itself
            self.definitions[name] = make()
        return {"$ref": f"#/$defs/{quote(name)}"}

    def _of_mapping(self, key_kind: Any, item_kind: Any) -> Schema:
        if hasattr(key_kind, "to_settings"):
            keys = {key.value: {"anyOf": [self.of(key.to_settings()), _NULL]} for key in key_kind}
            return {"type": "object", "properties": keys, "additionalProperties": False}
        return {"type": "object", "additionalProperties": self.of_value(item_kind, {})}

    def of_fields(self, cls: type, **schemas: Schema) -> Schema:
        """Return the schema of the fields of an attrs class.

        :param schemas: of fields that are not those of their annotations.
        """
        kinds = annotations_of(ensure_attrs_class(cls))
        properties, required = {}, []
        for field in attr.fields(cls):
            if field.init:
                properties[field.alias] = self._of_field(field, kinds.get(field.name, Any), schemas.get(field.name))
                if field.default is attr.NOTHING and not _may_be_inherited(cls):
                    required.append(field.alias)
        schema = {"type": "object" if required else ["object", "null"], "properties": properties}
        if required:
            schema["required"] = required
        summary = (cls.__doc__ or "").partition("\n")[0]
        return {"description": summary, **schema, "additionalProperties": False}

    def _of_field(self, field: attr.Attribute[Any], kind: Any, schema: Schema | None) -> Schema:
        schema = schema if schema is not None else self.of_value(kind, getattr(field.validator, "keywords", {}))
        if is_section(kind) and field.default is not attr.NOTHING:
            schema = {"anyOf": [schema, _NULL]}  # which says nothing
        described = {"description": field.metadata[HELP], **schema} if HELP in field.metadata else schema
        if isinstance(field.default, (bool, int, float, str, Enum)):
            described["default"] = to_plain(field.default)
        return described

    def _of_trainer_settings(self) -> Schema:
        """Return the schema of a behaviour, whose `trainer_type` says which hyperparameters there are."""
        names: Schema = {"anyOf": [{"enum": self._trainer_types}, {"type": "string", "pattern": ":"}]}
        schema = self.of_fields(TrainerSettings, trainer_type=names, hyperparameters={"type": "object"})
        cases = [
            {"if": _says_type(name), "then": {"properties": {"hyperparameters": self._of_hyperparameters(name)}}}
            for name in self._trainer_types
        ]
        return {**schema, "allOf": cases}

    def _of_hyperparameters(self, trainer_type: str) -> Schema:
        cls = get_settings_class(trainer_type)
        return {"anyOf": [self._defined(f"hyperparameters-of-{trainer_type}", lambda: self.of_fields(cls)), _NULL]}

    def _of_behaviors(self) -> Schema:
        return {"type": ["object", "null"], "additionalProperties": self.of(TrainerSettings)}

    def _of_sampler(self) -> Schema:
        """Return the schema of a number, or a sampler's type and parameters."""
        cases = [
            {
                "if": {"properties": {"sampler_type": {"const": kind.value}}},
                "then": {"properties": {"sampler_parameters": {"anyOf": [self.of(kind.to_settings()), _NULL]}}},
            }
            for kind in ParameterRandomizationType
        ]
        sampler = {
            "type": "object",
            "properties": {"sampler_type": self.of(ParameterRandomizationType), "sampler_parameters": {}},
            "required": ["sampler_type"],
            "additionalProperties": False,
            "allOf": cases,
        }
        return {"anyOf": [*_alternatives(self.of_value(float, {})), sampler]}

    def _of_environment_parameter(self) -> Schema:
        lessons = self.of_fields(EnvironmentParameterSettings)
        return {"anyOf": [self.of(ParameterRandomizationSettings), lessons]}

    _special: typing.ClassVar[Dict[Any, Any]] = {
        TrainerSettings: ("behavior", _of_trainer_settings),
        TrainerSettings.DefaultTrainerDict: ("behaviors", _of_behaviors),
        ParameterRandomizationSettings: ("sampler", _of_sampler),
        EnvironmentParameterSettings: ("environment-parameter", _of_environment_parameter),
    }
    """Settings whose form in a file is not simply that of their class, as in `reader`."""


def _says_type(name: str) -> Schema:
    return {"properties": {"trainer_type": {"const": name}}, "required": ["trainer_type"]}


def _alternatives(schema: Schema) -> List[Schema]:
    return list(schema["anyOf"]) if schema.keys() == {"anyOf"} else [schema]


def _may_be_inherited(cls: type) -> bool:
    """Whether what is required of a class may be in `default_settings`, for it is a part of a behaviour's."""
    return not cls.__module__.endswith(".environment_parameters")
