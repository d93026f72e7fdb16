"""From the text after ``--env`` to an environment."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any, Callable, ClassVar, Dict, List, Optional, Protocol, Tuple

from mlagents_envs.base_env import BaseEnv
from mlagents_envs.env_utils import describe_missing, validate_environment_path
from mlagents_envs.exception import UnityEnvironmentException
from mlagents_envs.object_reference import ObjectReference, ObjectReferenceError
from mlagents_envs.registry import default_registry
from mlagents_envs.registry.base_registry_entry import BaseRegistryEntry
from mlagents_envs.side_channel.side_channel import SideChannel
from mlagents_envs.spelling import did_you_mean

_MODULE_SCHEME = "module:"
_MODULE_SYNTAX = "module:package.module:factory"
_GYMNASIUM_SCHEME = "gym:"
_GYMNASIUM_SYNTAX = "gym:ID"
_PETTINGZOO_SCHEME = "pettingzoo:"
_PETTINGZOO_SYNTAX = "pettingzoo:MODULE"


@dataclass(frozen=True)
class LaunchOptions:
    """How executables are started, and how long they are waited for.

    The fields are those of `mlagents_envs.environment.UnityEnvironment`.

    :param args: further words of the command line; for environments of Gymnasium and PettingZoo arguments of their
        constructors, KEY=VALUE.
    """

    base_port: int = 5005
    timeout_wait: int = 60
    no_graphics: bool = False
    no_graphics_monitor: bool = False
    args: Tuple[str, ...] = ()
    log_folder: Optional[str] = None

    def arguments(self) -> Dict[str, Any]:
        """Return them as `UnityEnvironment` takes them."""
        return {
            "base_port": self.base_port,
            "no_graphics": self.no_graphics,
            "no_graphics_monitor": self.no_graphics_monitor,
            "timeout_wait": self.timeout_wait,
            "additional_args": list(self.args),
            "log_folder": self.log_folder,
        }


class EnvSource(Protocol):
    """Where environments of one kind come from. It can be pickled, so that a worker may make its own."""

    @property
    def name(self) -> str:
        """What the user wrote, for messages."""

    @property
    def has_own_process(self) -> bool:
        """Whether its environments simulate in a process of their own, which can be lost."""

    def make(self, *, worker_id: int, seed: int, num_areas: int, side_channels: List[SideChannel]) -> BaseEnv:
        """Make an environment.

        :raises UnityEnvironmentException: it cannot be made.
        """


@dataclass(frozen=True)
class RegisteredSource:
    """An environment of the default registry.

    :param entry: it itself, for a worker's registry holds what is built in alone.
    """

    entry: BaseRegistryEntry
    launch: LaunchOptions = LaunchOptions()

    @property
    def name(self) -> str:
        """What the user wrote, for messages."""
        return self.entry.identifier

    @property
    def has_own_process(self) -> bool:
        """Whether it is an executable."""
        return self.entry.has_own_process

    def make(self, *, worker_id: int, seed: int, num_areas: int, side_channels: List[SideChannel]) -> BaseEnv:
        """Make the entry's environment; see `EnvSource`."""
        return self.entry.make(
            **self.launch.arguments(), worker_id=worker_id, seed=seed, num_areas=num_areas, side_channels=side_channels
        )


@dataclass(frozen=True)
class ModuleSource:
    """A function or class of the user's own that makes a `BaseEnv`."""

    reference: ObjectReference
    has_own_process: ClassVar[bool] = False

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


@dataclass(frozen=True)
class UnitySource:
    """An executable built with Unity, or any other that speaks its wire.

    :param name: its path, as the user wrote it.
    """

    name: str
    launch: LaunchOptions = LaunchOptions()
    has_own_process: ClassVar[bool] = True

    def make(self, *, worker_id: int, seed: int, num_areas: int, side_channels: List[SideChannel]) -> BaseEnv:
        """Start the executable; see `EnvSource`."""
        from mlagents_envs.environment import UnityEnvironment  # loads gRPC, which other environments do without

        return UnityEnvironment(
            file_name=self.name,
            worker_id=worker_id,
            seed=seed,
            side_channels=side_channels,
            num_areas=num_areas,
            **self.launch.arguments(),
        )


@dataclass(frozen=True)
class EditorSource:
    """The scene that is open in the Unity Editor."""

    launch: LaunchOptions = LaunchOptions()
    name: ClassVar[str] = "the Unity Editor"
    has_own_process: ClassVar[bool] = True

    def make(self, *, worker_id: int, seed: int, num_areas: int, side_channels: List[SideChannel]) -> BaseEnv:
        """Wait until somebody presses Play; see `EnvSource`."""
        from mlagents_envs.environment import UnityEnvironment  # loads gRPC, which other environments do without

        return UnityEnvironment(
            worker_id=worker_id,
            seed=seed,
            timeout_wait=self.launch.timeout_wait,
            side_channels=side_channels,
            num_areas=num_areas,
        )


def resolve_env(env: Optional[str], launch: LaunchOptions = LaunchOptions()) -> EnvSource:
    """Return what ``--env`` stands for; a file wins over a name.

    :param env: the text after ``--env``; None when it was not given, which stands for the Unity Editor.
    :param launch: how it is started, where it is an executable.
    :raises UnityEnvironmentException: there is no such environment; the message lists what works.
    """
    if env is None:
        return EditorSource(launch)
    if validate_environment_path(env) is not None:
        return UnitySource(env, launch)
    if env in default_registry:
        return RegisteredSource(default_registry[env], launch)
    if env.startswith(_MODULE_SCHEME):
        return _module_source(env)
    if env.startswith(_GYMNASIUM_SCHEME):
        return _gymnasium_source(env, launch)
    if env.startswith(_PETTINGZOO_SCHEME):
        return _pettingzoo_source(env, launch)
    kind, colon, _ = env.partition(":")
    schemes = [_MODULE_SCHEME, _GYMNASIUM_SCHEME, _PETTINGZOO_SCHEME]
    raise UnityEnvironmentException(
        f"--env {env}: there is no environment of that name, and {describe_missing(env)}"
        f"{did_you_mean(kind + colon, [*default_registry, *schemes])} {_what_works()}"
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


def _gymnasium_source(env: str, launch: LaunchOptions) -> EnvSource:
    from mlagents_envs.external.sources import GymnasiumSource, read_arguments  # loads Gymnasium

    source = GymnasiumSource(env[len(_GYMNASIUM_SCHEME) :], read_arguments(env, launch.args))
    source.check()
    return source


def _pettingzoo_source(env: str, launch: LaunchOptions) -> EnvSource:
    from mlagents_envs.external.sources import PettingZooSource, read_arguments  # loads PettingZoo

    source = PettingZooSource(env[len(_PETTINGZOO_SCHEME) :], read_arguments(env, launch.args))
    source.check()
    return source


def _what_works() -> str:
    return (
        f"What works: the path of an executable, {', '.join(default_registry)}, {_MODULE_SYNTAX}, {_GYMNASIUM_SYNTAX}, "
        f"{_PETTINGZOO_SYNTAX}."
    )
