"""From plain data, as a YAML file holds it, to settings; every mistake is reported with its key path and its place."""

import copy
import types
import typing
from enum import Enum
from typing import Any, Callable, ClassVar, Dict, Iterable, List, Mapping, Optional, Sequence, Set, Type

import attr

from mlagents.plugins.trainer_type import get_settings_class
from mlagents.trainers import not_built
from mlagents.trainers.exception import TrainerConfigError
from mlagents.trainers.settings.environment_parameters import (
    ConstantSettings,
    EnvironmentParameterSettings,
    Lesson,
    ParameterRandomizationSettings,
    ParameterRandomizationType,
)
from mlagents.trainers.settings.fields import HELP, Range, SettingValueError, ensure_attrs_class
from mlagents.trainers.settings.places import KeyPath, Places
from mlagents.trainers.settings.reward_signals import RewardSignalType
from mlagents.trainers.settings.run import RunOptions
from mlagents.trainers.settings.scalars import SCALARS, describe
from mlagents.trainers.settings.trainer import TrainerSettings
from mlagents_envs.spelling import did_you_mean

NULLABLE_SECTIONS = ("memory", "self_play", "behavioral_cloning", "evaluation")
"""Sections for which null says "none"; any other section that is null says nothing and takes what it has by default."""


def read_run_options(options: Mapping[str, Any], places: Optional[Places] = None) -> RunOptions:
    """Read the options of a run; `default_settings` go under those of every behaviour.

    :param places: where the keys were set, for error messages.
    Raises `TrainerConfigError` with one line for each mistake.
    """
    places = places or Places()
    if not isinstance(options, Mapping):
        raise TrainerConfigError(f"{places.name(()) or 'the options'}: expected a mapping, found {describe(options)}")
    reader = _Reader(places)
    run_options: RunOptions = reader.read(_with_defaults(options, places), RunOptions, ())
    if reader.errors:

        def is_reported(path: KeyPath) -> bool:
            key, section = ".".join(path), ".".join(path[:-1])
            return any(key in error or f"{section}:" in error for error in reader.errors)

        missing = not_built.lines(options, places, but_for=is_reported)
        raise TrainerConfigError("\n".join(dict.fromkeys([*reader.errors, *missing])))
    not_built.check(run_options, places)
    return run_options


def _with_defaults(options: Mapping[str, Any], places: Places) -> Dict[str, Any]:
    """Put `default_settings` under every entry of `behaviors`."""
    merged = dict(options)
    defaults, behaviors = merged.get("default_settings"), merged.get("behaviors")
    if isinstance(defaults, Mapping) and isinstance(behaviors, Mapping):
        merged["behaviors"] = {name: _merged(_defaults_for(own, defaults), own) for name, own in behaviors.items()}
        for name in behaviors:
            places.inherit(("default_settings",), ("behaviors", str(name)))
    return merged


def _defaults_for(behavior: Any, defaults: Mapping[str, Any]) -> Dict[str, Any]:
    """Return the `default_settings` that a behaviour inherits.

    Reward signals add up, the extrinsic one that is there by default included. Hyperparameters that the behaviour's
    trainer type does not have are left out.
    """
    inherited = dict(defaults)
    if inherited.get("reward_signals") is None:
        inherited["reward_signals"] = {RewardSignalType.EXTRINSIC.value: {}}
    hyperparameters, trainer_type = inherited.get("hyperparameters"), defaults.get("trainer_type")
    own_type = behavior.get("trainer_type", trainer_type) if isinstance(behavior, Mapping) else trainer_type
    if isinstance(hyperparameters, Mapping) and own_type != trainer_type:
        known = _settings_keys(own_type)
        inherited["hyperparameters"] = {key: value for key, value in hyperparameters.items() if key in known}
    return inherited


def _settings_keys(trainer_type: Any) -> Set[str]:
    try:
        return {field.alias for field in attr.fields(get_settings_class(str(trainer_type)))}
    except TrainerConfigError:  # reported when the behaviour is read
        return set()


def _merged(under: Any, over: Any) -> Any:
    """Put one mapping over another, deeply; anything else replaces what is under it."""
    if not isinstance(under, Mapping):
        return over
    if over is None:
        return under
    if not isinstance(over, Mapping):
        return over
    merged = {}
    for key, value in over.items():
        replaces = key not in under or (value is None and key in NULLABLE_SECTIONS)
        merged[key] = value if replaces else _merged(under[key], value)
    return {**merged, **{key: value for key, value in under.items() if key not in merged}}


