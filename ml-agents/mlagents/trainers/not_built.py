"""What a configuration of ML-Agents 1.1.0 may ask for and is not there yet; each feature built deletes its line."""

from enum import Enum
from typing import Any, Callable, Iterator, List, Mapping, NamedTuple, Sequence, Tuple

import attr

from mlagents.trainers.exception import TrainerConfigError
from mlagents.trainers.settings.places import KeyPath, Places
from mlagents.trainers.settings.run import RunOptions


class _NotBuilt(NamedTuple):
    """A feature, the key of a run's or a behaviour's settings that asks for it, and which values of the key do."""

    feature: str
    key: str
    asks_for_it: Callable[[Any], bool] = bool


TRAINER_TYPES_NOT_BUILT = ("poca",)

_FOR_A_RUN = [
    _NotBuilt(
        "a curriculum of several lessons",
        "environment_parameters.*.curriculum",
        lambda lessons: isinstance(lessons, list) and len(lessons) > 1,
    ),
]

_FOR_A_BEHAVIOR = [
    _NotBuilt("the reward signal gail", "reward_signals.gail"),
    _NotBuilt("the reward signal curiosity", "reward_signals.curiosity"),
    _NotBuilt("the reward signal rnd", "reward_signals.rnd"),
    _NotBuilt("behavioral cloning", "behavioral_cloning"),
    _NotBuilt("self-play", "self_play"),
]


def check(options: RunOptions, places: Places) -> None:
    """Raise `TrainerConfigError`, with a line for each key that asks for what is not there yet.

    :param places: where the keys were set.
    """
    errors = lines(options, places)
    if errors:
        raise TrainerConfigError("\n".join(errors))


def lines(
    options: RunOptions | Mapping[str, Any], places: Places, but_for: Callable[[KeyPath], bool] = lambda path: False
) -> List[str]:
    """Return a line for each key that asks for what is not there yet.

    :param options: as they were read; or as they stand in a file, mistakes and all.
    :param but_for: whether to pass a key over.
    """
    rows = _FOR_A_RUN + [
        row._replace(key=f"{section}.{row.key}")
        for section in ("default_settings", "behaviors.*")
        for row in _FOR_A_BEHAVIOR
    ]
    errors = [
        f"{places.name(path)}: not there yet: {row.feature}. Leave this out."
        for row in rows
        for path, value in _find(options, row.key.split("."))
        if (row.asks_for_it(value) or value == {}) and not but_for(path)
    ]
    return list(dict.fromkeys(errors))


def _find(settings: Any, keys: Sequence[str], path: KeyPath = ()) -> Iterator[Tuple[KeyPath, Any]]:
    """Yield the values that stand at a pattern of keys, ``*`` for any, with their paths."""
    if not keys:
        yield path, settings
    elif isinstance(settings, dict) or attr.has(type(settings)):
        for key, value in (settings if isinstance(settings, dict) else vars(settings)).items():
            name = key.value if isinstance(key, Enum) else key
            if keys[0] in ("*", name):
                yield from _find(value, keys[1:], (*path, name))
