"""References to Python objects as users write them in commands and configurations: ``package.module:name``."""

from __future__ import annotations

import importlib
import os
import pkgutil
import sys
from dataclasses import dataclass
from typing import Any, Callable, List, Optional

from mlagents_envs.spelling import did_you_mean


class ObjectReferenceError(Exception):
    """What a reference names is not there; the message says what is missing, and what is near."""


@dataclass(frozen=True)
class ObjectReference:
    """A function or class of the user's own.

    :param module: dotted name, importable from the current folder as well.
    :param attribute: its name in the module.
    """

    module: str
    attribute: str

    @classmethod
    def parse(cls, text: str) -> Optional[ObjectReference]:
        """Read ``package.module:name``; None if that is not what the text is."""
        module, _, attribute = text.partition(":")
        if not all(name.isidentifier() for name in (*module.split("."), attribute)):
            return None
        return cls(module, attribute)

    def __str__(self) -> str:
        return f"{self.module}:{self.attribute}"

    def load(self, kind: str = "function or class") -> Callable[..., Any]:
        """Import the object. What the user's module raises comes through with its traceback.

        :param kind: what it should be, for messages.
        :raises ObjectReferenceError: there is no such module, or nothing in it that can be called by that name.
        """
        if "" not in sys.path and os.getcwd() not in sys.path:
            sys.path.insert(0, os.getcwd())  # as `python -m` does, and a console command does not
        try:
            module = importlib.import_module(self.module)
        except ModuleNotFoundError as error:
            missing = error.name or ""
            if not f"{self.module}.".startswith(f"{missing}."):
                raise  # something that the module itself imports
            raise ObjectReferenceError(
                f"there is no module {missing!r} in {os.getcwd()} or in what is installed."
                + did_you_mean(missing, _siblings_of(missing))
            ) from None
        found: Optional[Callable[..., Any]] = getattr(module, self.attribute, None)
        if not callable(found):
            callables = [name for name, value in vars(module).items() if callable(value)]
            fault = "there is none" if found is None else f"it is an object of type {type(found).__name__}"
            raise ObjectReferenceError(
                f"{self.attribute!r} has to be a {kind} of the module {self.module!r}, and {fault}."
                + did_you_mean(self.attribute, callables)
            )
        return found


def _siblings_of(module: str) -> List[str]:
    """Return the full names of the modules beside `module`, whether it exists or not."""
    parent, dot, _ = module.rpartition(".")
    path = getattr(sys.modules.get(parent), "__path__", []) if parent else None
    return [parent + dot + found.name for found in pkgutil.iter_modules(path)]
