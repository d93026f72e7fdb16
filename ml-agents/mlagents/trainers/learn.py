"""``mlagents-learn``: from a command line to a trained model."""

from __future__ import annotations

import bdb
import contextlib
import random
import sys
import traceback
from typing import Dict, Iterator, List, Optional

import attr

from mlagents.plugins.blame import find_culprit
from mlagents.plugins.stats_writer import register_stats_writer_plugins
from mlagents.plugins.trainer_type import register_trainer_plugins, usable_plugins
from mlagents.torch_utils import set_torch_config
from mlagents.trainers.checkpointer import Checkpointer
from mlagents.trainers.cli_options import create_parser, get_version_string
from mlagents.trainers.env_manager import EnvManager
from mlagents.trainers.environment_host import EnvironmentHost, SourceEnvFactory, engine_config
from mlagents.trainers.evaluation import Evaluator
from mlagents.trainers.exception import TrainerConfigError, TrainerError
from mlagents.trainers.report import quiet_when_nobody_reads
from mlagents.trainers.run_directory import RunDirectory
from mlagents.trainers.run_state import seed_everything
from mlagents.trainers.settings import ParameterRandomizationSettings, RunOptions
from mlagents.trainers.simple_env_manager import SimpleEnvManager
from mlagents.trainers.stats import StatsReporter
from mlagents.trainers.stop_request import StopRequest
from mlagents.trainers.subprocess_env_manager import SubprocessEnvManager
from mlagents.trainers.terminal import closing_message, progress_display
from mlagents.trainers.trainer import TrainerFactory
from mlagents.trainers.trainer_controller import TrainerController
from mlagents_envs import logging_util, timers
from mlagents_envs.env_resolver import EnvSource, LaunchOptions, resolve_env
from mlagents_envs.exception import UnityException
from mlagents_envs.side_channel.engine_configuration_channel import EngineConfigurationChannel
from mlagents_envs.side_channel.environment_parameters_channel import EnvironmentParametersChannel
from mlagents_envs.side_channel.stats_side_channel import StatsSideChannel

logger = logging_util.get_logger(__name__)

USER_ERRORS = (TrainerConfigError, TrainerError, UnityException)
"""What is the user's to mend: one message, no traceback."""

MAX_RANDOM_SEED = 10000
_SEED_OF_EVALUATION = 50_021
"""What is added to the run's: less than one session is from the next, and more than there are workers."""

_SEEDS_PER_SESSION = 100_003
"""More than there are workers, each of which has a seed of its own."""

_HOW_TO_SEE_MORE = "Only frames of the plug-in are shown; --debug shows all."


def parse_command_line(argv: Optional[List[str]] = None) -> RunOptions:
    """Read the command line, and the configuration file that it names.

    :param argv: the arguments after the command; None for the process's own.
    :raises TrainerConfigError: something in them is wrong.
    """
    arguments = create_parser(get_version_string).parse_args(argv)
    register_trainer_plugins()
    return RunOptions.from_argparse(arguments)


def run_cli(options: RunOptions) -> None:
    """Run what `options` ask for, with a random seed where they give none."""
    logging_util.set_log_level(logging_util.DEBUG if options.debug else logging_util.INFO)
    logger.debug(f"Configuration of this run: {options.as_dict()}")
    run_seed = options.env_settings.seed
    if run_seed == -1 and options.checkpoint_settings.resume:
        stored = RunDirectory(options.checkpoint_settings).seed
        run_seed = -1 if stored is None else stored
    if run_seed == -1:
        run_seed = random.SystemRandom().randrange(MAX_RANDOM_SEED)
        logger.debug(f"The seed is {run_seed}.")
    run_training(run_seed, options, options.env_settings.num_areas)


