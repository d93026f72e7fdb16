"""The trainer types: our own and those of plug-ins, all registered in the same way."""

from typing import Any, List, Tuple

from mlagents.plugins import ML_AGENTS_TRAINER_TYPE, all_trainer_settings, all_trainer_types
from mlagents.plugins.blame import explain_broken, warn_of_broken
from mlagents.plugins.discovery import Plugin, load_plugins
from mlagents.plugins.trainer_classes import ClassByName, ask_trainer_plugin, load_trainer_class
from mlagents.trainers.exception import TrainerConfigError
from mlagents.trainers.not_built import TRAINER_TYPES_NOT_BUILT
from mlagents.trainers.settings.fields import ensure_attrs_class
from mlagents_envs.logging_util import get_logger
from mlagents_envs.spelling import did_you_mean

logger = get_logger(__name__)

_plugins: List[Plugin] = []
"""All trainer plug-ins, as of the last registration, and trainers named by ``package.module:Class``."""


def get_default_trainer_types() -> Tuple[ClassByName, ClassByName]:
    """Return the trainers that come with ML-Agents and the classes of their `hyperparameters`, by trainer type."""
    # They import torch, which reading plug-ins need not.
    from mlagents.trainers.ppo.trainer import PPOTrainer
    from mlagents.trainers.sac.trainer import SACTrainer

    trainers = {trainer.get_trainer_name(): trainer for trainer in (PPOTrainer, SACTrainer)}
    return dict(trainers), {name: trainer.get_settings_type() for name, trainer in trainers.items()}


def register_trainer_plugins() -> Tuple[ClassByName, ClassByName]:
    """Fill `mlagents.plugins.all_trainer_types` and `all_trainer_settings` from the installed plug-ins; return both.

    A broken plug-in is warned of and left out, and so is a trainer type that two plug-ins give: neither has more right
    to its name.
    """
    find_trainer_plugins()
    for plugin in broken_plugins():
        warn_of_broken(plugin)
    for conflict in conflicts():
        logger.warning(conflict)
    return all_trainer_types, all_trainer_settings


def find_trainer_plugins() -> None:
    """Do what `register_trainer_plugins` does, without the warnings."""
    named = [plugin for plugin in _plugins if plugin.distribution is None]
    _plugins[:] = [*map(ask_trainer_plugin, load_plugins(ML_AGENTS_TRAINER_TYPE)), *named]
    for name in _given_names():
        givers = plugins_that_give(name)
        if len(givers) == 1:
            all_trainer_types[name], all_trainer_settings[name] = (by_name[name] for by_name in givers[0].loaded)
        else:
            all_trainer_types.pop(name, None)
            all_trainer_settings.pop(name, None)


def usable_plugins() -> List[Plugin]:
    """Return the trainer plug-ins that have been registered; what they `loaded` is the pair of their mappings."""
    return [plugin for plugin in _plugins if plugin.error is None]


def broken_plugins() -> List[Plugin]:
    """Return the trainer plug-ins that cannot be used, each with its `error`."""
    return [plugin for plugin in _plugins if plugin.error is not None]


def plugins_that_give(trainer_type: str) -> List[Plugin]:
    """Return the plug-ins that give a trainer type: one if it can be used."""
    return [plugin for plugin in usable_plugins() if trainer_type in plugin.loaded[0]]


def registered_names() -> List[str]:
    """Return the trainer types that can be used, in the order of the distributions that give them."""
    return [name for name in _given_names() if len(plugins_that_give(name)) == 1]


def conflicts() -> List[str]:
    """Return a message for each trainer type that several plug-ins give."""
    return [_conflict(name) for name in _given_names() if len(plugins_that_give(name)) > 1]


def get_trainer_class(trainer_type: str) -> Any:
    """Return the class of a trainer type's trainers; otherwise as `get_settings_class`."""
    _ensure_registered(trainer_type)
    return all_trainer_types[trainer_type]


def get_settings_class(trainer_type: str) -> type:
    """Return the class of a trainer type's `hyperparameters`, registering the plug-ins if that has not been done.

    :param trainer_type: a registered name, or ``package.module:Class`` for a trainer that no plug-in registers.
    :raises TrainerConfigError: there is no such trainer type, or it cannot be used.
    """
    _ensure_registered(trainer_type)
    return ensure_attrs_class(all_trainer_settings[trainer_type])


def _ensure_registered(trainer_type: str) -> None:
    if trainer_type in all_trainer_settings:
        return
    if ":" in trainer_type:
        plugin = load_trainer_class(trainer_type)
        _plugins.append(plugin)
        all_trainer_types[trainer_type], all_trainer_settings[trainer_type] = (
            by_name[trainer_type] for by_name in plugin.loaded
        )
        return
    if not any(plugin.distribution for plugin in _plugins):
        register_trainer_plugins()
    if trainer_type not in all_trainer_settings:
        several = len(plugins_that_give(trainer_type)) > 1
        raise TrainerConfigError(_conflict(trainer_type) if several else _unknown_trainer_type(trainer_type))


def _given_names() -> List[str]:
    return list(dict.fromkeys(name for plugin in usable_plugins() for name in plugin.loaded[0]))


def _conflict(trainer_type: str) -> str:
    givers = " and by ".join(f"the plug-in {plugin}" for plugin in plugins_that_give(trainer_type))
    return f"The trainer type {trainer_type} cannot be used, for it is given by {givers}. Uninstall all but one."


def _unknown_trainer_type(trainer_type: str) -> str:
    message = f"Invalid trainer type {trainer_type} was found."
    if trainer_type in TRAINER_TYPES_NOT_BUILT:
        message += f" {trainer_type} is not there yet."
    message += did_you_mean(trainer_type, all_trainer_settings)
    message += f" Installed: {', '.join(sorted(all_trainer_settings)) or 'none'}."
    if "." in trainer_type:
        message += " A trainer that is not installed is named by package.module:Class."
    for plugin in broken_plugins():
        message += f"\nInstalled, but not to be used: {explain_broken(plugin)}"
    return message
