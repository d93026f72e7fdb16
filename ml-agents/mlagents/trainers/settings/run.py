"""Settings of a whole run: the top level of a configuration file."""

import argparse
import os
from typing import Any, Dict, List, Optional

import attr

from mlagents.trainers.settings.environment_parameters import EnvironmentParameterSettings
from mlagents.trainers.settings.fields import NOT_NEGATIVE, POSITIVE, Range, SettingValueError, setting
from mlagents.trainers.settings.plain import ExportableSettings
from mlagents.trainers.settings.trainer import TrainerSettings

UNLIMITED_OR_MORE = Range(low=-1)


_LONGEST_ID = 200  # bytes; file systems take 255 in a name, and `--force` adds to it


def _is_folder_below(instance: Any, attribute: "attr.Attribute[Any]", value: Optional[str]) -> None:
    """Keep run ids inside of the results folder, where `--force` moves, and out of its hidden folders."""
    if value is None:
        return
    if len(os.fsencode(value)) > _LONGEST_ID:
        raise SettingValueError(attribute.name, f"a name of {len(value)} characters is too long for a folder")
    if os.path.isabs(value) or os.path.normpath(value).startswith("."):
        raise SettingValueError(attribute.name, f"{value!r} is not allowed; it must be the name of a folder of results")


@attr.s(auto_attribs=True)
class CheckpointSettings:
    """Where a run is kept and what it starts from."""

    run_id: str = setting("ppo", help="Name of the run, and of its folder in the results.", check=_is_folder_below)
    initialize_from: Optional[str] = setting(
        None, help="Id of a run whose models are the starting point.", check=_is_folder_below
    )
    load_model: bool = setting(False, help="Read from old configurations; resume says the same.")
    resume: bool = setting(False, help="Go on with the run of this id.")
    force: bool = setting(False, help="Replace the run of this id, if there is one.")
    train_model: bool = setting(False, help="Read from old configurations; training is off only with inference.")
    inference: bool = setting(False, help="Only act, learn nothing; with resume, by the models of that run.")
    results_dir: str = setting("results", help="Folder of all runs.")
    checkpoint_interval_s: Optional[float] = setting(
        None,
        help="Seconds between two savings of the newest state, beside each behavior's checkpoint_interval of steps.",
        check=Range(above=0),
    )
    allow_partial_load: bool = setting(False, help="Of a checkpoint that does not fit, take what does.")

    @property
    def write_path(self) -> str:
        """The folder of this run."""
        return os.path.join(self.results_dir, self.run_id)

    @property
    def maybe_init_path(self) -> Optional[str]:
        """The folder of the run to start from, if any."""
        return None if self.initialize_from is None else os.path.join(self.results_dir, self.initialize_from)

    @property
    def run_logs_dir(self) -> str:
        """The folder of this run's logs."""
        return os.path.join(self.write_path, "run_logs")


@attr.s(auto_attribs=True)
class EnvironmentSettings:
    """Which environment is used, and how its processes are run."""

    env_path: Optional[str] = setting(
        None,
        help="The environment: a built-in name, gym:ID, pettingzoo:MODULE, module:PACKAGE.MODULE:FACTORY, "
        "or a Unity executable.",
    )
    env_args: Optional[List[str]] = setting(
        None,
        help="Arguments passed on to a Unity executable, or KEY=VALUE for gym: and pettingzoo:; takes all the rest.",
    )
    base_port: int = setting(5005, help="Port of the first Unity executable.", check=Range(low=1, high=65535))
    num_envs: int = setting(1, help="Copies of the environment that run at once.", check=POSITIVE)
    num_areas: int = setting(1, help="Training areas in each copy.", check=POSITIVE)
    timeout_wait: int = setting(60, help="Seconds to wait for an environment to answer.", check=NOT_NEGATIVE)
    seed: int = setting(-1, help="Seed of the run; -1 for a random one.", check=Range(low=-1, high=2**32 - 1))
    max_lifetime_restarts: int = setting(
        10, help="Restarts of a failed environment in a whole run; -1 for any number.", check=UNLIMITED_OR_MORE
    )
    restarts_rate_limit_n: int = setting(
        1, help="Restarts within restarts_rate_limit_period_s; -1 for any number.", check=UNLIMITED_OR_MORE
    )
    restarts_rate_limit_period_s: int = setting(
        60, help="Seconds over which restarts_rate_limit_n counts.", check=NOT_NEGATIVE
    )


@attr.s(auto_attribs=True)
class EngineSettings:
    """How Unity renders and how fast it runs."""

    width: int = setting(84, help="Width of the window in pixels.", check=NOT_NEGATIVE)
    height: int = setting(84, help="Height of the window in pixels.", check=NOT_NEGATIVE)
    quality_level: int = setting(5, help="Quality level of the rendering.", check=NOT_NEGATIVE)
    time_scale: float = setting(20, help="Speed of the simulation relative to the clock.", check=NOT_NEGATIVE)
    target_frame_rate: int = setting(-1, help="Frames per second; -1 for as many as possible.")
    capture_frame_rate: int = setting(60, help="Simulated frames per second of simulated time.", check=NOT_NEGATIVE)
    no_graphics: bool = setting(False, help="Run without graphics.")
    no_graphics_monitor: bool = setting(False, help="Run without graphics, except in the first copy.")


@attr.s(auto_attribs=True)
class TorchSettings:
    """How PyTorch computes."""

    device: Optional[str] = setting(None, help="Device of the networks, such as cpu or cuda:0; default: the best.")


@attr.s(auto_attribs=True)
class RunOptions(ExportableSettings):
    """Everything that a run was told."""

    default_settings: Optional[TrainerSettings] = setting(None, help="Settings under those of every behaviour.")
    behaviors: TrainerSettings.DefaultTrainerDict = setting(
        attr.Factory(TrainerSettings.DefaultTrainerDict), help="Settings of each behaviour, by its name."
    )
    env_settings: EnvironmentSettings = setting(attr.Factory(EnvironmentSettings), help="The environment.")
    engine_settings: EngineSettings = setting(attr.Factory(EngineSettings), help="Unity's engine.")
    environment_parameters: Optional[Dict[str, EnvironmentParameterSettings]] = setting(
        None, help="Parameters of the environment: constants, samplers, curricula."
    )
    checkpoint_settings: CheckpointSettings = setting(attr.Factory(CheckpointSettings), help="The run's files.")
    torch_settings: TorchSettings = setting(attr.Factory(TorchSettings), help="PyTorch.")
    debug: bool = setting(False, help="Write more to the log.")

    def __attrs_post_init__(self) -> None:
        """Let behaviours without an entry take the default settings."""
        self.behaviors = TrainerSettings.DefaultTrainerDict(self.behaviors)
        self.behaviors.default_settings = self.default_settings

    @staticmethod
    def from_argparse(args: argparse.Namespace) -> "RunOptions":
        """Combine what `mlagents.trainers.cli_options.create_parser` parsed with the configuration file that it names.

        A flag that was given beats the file, the file beats the default. Raises `TrainerConfigError`.
        """
        from mlagents.trainers.cli_options import read_options  # the parser is made from the classes of this module

        return read_options(args)

    @staticmethod
    def from_dict(options_dict: Dict[str, Any]) -> "RunOptions":
        """Read a mapping as a configuration file would hold it. Raises `TrainerConfigError`."""
        from mlagents.trainers.settings.reader import read_run_options  # it reads the classes of this module

        return read_run_options(options_dict)