def run_training(run_seed: int, options: RunOptions, num_areas: int) -> None:
    """Train, or with `inference` only act, until done or stopped.

    :param run_seed: of everything random in the run.
    :param num_areas: training areas in the environment.
    """
    learns = not options.checkpoint_settings.inference
    run = RunDirectory(options.checkpoint_settings)
    timers.reset_timers()
    set_torch_config(options.torch_settings)
    source = _find_environment(options, run)
    run.check()
    run.check_writable()

    with contextlib.closing(run), StopRequest() as stop, progress_display() as progress, _stats_writers(options):
        # A session that cannot go on where the one before was should at least not see the same again.
        session_seed = (run_seed + _SEEDS_PER_SESSION * (run.session - 1)) % 2**31 if run.session > 1 else run_seed
        seed_everything(session_seed)  # after the code of plug-ins that may have nothing to do with this run
        parameters = _environment_parameters(options, run_seed)
        evaluator = _make_evaluator(source, options, run_seed, num_areas, parameters, stop)
        checkpointer = Checkpointer(run, options.checkpoint_settings.checkpoint_interval_s, parameters, evaluator)
        controller = TrainerController(
            make_trainer_factory(options, run, run_seed), parameters, learns, stop, progress, checkpointer, evaluator
        )
        env_manager = _make_env_manager(source, options, session_seed, num_areas, controller)
        writes, status = False, "failed"
        try:
            controller.reset(env_manager)
            if evaluator is not None:
                evaluator.start(controller.trainers)
            if learns:
                run.begin(_to_repeat(options, run_seed))
                writes = True
            try:
                controller.start_learning(env_manager)
                status = "interrupted" if stop.requested else "finished"
            finally:
                if writes:
                    with _writing_logs(run):
                        checkpointer.write_status(controller.trainers, status)
        finally:
            if evaluator is not None:
                evaluator.close()
            env_manager.close()
            if writes:
                _write_timers(run)
    names = list(controller.trainers)
    if learns:
        settings = options.checkpoint_settings
        models, best = run.final_models(names), run.best_models(names)
        print(closing_message(settings.run_id, settings.results_dir, models, stop.requested, best))


@contextlib.contextmanager
def _stats_writers(options: RunOptions) -> Iterator[None]:
    """Hand the run's statistics to the writers of all plug-ins, and close them in the end."""
    try:
        for writer in register_stats_writer_plugins(options):
            StatsReporter.add_writer(writer)
        yield
    finally:
        StatsReporter.close_writers()


def _to_repeat(options: RunOptions, run_seed: int) -> RunOptions:
    """Return the options as the run's configuration keeps them: for other runs to be like this one.

    With the seed that was drawn, and without what was meant for one time only.
    """
    return attr.evolve(
        options,
        env_settings=attr.evolve(options.env_settings, seed=run_seed),
        checkpoint_settings=attr.evolve(options.checkpoint_settings, resume=False, load_model=False, force=False),
    )


def _find_environment(options: RunOptions, run: RunDirectory) -> EnvSource:
    """Return where the run's environments come from.

    :raises UnityEnvironmentException: there is no such environment.
    :raises TrainerConfigError: several are asked for, and there is but one.
    """
    check_one_editor_is_enough(options)
    settings, engine = options.env_settings, options.engine_settings
    launch = LaunchOptions(
        base_port=settings.base_port,
        timeout_wait=settings.timeout_wait,
        no_graphics=engine.no_graphics,
        no_graphics_monitor=engine.no_graphics_monitor,
        args=tuple(settings.env_args or ()),
        log_folder=str(run.player_logs_path),
    )
    return resolve_env(settings.env_path, launch)


def check_one_editor_is_enough(options: RunOptions) -> None:
    """Check that a run whose environment is the Unity Editor needs no second one.

    :raises TrainerConfigError: it does.
    """
    settings = options.env_settings
    if settings.env_path is not None:
        return
    if settings.num_envs > 1:
        raise TrainerConfigError(
            f"--num-envs {settings.num_envs} needs --env: there is one Unity Editor, and it plays one scene at a time."
        )
    if not options.checkpoint_settings.inference and _asks_for_evaluation(options):
        raise TrainerConfigError(
            "evaluation needs --env: there is one Unity Editor, which is needed for training. Build the game, or leave "
            "evaluation out."
        )


def _make_env_manager(
    source: EnvSource, options: RunOptions, run_seed: int, num_areas: int, controller: TrainerController
) -> EnvManager:
    """Start the environments: one that lives in Python in this process, all others in processes of their own."""
    factory = SourceEnvFactory(source, run_seed, num_areas)
    n_envs = options.env_settings.num_envs
    if source.has_own_process or n_envs > 1:
        return SubprocessEnvManager(
            factory,
            options,
            n_envs,
            stop_requested=lambda: controller.stop.requested,
            on_pause=controller.save_checkpoint,
            has_own_process=source.has_own_process,
        )
    parameters, engine, stats = EnvironmentParametersChannel(), EngineConfigurationChannel(), StatsSideChannel()
    engine.set_configuration(engine_config(options.engine_settings))
    return SimpleEnvManager(factory(0, [parameters, engine, stats]), parameters, stats)


