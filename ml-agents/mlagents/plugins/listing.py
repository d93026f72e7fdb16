"""What ``mlagents-learn --list-trainers`` prints."""

from __future__ import annotations

import textwrap
import types
import typing
from enum import Enum
from typing import Any, List, Sequence

import attr

from mlagents.plugins.blame import summarize_broken
from mlagents.plugins.trainer_type import (
    broken_plugins,
    conflicts,
    find_trainer_plugins,
    plugins_that_give,
    registered_names,
)
from mlagents.trainers.settings.fields import help_of
from mlagents.trainers.settings.plain import to_plain
from mlagents.trainers.settings.reader import annotations_of

_INDENT = "  "


def list_trainers() -> str:
    """Describe every installed trainer type, with the settings of its `hyperparameters`, then what is broken."""
    find_trainer_plugins()
    parts = [_trainer(name) for name in registered_names()]
    parts += [f"BROKEN  {plugin}\n{_INDENT}{summarize_broken(plugin)}" for plugin in broken_plugins()]
    parts += [f"BROKEN  {conflict}" for conflict in conflicts()]
    return "\n\n".join(parts)


def _trainer(name: str) -> str:
    (plugin,) = plugins_that_give(name)
    trainer_class, settings_class = (by_name[name] for by_name in plugin.loaded)
    heading = (
        f"{name}  {trainer_class.__module__}.{trainer_class.__qualname__}  ({plugin.distribution} {plugin.version})"
    )
    return f"{heading}\n{textwrap.indent(_table(_setting_rows(settings_class)), _INDENT)}"


def _setting_rows(settings_class: Any) -> List[Sequence[str]]:
    """Return name, type, default and meaning of each setting."""
    kinds = annotations_of(settings_class)
    try:
        defaults = settings_class()
    except Exception:  # of a setting that is required, or whatever the author's code raises
        defaults = None
    return [
        (
            field.alias,
            _type_name(kinds.get(field.name, Any)),
            _default(field, defaults),
            help_of(settings_class, field.name),
        )
        for field in attr.fields(settings_class)
        if field.init
    ]


def _default(field: attr.Attribute[Any], defaults: Any) -> str:
    if field.default is attr.NOTHING:
        return "required"
    if defaults is not None:
        value = getattr(defaults, field.name)
    elif isinstance(field.default, attr.Factory):  # type: ignore[arg-type]  # it is a class, typed as a function
        return "computed"
    else:
        value = field.default
    plain = to_plain(value)
    return "null" if plain is None else str(plain).lower() if isinstance(plain, bool) else str(plain)


def _type_name(kind: Any) -> str:
    """Say what may stand for a value."""
    members = typing.get_args(kind)
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return " or ".join("null" if member is type(None) else _type_name(member) for member in members)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return " or ".join(str(member.value) for member in kind)
    return kind.__name__ if isinstance(kind, type) and not members else str(kind).replace("typing.", "")


def _table(rows: List[Sequence[str]]) -> str:
    widths = [max((len(row[column]) for row in rows), default=0) for column in range(3)]
    lines = ["  ".join([*(cell.ljust(width) for cell, width in zip(row, widths)), row[3]]).rstrip() for row in rows]
    return "\n".join(lines)
