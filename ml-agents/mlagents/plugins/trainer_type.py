"""The trainer types: our own and those of plug-ins, all registered in the same way."""

from dataclasses import replace
from typing import Any, Dict, List, Mapping, Tuple

import attr

from mlagents.plugins import ML_AGENTS_TRAINER_TYPE, all_trainer_settings, all_trainer_types
from mlagents.plugins.discovery import Plugin, load_plugins
from mlagents.trainers.exception import TrainerConfigError
from mlagents.trainers.not_built import TRAINER_TYPES_NOT_BUILT
from mlagents.trainers.settings.fields import ensure_attrs_class
from mlagents_envs.logging_util import get_logger
from mlagents_envs.spelling import did_you_mean

logger = get_logger(__name__)

ClassByName = Dict[str, Any]
"""Trainer type name to a class: the trainer's, or that of its settings."""

_problems: List[str] = []
"""Why trainer types that are installed cannot be used, as of the last registration."""


def get_default_trainer_types() -> Tuple[ClassByName, ClassByName]:
    """Return the trainers that come with ML-Agents and the classes of their `hyperparameters`, by trainer type."""
    from mlagents.trainers.ppo.trainer import PPOSettings, PPOTrainer  # imports torch, which reading plug-ins need not

    name = PPOTrainer.get_trainer_name()
    return {name: PPOTrainer}, {name: PPOSettings}


def register_trainer_plugins() -> Tuple[ClassByName, ClassByName]:
    """Fill `mlagents.plugins.all_trainer_types` and `all_trainer_settings` from the installed plug-ins; return both.

    A broken plug-in is warned of and left out, and so is a trainer type that two plug-ins give: neither has more right
    to its name.
    """
    _problems.clear()
    givers: Dict[str, List[Plugin]] = {}
    for plugin in map(_ask, load_plugins(ML_AGENTS_TRAINER_TYPE)):
        if plugin.error is not None:
            _problems.append(f"{plugin}: {type(plugin.error).__name__}: {plugin.error}")
            continue
        for name in plugin.loaded[0]:
            givers.setdefault(name, []).append(plugin)
    for name, plugins in givers.items():
        if len(plugins) > 1:
            _problems.append(f"trainer type {name} is given by {' and by '.join(map(str, plugins))}; uninstall one")
            logger.warning(f"A trainer type cannot be used: {_problems[-1]}.")
            continue
        all_trainer_types[name], all_trainer_settings[name] = (by_name[name] for by_name in plugins[0].loaded)
    return all_trainer_types, all_trainer_settings


def get_settings_class(trainer_type: str) -> type:
    """Return the class of a trainer type's `hyperparameters`, registering the plug-ins if that has not been done.

    Raises `TrainerConfigError` for a trainer type that is not there.
    """
    if trainer_type not in all_trainer_settings and not _problems:
        register_trainer_plugins()
    if trainer_type not in all_trainer_settings:
        raise TrainerConfigError(_unknown_trainer_type(trainer_type))
    return ensure_attrs_class(all_trainer_settings[trainer_type])


def _ask(plugin: Plugin) -> Plugin:
    """Call a plug-in's function; what it `loaded` is then the pair of its mappings."""
    if plugin.error is not None:
        return plugin.broken(plugin.error)
    try:
        return replace(plugin, loaded=_types_and_settings(plugin.loaded))
    except Exception as error:  # the function is code of others
        return plugin.broken(error)


def _types_and_settings(function: Any) -> Tuple[ClassByName, ClassByName]:
    answer = function()
    is_pair = isinstance(answer, tuple) and len(answer) == 2 and all(isinstance(part, Mapping) for part in answer)
    if not is_pair:
        raise TypeError(f"it returned {answer!r} instead of ({{name: trainer class}}, {{name: settings class}})")
    types, settings = dict(answer[0]), dict(answer[1])
    if types.keys() != settings.keys():
        raise ValueError(f"it gives trainers for {sorted(types)}, but settings for {sorted(settings)}")
    for name, settings_class in settings.items():
        if not isinstance(settings_class, type) or not attr.has(settings_class):
            raise TypeError(f"the settings of {name}, {settings_class!r}, are not a subclass of HyperparamSettings")
        ensure_attrs_class(settings_class)
    return types, settings


def _unknown_trainer_type(trainer_type: str) -> str:
    message = f"Invalid trainer type {trainer_type} was found."
    if trainer_type in TRAINER_TYPES_NOT_BUILT:
        message += f" {trainer_type} is not there yet."
    message += did_you_mean(trainer_type, all_trainer_settings)
    message += f" Installed: {', '.join(sorted(all_trainer_settings)) or 'none'}."
    return message + "".join(f" Installed, but not to be used: {problem}." for problem in _problems)