def _make_evaluator(
    source: EnvSource,
    options: RunOptions,
    run_seed: int,
    num_areas: int,
    parameters: Dict[str, ParameterRandomizationSettings],
    stop: StopRequest,
) -> Optional[Evaluator]:
    """Return what evaluates policies, with an environment beside those of the workers; None where nothing does."""
    if options.checkpoint_settings.inference or not _asks_for_evaluation(options):
        return None
    seed = (run_seed + _SEED_OF_EVALUATION) % 2**31
    worker_id = options.env_settings.num_envs
    factory = SourceEnvFactory(source, seed - worker_id, num_areas)
    host = EnvironmentHost(factory, worker_id, options.engine_settings)
    return Evaluator(host, parameters, seed, lambda: stop.requested)


def _asks_for_evaluation(options: RunOptions) -> bool:
    settings = [*options.behaviors.values(), options.behaviors.default_settings]
    return any(behavior is not None and behavior.evaluation is not None for behavior in settings)


def make_trainer_factory(options: RunOptions, run: RunDirectory, run_seed: int) -> TrainerFactory:
    """Return what makes the trainers of a run, which go on from its state or another's where they are to."""
    return TrainerFactory(
        trainer_config=options.behaviors,
        output_path=str(run.path),
        train_model=not options.checkpoint_settings.inference,
        load_model=_has_something_to_load(run),
        seed=run_seed,
        status=run.read_status() if run.loads_own_state else {},
        init_checkpoint=run.init_checkpoint,
        allow_partial_load=options.checkpoint_settings.allow_partial_load,
    )


def _has_something_to_load(run: RunDirectory) -> bool:
    if run.settings.resume and not run.settings.inference and run.was_killed_as_it_began:
        logger.warning(f"The run in {run.path} ended before it had a first checkpoint; it begins anew.")
        return False
    return run.loads_own_state


def _environment_parameters(options: RunOptions, run_seed: int) -> Dict[str, ParameterRandomizationSettings]:
    """Return the sampler of each environment parameter; those without a seed get one from the run's, each its own."""
    samplers = {}
    for index, (name, settings) in enumerate((options.environment_parameters or {}).items()):
        sampler = settings.curriculum[0].value
        samplers[name] = attr.evolve(sampler, seed=run_seed + index) if sampler.seed == -1 else sampler
    return samplers


def _write_timers(run: RunDirectory) -> None:
    """Write where the time went; the environments, which have timers of their own, are closed before."""
    with _writing_logs(run):
        run.write_timers()


@contextlib.contextmanager
def _writing_logs(run: RunDirectory) -> Iterator[None]:
    """Warn where a run's logs cannot be written: that is no reason to fail a run whose models are saved."""
    try:
        yield
    except OSError as error:
        logger.warning(f"The logs of the run could not be written to {run.logs_path}: {error}.")


def _message_for(error: Exception) -> Optional[str]:
    """Return what to tell a user of an error: what is theirs to mend, or a plug-in's; None for a bug of ours."""
    culprit = find_culprit(error, usable_plugins())
    if isinstance(error, USER_ERRORS):
        if culprit is None or culprit.raised_it:
            return str(error)
        return f"{error}\nThis concerns the plug-in {culprit.plugin}."
    return f"{culprit}\n{_HOW_TO_SEE_MORE}" if culprit is not None else None


def main() -> None:
    """Run ``mlagents-learn``; a user's mistake, or a plug-in's, is one message and exit code 1."""
    try:
        with quiet_when_nobody_reads():
            run_cli(parse_command_line())
    except KeyboardInterrupt:
        print("mlagents-learn: stopped before training began; nothing was written.", file=sys.stderr)
        sys.exit(130)
    except bdb.BdbQuit:  # of a breakpoint, left by "quit"
        sys.exit(1)
    except Exception as error:
        message = _message_for(error)
        if message is None:
            raise
        if "--debug" in sys.argv:
            traceback.print_exc()
        print(f"mlagents-learn: error: {message}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
