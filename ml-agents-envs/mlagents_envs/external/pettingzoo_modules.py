"""From the text ``pettingzoo:MODULE`` to what makes that environment."""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
import re
from collections.abc import Callable, Mapping
from functools import partial
from types import ModuleType
from typing import Any

from mlagents_envs.exception import UnityEnvironmentException
from mlagents_envs.external.pettingzoo_env import AnyPettingZooEnv
from mlagents_envs.spelling import did_you_mean

_FACTORIES = ("parallel_env", "env", "raw_env")
"""What PettingZoo's modules call what makes their environment; of several the first is taken."""


def find_factory(module: str, arguments: Mapping[str, Any]) -> Callable[[], AnyPettingZooEnv]:
    """Return what makes an environment: the module's ``parallel_env``, or ``env`` where the game is played in turns.

    :param module: the dotted name of a module, ``mpe2.simple_spread_v3``; ``pettingzoo.`` may be left out, and dots may
        be slashes: ``classic/connect_four_v3``.
    :param arguments: of the environment's constructor.
    :raises UnityEnvironmentException: there is no such module, or nothing in it makes an environment.
    """
    found = _import(module)
    for name in _FACTORIES:
        factory = getattr(found, name, None)
        if callable(factory):
            return partial(_make, module, factory, dict(arguments))
    raise UnityEnvironmentException(
        f"--env pettingzoo:{module}: the module {found.__name__} has none of {', '.join(_FACTORIES)}, so it is no "
        f"environment of PettingZoo's.{_nearest(found.__name__)}"
    )


def _make(module: str, factory: Callable[..., AnyPettingZooEnv], arguments: Mapping[str, Any]) -> AnyPettingZooEnv:
    try:
        return factory(**arguments)
    except ImportError as error:
        raise UnityEnvironmentException(f"--env pettingzoo:{module}: it cannot be made: {error}") from error
    except Exception as error:  # whatever a constructor raises of arguments that it does not like
        if not arguments:
            raise
        raise UnityEnvironmentException(
            f"--env pettingzoo:{module}: it cannot be made with {', '.join(arguments)}: {error}"
        ) from error


def _import(module: str) -> ModuleType:
    dotted = module.replace("/", ".")
    name = next((name for name in (dotted, f"pettingzoo.{dotted}") if _is_there(name)), None)
    if name is None:
        raise UnityEnvironmentException(
            f"--env pettingzoo:{module}: there is no module of that name.{_nearest(dotted)} Write pettingzoo:MODULE "
            "with the dotted name of a module that makes an environment, such as pettingzoo:classic.connect_four_v3."
        )
    try:
        return importlib.import_module(name)
    except ImportError as error:
        family = name.split(".")[1] if name.startswith("pettingzoo.") else ""
        hint = f' It may come with pip install "pettingzoo[{family}]".' if family else ""
        raise UnityEnvironmentException(f"--env pettingzoo:{module}: it cannot be imported: {error}.{hint}") from error


def _is_there(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):  # a parent that is not there, or no name at all
        return False


def _nearest(dotted: str) -> str:
    """Return a question for the environment of PettingZoo's of the nearest name; an empty text where none is near."""
    family, _, last = dotted.removeprefix("pettingzoo.").rpartition(".")
    package = f"pettingzoo.{family}"
    spec = importlib.util.find_spec(package) if family and _is_there(package) else None
    modules = pkgutil.iter_modules(spec.submodule_search_locations or ()) if spec is not None else ()
    return did_you_mean(last, [found.name for found in modules if re.search(r"_v\d+$", found.name)])
