"""The command `mlagents-validate`: what is wrong with a configuration, all at once, or what it will train."""

from __future__ import annotations

import argparse
import contextlib
import sys
from enum import Enum
from functools import partial
from typing import Any, Callable, Dict, List, Optional, Sequence

import attr

from mlagents.plugins.blame import find_culprit
from mlagents.plugins.trainer_type import (
    get_trainer_class,
    plugins_that_give,
    register_trainer_plugins,
    registered_names,
    usable_plugins,
)
from mlagents.torch_utils import set_torch_config
from mlagents.trainers.behavior_id_utils import BehaviorIdentifiers
from mlagents.trainers.cli_options import CONFIG_PATH, create_parser, get_version_string, read_options
from mlagents.trainers.config_file import load_config_file
from mlagents.trainers.exception import TrainerConfigError
from mlagents.trainers.learn import USER_ERRORS, check_one_editor_is_enough, make_trainer_factory
from mlagents.trainers.report import (
    Row,
    describe_actions,
    describe_observation,
    labelled,
    print_rows,
    quiet_when_nobody_reads,
)
from mlagents.trainers.run_directory import RunDirectory
from mlagents.trainers.settings import EnvironmentSettings, RunOptions, TrainerSettings
from mlagents.trainers.settings.schema import render
from mlagents_envs import logging_util
from mlagents_envs.base_env import BehaviorSpec
from mlagents_envs.env_resolver import EditorSource, EnvSource, LaunchOptions, resolve_env

Specs = Dict[str, BehaviorSpec]
"""What an environment has, by behaviour name, without teams."""


class Validation:
    """What was found out about a configuration.

    :ivar errors: a message each.
    :ivar notes: what is worth knowing, and no error.
    :ivar options: what was read; None if that was not possible.
    :ivar specs: the environment's behaviours; None where that is not known before it starts.
    """

    def __init__(self) -> None:
        self.errors: List[str] = []
        self.notes: List[str] = []
        self.options: Optional[RunOptions] = None
        self.specs: Optional[Specs] = None

    def attempt(self, step: Callable[[], Any]) -> None:
        """Do a step; what it raises is an error found, if it is the user's to mend, or a plug-in's."""
        try:
            step()
        except Exception as error:
            culprit = find_culprit(error, usable_plugins())
            if not isinstance(error, USER_ERRORS) and culprit is None:
                raise
            message = str(error) if isinstance(error, USER_ERRORS) else str(culprit)
            self.errors += [line for line in message.splitlines() if line not in self.errors]


def validate(arguments: argparse.Namespace) -> Validation:
    """Check the flags of ``mlagents-learn``, the configuration that they name, and the environment.

    Nothing is written, no executable is started, and the Editor is not waited for. Environments in Python are made.
    """
    found = Validation()

    def read() -> None:
        found.options = read_options(arguments)

    found.attempt(read)
    options = found.options
    settings = options.env_settings if options else _environment_in_spite_of_mistakes(arguments)
    launch = LaunchOptions(args=tuple(settings.env_args or ()))
    found.attempt(lambda: _look_at_environment(found, resolve_env(settings.env_path, launch), settings.num_areas))
    if options is not None:
        found.attempt(lambda: check_one_editor_is_enough(options))
        found.attempt(lambda: set_torch_config(options.torch_settings))
        for behavior in options.behaviors.values():
            found.attempt(partial(get_trainer_class, behavior.trainer_type))
        _compare_behaviors(found, options, _look_at_run(found, options))
    return found


def _environment_in_spite_of_mistakes(arguments: argparse.Namespace) -> EnvironmentSettings:
    """Return which environment the flags name, or the configuration file, something else in which is wrong."""
    given = vars(arguments)
    named: Dict[str, Any] = {}
    if given.get(CONFIG_PATH):
        with contextlib.suppress(TrainerConfigError):  # which is reported
            section = load_config_file(given[CONFIG_PATH]).options.get("env_settings")
            named = dict(section) if isinstance(section, dict) else {}
    env_path, env_args = (given.get(key, named.get(key)) for key in ("env_path", "env_args"))
    return EnvironmentSettings(
        env_path=env_path if isinstance(env_path, str) else None,
        env_args=list(map(str, env_args)) if isinstance(env_args, list) else None,
    )


def _look_at_run(found: Validation, options: RunOptions) -> RunDirectory:
    """Add what keeps the run from being resumed, replaced or started from another; return it, else a new one."""
    run, n_errors = RunDirectory(options.checkpoint_settings), len(found.errors)
    if run.is_taken:
        found.notes.append(f"There is a run in {run.path} already: --resume, --force, or another --run-id is needed.")
        return run
    found.attempt(run.check)
    found.attempt(run.check_could_be_written)
    if len(found.errors) == n_errors:
        return run
    return RunDirectory(attr.evolve(options.checkpoint_settings, resume=False, initialize_from=None))


