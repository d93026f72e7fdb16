"""The command line of ``mlagents-learn``: its parser, and how flags and configuration file become `RunOptions`."""

import argparse
import sys
import typing
from importlib import metadata
from typing import Any, Callable, Dict, Iterator, List, Mapping, NamedTuple, NoReturn, Tuple

import attr

import mlagents.trainers
import mlagents_envs
from mlagents.trainers.config_file import ConfigFile, load_config_file
from mlagents.trainers.settings.fields import help_of
from mlagents.trainers.settings.network import NetworkSettings
from mlagents.trainers.settings.places import KeyPath, Places
from mlagents.trainers.settings.reader import read_run_options
from mlagents.trainers.settings.run import (
    CheckpointSettings,
    EngineSettings,
    EnvironmentSettings,
    RunOptions,
    TorchSettings,
)
from mlagents_envs.spelling import did_you_mean

CONFIG_PATH = "trainer_config_path"


def get_version_string() -> str:
    """Return the versions of all that matters to a run."""
    return (
        f"mlagents {mlagents.trainers.__version__}, mlagents_envs {mlagents_envs.__version__}, "
        f"PyTorch {metadata.version('torch')}, Python {sys.version.split()[0]}"
    )


class _Group(NamedTuple):
    """Flags that set fields of one section of the configuration."""

    title: str
    section: KeyPath
    settings_class: type
    fields: Tuple[str, ...]


def _fields(settings_class: type) -> Tuple[str, ...]:
    return tuple(field.name for field in attr.fields(settings_class))


_EACH_BEHAVIOR = "*"
"""In a key path: every entry of `behaviors`, and `default_settings` where they are given."""

_GROUPS = (
    _Group(
        "run",
        ("checkpoint_settings",),
        CheckpointSettings,
        (
            "run_id",
            "resume",
            "force",
            "initialize_from",
            "inference",
            "results_dir",
            "checkpoint_interval_s",
            "allow_partial_load",
        ),
    ),
    _Group("policy", (_EACH_BEHAVIOR, "network_settings"), NetworkSettings, ("deterministic",)),
    _Group("environment", ("env_settings",), EnvironmentSettings, _fields(EnvironmentSettings)),
    _Group("Unity engine", ("engine_settings",), EngineSettings, _fields(EngineSettings)),
    _Group("PyTorch", ("torch_settings",), TorchSettings, _fields(TorchSettings)),
    _Group("logging", (), RunOptions, ("debug",)),
)

_FLAGS_NAMED_OTHERWISE = {"env_path": "--env", "device": "--torch-device"}


def _flag(field: str) -> str:
    return _FLAGS_NAMED_OTHERWISE.get(field, "--" + field.replace("_", "-"))


class _Parser(argparse.ArgumentParser):
    """Ends with exit code 1 on a user's mistake, as every other mistake does, and hints at the flag that was meant."""

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        parsed, unknown = self.parse_known_args(args, namespace)
        if unknown:
            word = next((word for word in unknown if word.startswith("-")), unknown[0])
            hint = did_you_mean(word.split("=")[0], self._option_string_actions)
            self.error(f"unknown argument {word}.{hint} See --help for all of them.")
        return parsed

    def error(self, message: str) -> NoReturn:
        self.exit(1, f"{self.format_usage()}{self.prog}: error: {message}\n")


class _ListTrainers(argparse.Action):
    """Prints the trainer types and ends, as ``--version`` does."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from mlagents.plugins.listing import list_trainers  # imports the trainers

        print(list_trainers())
        parser.exit()


def create_parser(
    version: Callable[[], str],
    prog: str = "mlagents-learn",
    description: str = "Train the agents of an environment, or watch them act. A flag beats the configuration file.",
) -> argparse.ArgumentParser:
    """Make the parser of ``mlagents-learn``, whose flags, defaults and help come from the settings classes.

    A flag that was not given is not in the namespace, so that it beats nothing.

    :param version: returns what ``--version`` shows.
    :param prog: another command that takes the same flags.
    :param description: of that command.
    """
    parser = _Parser(
        prog=prog,
        usage=f"{prog} [trainer_config_path] [flags]",
        description=description,
        argument_default=argparse.SUPPRESS,
    )
    parser.add_argument(CONFIG_PATH, nargs="?", help="configuration file (YAML); without one all is default")
    parser.add_argument("--version", action="version", version=version(), help="show the versions and exit")
    parser.add_argument("--list-trainers", action=_ListTrainers, nargs=0, help="show the trainer types and exit")
    for group in _GROUPS:
        arguments = parser.add_argument_group(group.title)
        for field in group.fields:
            arguments.add_argument(_flag(field), dest=field, **_argument(group.settings_class, field))
    return parser


def _argument(settings_class: type, field: str) -> Dict[str, Any]:
    """Describe a flag by the field that it sets."""
    kind = typing.get_type_hints(settings_class)[field]
    kind = next((member for member in typing.get_args(kind) if member is not type(None)), kind)
    default = attr.fields_dict(settings_class)[field].default
    help_text = help_of(settings_class, field)
    if kind is bool:
        return {"action": "store_true", "help": help_text}
    if typing.get_origin(kind) is list:
        return {"nargs": argparse.REMAINDER, "help": help_text}
    shown_default = "" if default is None else f" (default: {default})"
    return {"type": kind, "metavar": kind.__name__.upper(), "help": help_text + shown_default}


_RULES_OUT = {"resume": ("initialize_from", None), "initialize_from": ("resume", False)}
"""A flag that says what a run starts from beats what the file says of the other way to start."""


def read_options(args: argparse.Namespace) -> RunOptions:
    """Combine the flags that were given with the configuration file.

    Without a file every behaviour takes the default settings. Raises `TrainerConfigError`.
    """
    given = vars(args)
    path = given.get(CONFIG_PATH)
    options, places = load_config_file(path) if path else ConfigFile({"default_settings": {}}, Places())
    ruled_out = dict(_RULES_OUT[field] for field in _RULES_OUT if field in given)
    for key_path, value in _by_key_path({**ruled_out, **given}, options):
        options = _with_value(options, key_path, value)
        places.set(key_path, _flag(key_path[-1]))
    return read_run_options(options, places)


def _by_key_path(given: Mapping[str, Any], options: Mapping[str, Any]) -> Iterator[Tuple[KeyPath, Any]]:
    """Yield the key paths that flags set, and what they set them to."""
    behaviors = options.get("behaviors")
    each_behavior: List[KeyPath] = [("behaviors", name) for name in behaviors] if isinstance(behaviors, Mapping) else []
    if options.get("default_settings") is not None:
        each_behavior.append(("default_settings",))
    for group in _GROUPS:
        for field in group.fields:
            if field in given and group.section[:1] == (_EACH_BEHAVIOR,):
                yield from (((*behavior, *group.section[1:], field), given[field]) for behavior in each_behavior)
            elif field in given:
                yield (*group.section, field), given[field]


def _with_value(section: Any, key_path: KeyPath, value: Any) -> Any:
    """Return a section with one key set; what should be a section and is not stays, to be reported when it is read."""
    if not key_path:
        return value
    if section is not None and not isinstance(section, Mapping):
        return section
    section = section or {}
    return {**section, key_path[0]: _with_value(section.get(key_path[0]), key_path[1:], value)}
