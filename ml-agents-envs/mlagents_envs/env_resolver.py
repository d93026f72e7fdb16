"""From the text after ``--env`` to an environment."""

from __future__ import annotations

import inspect
import os
import sys
from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Optional, Protocol

from mlagents_envs.base_env import BaseEnv
from mlagents_envs.exception import UnityEnvironmentException
from mlagents_envs.object_reference import ObjectReference, ObjectReferenceError
from mlagents_envs.registry import default_registry
from mlagents_envs.side_channel.side_channel import SideChannel
from mlagents_envs.spelling import did_you_mean

_MODULE_SCHEME = "module:"
_MODULE_SYNTAX = "module:package.module:factory"
_FUTURE_SCHEMES = {"gym:": "Gymnasium", "pettingzoo:": "PettingZoo"}
_EXECUTABLE_SUFFIXES = {"darwin": (".app",), "win32": (".exe",)}.get(sys.platform, (".x86_64", ".x86"))


class EnvSource(Protocol):
    """Where environments of one kind come from. It can be pickled, so that a worker may make its own."""

    @property
    def name(self) -> str:
        """What the user wrote, for messages."""

    def make(self, *, worker_id: int, seed: int, num_areas: int, side_channels: List[SideChannel]) -> BaseEnv:
        """Make an environment.

        :raises UnityEnvironmentException: it cannot be made.
        """


@dataclass(frozen=True)
class RegisteredSource:
    """An environment of the default registry."""

    name: str

    def make(self, *, worker_id: int, seed: int, num_areas: int, side_channels: List[SideChannel]) -> BaseEnv:
        """See `EnvSource`."""
        return default_registry[self.name].make(
            worker_id=worker_id, seed=seed, num_areas=num_areas, side_channels=side_channels
        )


@dataclass(frozen=True)
class ModuleSource:
    """A function or class of the user's own that makes a `BaseEnv`."""

    reference: ObjectReference

    @property
    def name(self) -> str:
        """What the user wrote, for messages."""
        return f"{_MODULE_SCHEME}{self.reference}"

    def load(self) -> Callable[..., Any]:
        """Import the factory. What the user's module raises comes through with its traceback.

        :raises UnityEnvironmentException: there is no such module, or no such callable in it.
        """
        try:
            return self.reference.load()
        except ObjectReferenceError as error:
            raise UnityEnvironmentException(f"--env {self.name}: {error}") from None

    def make(self, *, worker_id: int, seed: int, num_areas: int, side_channels: List[SideChannel]) -> BaseEnv:
        """Call the factory with those of the arguments that it takes; see `EnvSource`."""
        factory = self.load()
        offered = {"worker_id": worker_id, "seed": seed, "num_areas": num_areas, "side_channels": side_channels}
        env = factory(**self._accepted(factory, offered))
        if not isinstance(env, BaseEnv):
            kind = type(env)
            raise UnityEnvironmentException(
                f"--env {self.name}: the factory returned an object of type {kind.__module__}.{kind.__qualname__}, "
                "which is not a BaseEnv (mlagents_envs.base_env.BaseEnv)."
            )
        return env

    def _accepted(self, factory: Callable[..., Any], offered: Dict[str, Any]) -> Dict[str, Any]:
        """Return what of `offered` the factory's signature takes."""
        signature = inspect.signature(factory)
        parameters = signature.parameters.values()
        accepted = offered
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            by_keyword = {p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)}
            accepted = {name: value for name, value in offered.items() if name in by_keyword}
        try:
            signature.bind(**accepted)
        except TypeError as error:
            raise UnityEnvironmentException(
                f"--env {self.name}: the factory cannot be called, {error}. It may take any of "
                f"{', '.join(offered)}; everything else needs a default."
            ) from None
        return accepted


def resolve_env(env: Optional[str]) -> EnvSource:
    """Return what ``--env`` stands for; a file wins over a name.

    :param env: the text after ``--env``, None when it was not given.
    :raises UnityEnvironmentException: there is no such environment, or its kind is not supported yet; the message
        lists what works.
    """
    if env is None:
        raise _not_there_yet("Training without --env, with the Unity Editor,")
    executables = [env + suffix for suffix in ("", *_EXECUTABLE_SUFFIXES)]
    if os.path.isfile(env) or any(os.path.exists(path) for path in executables[1:]):
        raise _not_there_yet(f"--env {env}: running a Unity executable")
    if env in default_registry:
        return RegisteredSource(env)
    if env.startswith(_MODULE_SCHEME):
        return _module_source(env)
    for scheme, library in _FUTURE_SCHEMES.items():
        if env.startswith(scheme):
            raise _not_there_yet(f"--env {env}: running an environment of {library}")
    kind, colon, _ = env.partition(":")
    raise UnityEnvironmentException(
        f"--env {env}: there is no environment of that name, and no such file (looked for {', '.join(executables)})."
        f"{did_you_mean(kind + colon, [*default_registry, _MODULE_SCHEME])} {_what_works()}"
    )


def _module_source(env: str) -> ModuleSource:
    """Return the source of ``module:package.module:factory``, imported once so that a mistake shows at once."""
    reference = ObjectReference.parse(env[len(_MODULE_SCHEME) :])
    if reference is None:
        raise UnityEnvironmentException(
            f"--env {env}: write {_MODULE_SYNTAX}, with the dotted name of a module (not a path) and, after a second "
            "colon, the name of a function or class in it that makes a BaseEnv."
        )
    source = ModuleSource(reference)
    source.load()
    return source


def _what_works() -> str:
    return f"What works: {', '.join(default_registry)}, {_MODULE_SYNTAX}."


def _not_there_yet(what: str) -> UnityEnvironmentException:
    return UnityEnvironmentException(f"{what} is not there yet. {_what_works()}")