def _look_at_environment(found: Validation, source: EnvSource, num_areas: int) -> None:
    if isinstance(source, EditorSource):
        found.notes.append("The environment is the Unity Editor: what its agents are shows when it plays.")
    elif source.has_own_process:
        found.notes.append(f"{source.name} is there; what its agents are shows when it runs.")
    else:
        env = source.make(worker_id=0, seed=0, num_areas=num_areas, side_channels=[])
        try:
            env.reset()
            specs = env.behavior_specs
            found.specs = {BehaviorIdentifiers.from_name_behavior_id(name).brain_name: specs[name] for name in specs}
        finally:
            env.close()


def _compare_behaviors(found: Validation, options: RunOptions, run: RunDirectory) -> None:
    """Add what keeps the environment's behaviours from being trained, and what is configured for nothing."""
    if found.specs is None:
        return
    there = ", ".join(found.specs)
    for name in options.behaviors:
        if name not in found.specs:
            found.notes.append(f"{name} is configured, but not in the environment so far. In it: {there}.")
    for name, spec in found.specs.items():
        found.attempt(partial(_make_trainer, options, run, name, spec))


def _make_trainer(options: RunOptions, run: RunDirectory, name: str, spec: BehaviorSpec) -> None:
    """Make a behaviour's trainer, networks and optimizers, as the training loop does, with the state they start from.

    :raises TrainerConfigError: that takes more memory than there is.
    """
    identifiers = BehaviorIdentifiers.from_name_behavior_id(name)
    try:
        trainer = make_trainer_factory(options, run, run_seed=0).generate(name)
        trainer.add_policy(identifiers, trainer.create_policy(identifiers, spec))
    except (RuntimeError, MemoryError) as error:
        if not isinstance(error, MemoryError) and "memory" not in str(error):
            raise
        raise TrainerConfigError(f"There is not enough memory for the networks of behavior {name}.") from error


# The report


def _rows(found: Validation, options: RunOptions, name: str, settings: TrainerSettings) -> List[Row]:
    hyperparameters, network = settings.hyperparameters, settings.network_settings
    memory = "" if network.memory is None else f", memory of {network.memory.memory_size}"
    spec = (found.specs or {}).get(name)
    rows = [
        ("trainer", f"{settings.trainer_type}{_origin(settings.trainer_type)}"),
        ("steps", f"{settings.max_steps:,}, a summary every {settings.summary_freq:,}"),
        ("updates", _updates(hyperparameters)),
        ("network", f"{network.num_layers} x {network.hidden_units}{memory}"),
        ("rewards", ", ".join(signal.value for signal in settings.reward_signals)),
        ("checkpoints", f"every {settings.checkpoint_interval:,} steps, the last {settings.keep_checkpoints} are kept"),
    ]
    if settings.evaluation is not None:
        evaluation = settings.evaluation
        rows.append(("evaluation", f"every {evaluation.interval:,} steps, of {evaluation.episodes} episodes"))
    if spec is not None:
        rows += labelled("observations", [describe_observation(it) for it in spec.observation_specs])
        rows.append(("actions", describe_actions(spec.action_spec)))
    return rows


def _updates(hyperparameters: object) -> str:
    fields = ("batch_size", "buffer_size", "learning_rate", "learning_rate_schedule")
    values = {field: getattr(hyperparameters, field) for field in fields if hasattr(hyperparameters, field)}
    shown = {field: value.value if isinstance(value, Enum) else value for field, value in values.items()}
    return ", ".join(f"{field} {value}" for field, value in shown.items())


def _origin(trainer_type: str) -> str:
    plugins = plugins_that_give(trainer_type)
    return f", of {plugins[0].distribution} {plugins[0].version}" if plugins else ""


def _print(found: Validation, options: RunOptions) -> None:
    names = found.specs if found.specs is not None else options.behaviors
    for name in names:
        print(name)
        print_rows(_rows(found, options, name, options.behaviors[name]))
    settings = options.checkpoint_settings
    print(f"results go to {settings.write_path}")
    for note in found.notes:
        print(f"note: {note}")


class _PrintSchema(argparse.Action):
    """Prints the schema, with the trainer types of all plug-ins, and ends, as ``--version`` does."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        register_trainer_plugins()
        with quiet_when_nobody_reads():
            print(render(registered_names()), end="")
        parser.exit()


def main(argv: Optional[Sequence[str]] = None) -> None:
    """Run the command: errors, one per line, and exit code 1; or what will be trained."""
    parser = create_parser(
        get_version_string,
        prog="mlagents-validate",
        description="Check a configuration, and with --env an environment; say what will be trained. Nothing starts.",
    )
    parser.add_argument("--schema", action=_PrintSchema, nargs=0, help="print a JSON Schema for editors and exit")
    arguments = parser.parse_args(argv)
    register_trainer_plugins()
    level = logging_util.root_logger().level
    logging_util.set_log_level(logging_util.WARNING)
    try:
        found = validate(arguments)
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        logging_util.set_log_level(level)
    if found.errors or found.options is None:
        for error in found.errors:
            print(error, file=sys.stderr)
        sys.exit(1)
    with quiet_when_nobody_reads():
        _print(found, found.options)


if __name__ == "__main__":
    main()