class _Reader:
    """Reads values by the types that they are meant for.

    A mistake is noted in `errors` and the value read as None, so that one pass finds them all; what was read counts
    only if there are none.
    """

    def __init__(self, places: Places):
        self.errors: List[str] = []
        self._places = places

    def read(self, value: Any, kind: Any, path: KeyPath) -> Any:
        """Read a value as the type annotation `kind` says; what no rule knows is taken as it is."""
        container, arguments = typing.get_origin(kind) or kind, typing.get_args(kind)
        if container in SCALARS:
            return self._read_scalar(value, container, path)
        if container in self._special:
            return self._special[container](self, value, path)
        if container in (typing.Union, types.UnionType):
            return self._read_union(value, arguments, path)
        if container in (list, tuple):
            return self._read_list(value, container, arguments, path)
        if container is dict:
            return self._read_dict(value, arguments, path)
        if isinstance(container, type) and issubclass(container, Enum):
            return self._read_enum(value, container, path)
        if isinstance(container, type) and attr.has(container):
            return self._read_class(value, container, path)
        return copy.deepcopy(value)

    def _fail(self, path: KeyPath, problem: str) -> None:
        self.errors.append(f"{self._places.name(path)}: {problem}")

    def _fail_unknown(self, path: KeyPath, allowed: Iterable[str]) -> None:
        names = list(allowed)
        self._fail(path, f"unknown key.{did_you_mean(path[-1], names)} Allowed: {', '.join(names)}.")

    def _read_scalar(self, value: Any, kind: type, path: KeyPath) -> Any:
        try:
            return SCALARS[kind](value)
        except ValueError as error:
            return self._fail(path, str(error))

    def _read_enum(self, value: Any, kind: Type[Enum], path: KeyPath) -> Any:
        names = {str(member.value): member for member in kind}
        if str(value) in names:
            return names[str(value)]
        hint = did_you_mean(str(value), names)
        return self._fail(path, f"{describe(value)} is not allowed.{hint} Allowed: {', '.join(names)}.")

    def _read_union(self, value: Any, kinds: Sequence[Any], path: KeyPath) -> Any:
        """Read what fits the first of several types; the errors are those of the first type."""
        if value is None and type(None) in kinds:
            return None
        errors: List[str] = []
        for kind in (kind for kind in kinds if kind is not type(None)):
            attempt = _Reader(self._places)
            read = attempt.read(value, kind, path)
            if not attempt.errors:
                return read
            errors = errors or attempt.errors
        self.errors += errors
        return None

    def _read_list(self, value: Any, container: type, kinds: Sequence[Any], path: KeyPath) -> Any:
        if not isinstance(value, (list, tuple)):
            return self._fail(path, f"expected a list, found {describe(value)}.")
        is_pair = container is tuple and kinds and kinds[-1] is not Ellipsis
        if is_pair and len(value) != len(kinds):
            return self._fail(path, f"expected a list of {len(kinds)} entries, found {describe(value)}.")
        item_kinds = kinds if is_pair else [kinds[0] if kinds else Any] * len(value)
        items = zip(value, item_kinds)
        return container(self.read(item, kind, (*path, f"[{i}]")) for i, (item, kind) in enumerate(items))

    def _read_dict(self, value: Any, kinds: Sequence[Any], path: KeyPath) -> Any:
        """Read a mapping; keys of an enum whose members know `to_settings` say the types of their values by it."""
        if not self._is_mapping(value, path):
            return None
        key_kind, item_kind = kinds or (Any, Any)
        read = {}
        for key, item in (value or {}).items():
            item_path = (*path, str(key))
            read_key = self.read(key, key_kind, item_path)
            to_settings = getattr(read_key, "to_settings", None)
            read[read_key] = self.read(item, to_settings() if to_settings else item_kind, item_path)
        return read

    def _is_mapping(self, value: Any, path: KeyPath) -> bool:
        """Note an error unless a section is a mapping, or null, which is an empty one."""
        if value is None or isinstance(value, Mapping):
            return True
        self._fail(path, f"expected a mapping of keys to values, found {describe(value)}.")
        return False

    def _read_class(self, value: Any, cls: type, path: KeyPath, **kinds: Any) -> Any:
        """Read a mapping as the fields of an attrs class.

        :param kinds: types of fields that are not those of their annotations.
        """
        if not self._is_mapping(value, path):
            return None
        fields = {field.alias: field for field in attr.fields(ensure_attrs_class(cls)) if field.init}
        kinds = {**annotations_of(cls), **kinds}
        before = len(self.errors)
        given = {}
        for key, item in (value or {}).items():
            if key not in fields:
                self._fail_unknown((*path, str(key)), fields)
                continue
            kind = kinds.get(fields[key].name, Any)
            if item is not None or not is_section(kind):
                given[key] = self.read(item, kind, (*path, key))
                self._check_range(fields[key], given[key], (*path, key))
        for key, field in fields.items():
            if field.default is attr.NOTHING and key not in given:
                self._fail(path, f"{key} is missing. {field.metadata.get(HELP, '')}".rstrip())
        return self._construct(cls, given, path) if len(self.errors) == before else None

    def _check_range(self, field: "attr.Attribute[Any]", value: Any, path: KeyPath) -> None:
        """Note a number out of its range at once: with other mistakes, the settings object is never made."""
        if isinstance(field.validator, Range) and isinstance(value, (int, float)):
            try:
                field.validator(None, field, value)
            except SettingValueError as error:
                self._fail(path, f"{error.problem}.")

    def _construct(self, cls: type, given: Dict[str, Any], path: KeyPath) -> Any:
        """Make the settings object, whose validators have the last word."""
        try:
            return cls(**given)
        except SettingValueError as error:
            return self._fail((*path, error.field), f"{error.problem}.")
        except (TrainerConfigError, ValueError, TypeError) as error:  # of a plug-in's validator
            return self._fail(path, str(error.args[0] if error.args else error))

    def _read_trainer_settings(self, value: Any, path: KeyPath) -> Any:
        trainer_type = value.get("trainer_type") if isinstance(value, Mapping) else None
        try:
            settings_class = get_settings_class(str(trainer_type or attr.fields(TrainerSettings).trainer_type.default))
        except TrainerConfigError as error:
            return self._fail((*path, "trainer_type"), str(error))
        return self._read_class(value, TrainerSettings, path, hyperparameters=settings_class)

    def _read_behaviors(self, value: Any, path: KeyPath) -> Any:
        return TrainerSettings.DefaultTrainerDict(self._read_dict(value, (str, TrainerSettings), path) or {})

    def _read_sampler(self, value: Any, path: KeyPath) -> Any:
        """Read a number, or a sampler's type and parameters."""
        if not isinstance(value, Mapping):
            number = self._read_scalar(value, float, path)
            return None if number is None else self._construct(ConstantSettings, {"value": number}, path)
        for key in value:
            if key not in _SAMPLER_KEYS:
                self._fail_unknown((*path, str(key)), _SAMPLER_KEYS)
        if "sampler_type" not in value:
            return self._fail(path, "sampler_type is missing.")
        kind = self._read_enum(value["sampler_type"], ParameterRandomizationType, (*path, "sampler_type"))
        if kind is None:
            return None
        return self._read_class(value.get("sampler_parameters"), kind.to_settings(), (*path, "sampler_parameters"))

    def _read_environment_parameter(self, value: Any, path: KeyPath) -> Any:
        """Read a curriculum; a number or a sampler is one of a single lesson, named like the parameter."""
        if isinstance(value, Mapping) and "sampler_type" not in value:
            return self._read_class(value, EnvironmentParameterSettings, path)
        before = len(self.errors)
        sampler = self._read_sampler(value, path)
        if len(self.errors) > before:
            return None
        return EnvironmentParameterSettings([Lesson(value=sampler, name=path[-1])])

    _special: ClassVar[Dict[Any, Callable[["_Reader", Any, KeyPath], Any]]] = {
        TrainerSettings: _read_trainer_settings,
        TrainerSettings.DefaultTrainerDict: _read_behaviors,
        ParameterRandomizationSettings: _read_sampler,
        EnvironmentParameterSettings: _read_environment_parameter,
    }
    """Settings whose form in a file is not simply that of their class."""


_SAMPLER_KEYS = ("sampler_type", "sampler_parameters")


def annotations_of(cls: type) -> Dict[str, Any]:
    """Return the types of a class's fields by name, unresolved where they cannot be resolved."""
    try:
        return typing.get_type_hints(cls)
    except NameError:  # a plug-in's annotation that exists for type checkers alone
        return {field.name: field.type for field in attr.fields(cls)}


def is_section(kind: Any) -> bool:
    """Whether null, in the place of such a value, means that nothing was said."""
    container = typing.get_origin(kind) or kind
    return isinstance(container, type) and (attr.has(container) or issubclass(container, (dict, list, tuple)))
