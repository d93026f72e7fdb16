"""What a trainer plug-in gives: checked, or found at ``package.module:Class`` when it is not installed."""

from __future__ import annotations

import inspect
import sys
from typing import Any, Dict, Mapping, Tuple

import attr

from mlagents.plugins.blame import explain_broken, place_of
from mlagents.plugins.discovery import Plugin, PluginError, describe_object_at
from mlagents.trainers.exception import TrainerConfigError
from mlagents.trainers.settings.fields import ensure_attrs_class
from mlagents_envs.object_reference import ObjectReference, ObjectReferenceError

ClassByName = Dict[str, Any]
"""Trainer type name to a class: the trainer's, or that of its settings."""

REGISTRATION_FUNCTION = "get_type_and_setting"
"""The name that the function of a trainer plug-in usually has."""


def ask_trainer_plugin(plugin: Plugin) -> Plugin:
    """Call a plug-in's function; what it `loaded` is then the pair of its mappings, checked, or it has an `error`."""
    if plugin.error is not None:
        return plugin
    try:
        types, settings = _types_and_settings(plugin.loaded)
        return plugin.gave((types, settings), *types.values(), *settings.values())
    except (Exception, SystemExit) as error:  # the function is code of others
        return plugin.failed(error)


def load_trainer_class(trainer_type: str) -> Plugin:
    """Import the trainer class that a trainer type ``package.module:Class`` names, with the class of its settings.

    :returns: as if a plug-in had registered them under this name.
    :raises TrainerConfigError: there is no such class, it is no trainer, or its module fails.
    """
    plugin = describe_object_at(trainer_type)
    reference = ObjectReference.parse(trainer_type)
    if reference is None:
        raise TrainerConfigError(
            f"{trainer_type!r} is no trainer type. Write package.module:Class, with the dotted name of a module (not a "
            "path) and, after the colon, the name of the trainer's class in it."
        )
    try:
        trainer_class = reference.load("class")
        _check_trainer_class(trainer_type, trainer_class)
        settings_class = _settings_class_of(trainer_class)
        _check_settings_class(trainer_type, settings_class)
    except (ObjectReferenceError, PluginError) as error:
        raise TrainerConfigError(f"{trainer_type}: {error}") from None
    except TrainerConfigError:
        raise  # the author's own words
    except (Exception, SystemExit) as error:
        raise TrainerConfigError(explain_broken(plugin.failed(error))) from error
    return plugin.gave(({trainer_type: trainer_class}, {trainer_type: settings_class}), trainer_class, settings_class)


def _types_and_settings(function: Any) -> Tuple[ClassByName, ClassByName]:
    """Return what a plug-in's function gives. Raises `PluginError` when that is not what it has to be."""
    answer = function()
    is_pair = isinstance(answer, tuple) and len(answer) == 2 and all(isinstance(part, Mapping) for part in answer)
    if not is_pair:
        raise PluginError(
            f"it returned {answer!r} instead of ({{name: trainer class}}, {{name: settings class}}){_at(function)}"
        )
    types, settings = dict(answer[0]), dict(answer[1])
    if types.keys() != settings.keys():
        raise PluginError(f"it gives trainers for {sorted(types)}, but settings for {sorted(settings)}{_at(function)}")
    for name in types:
        _check_trainer_class(name, types[name])
        _check_settings_class(name, settings[name])
    return types, settings


def _check_trainer_class(name: str, trainer_class: Any) -> None:
    from mlagents.trainers.trainer import Trainer  # imports torch, which reading settings need not

    if not isinstance(trainer_class, type) or not issubclass(trainer_class, Trainer):
        raise PluginError(
            f"the trainer of {name}, {trainer_class!r}, is not a subclass of mlagents.trainers.trainer.Trainer"
            + _at(trainer_class)
        )
    if inspect.isabstract(trainer_class):
        missing = ", ".join(sorted(trainer_class.__abstractmethods__))
        raise PluginError(
            f"the trainer of {name}, {trainer_class.__qualname__}, lacks methods that every trainer of its kind has to "
            f"define: {missing}{_at(trainer_class)}"
        )


def _check_settings_class(name: str, settings_class: Any) -> None:
    if not isinstance(settings_class, type) or not attr.has(settings_class):
        raise PluginError(
            f"the settings of {name}, {settings_class!r}, are not a subclass of HyperparamSettings{_at(settings_class)}"
        )
    ensure_attrs_class(settings_class)


def _settings_class_of(trainer_class: Any) -> Any:
    """Return the class of a trainer's settings: what its module would register, else what the class itself says."""
    register = getattr(sys.modules.get(trainer_class.__module__), REGISTRATION_FUNCTION, None)
    if callable(register):
        types, settings = _types_and_settings(register)
        for name, registered_class in types.items():
            if registered_class is trainer_class:
                return settings[name]
    get_settings_type = getattr(trainer_class, "get_settings_type", None)
    if get_settings_type is None:
        raise PluginError(
            f"{trainer_class.__qualname__} has no static method get_settings_type; let it return the class of the "
            f"trainer's hyperparameters{_at(trainer_class)}"
        )
    return get_settings_type()


def _at(thing: Any) -> str:
    place = place_of(thing)
    return f" ({place})" if place else ""
