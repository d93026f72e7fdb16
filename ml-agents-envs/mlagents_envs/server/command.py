"""The command ``mlagents-env``."""

from __future__ import annotations

import argparse
import io
import os
import sys
from functools import partial
from pathlib import Path
from typing import Optional, Sequence

from mlagents_envs.env_resolver import EnvSource, resolve_env
from mlagents_envs.exception import UnityEnvironmentException, UnityException
from mlagents_envs.logging_util import DEBUG, get_logger, set_log_level
from mlagents_envs.registry import default_registry
from mlagents_envs.server.environment_server import EnvironmentServer
from mlagents_envs.server.faults import Fault, FaultyLink, describe_faults
from mlagents_envs.server.link import EDITOR_PORT, Link, TrainerLink

logger = get_logger(__name__)

_DESCRIPTION = f"""\
Serve an environment to a trainer as a Unity build does.

NAME is {", ".join(default_registry)}, or module:package.module:factory for an environment of your own. Either start it
beside a trainer that waits for the Editor, or let the trainer start it:

  mlagents-learn CONFIG --env "$(which mlagents-env)" --num-envs 2 --env-args NAME

Flags that are not listed here are ignored, as a Unity build ignores them.
"""
_EPILOG = f"""\
faults, to try out what a trainer makes of them, written KIND[=VALUE][@WHEN]:
{describe_faults()}

WHEN is the number of steps and resets since the first reset, whose answer is 0; or 'start': for exit, kill and hang
before the environment connects, for the others its first message. Without WHEN a fault happens at the start, or at 0
where it needs agents.
"""


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run ``mlagents-env`` and return its exit code: 0 when the trainer ended it, 1 for an error, with one message.

    :param argv: the words after the command; by default those it was called with.
    """
    args = _parse(sys.argv[1:] if argv is None else argv)
    if args.debug:
        set_log_level(DEBUG)
    if args.log_file not in (None, "-"):
        _redirect_output(args.log_file)
    if args.ignored:
        logger.debug(f"Ignored flags: {' '.join(args.ignored)}")
    try:
        link: Link = TrainerLink(args.mlagents_port, args.connect_timeout)
        if args.fault:
            link = FaultyLink(link, args.fault, args.once_file)
        EnvironmentServer(
            partial(_source(args.name).make, worker_id=0),
            link,
            name=args.name,
            num_areas=args.num_areas,
            png=args.png,
            sleep_s=args.sleep_ms / 1000,
        ).run()
    except UnityException as error:
        print(f"mlagents-env: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    """Return the flags and, as `name` and `ignored`, the environment's name and the flags that nobody knows."""
    parser = argparse.ArgumentParser(
        prog="mlagents-env",
        usage="mlagents-env NAME [flags]",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add(
        "--mlagents-port", type=int, default=EDITOR_PORT, metavar="PORT", help="where the trainer listens (%(default)s)"
    )
    add("--connect-timeout", type=float, default=60.0, metavar="S", help="how long to wait for a trainer (%(default)g)")
    add("--num-areas", type=int, metavar="N", help="copies of the scene, whatever number the trainer asks for")
    add("--png", action="store_true", help="send images as PNG files, with 8 bits per value")
    add("--sleep-ms", type=float, default=0.0, metavar="MS", help="sleep in each step, as the time an engine takes")
    add("--fault", type=_fault, action="append", metavar="FAULT", help="let something go wrong; may be repeated")
    add("--once-file", type=Path, metavar="PATH", help="only the process that can create this file has the faults")
    add("--debug", action="store_true", help="log more")
    add("-logFile", dest="log_file", metavar="FILE", help="write the log there; - is the terminal")
    add("-nographics", action="store_true", help="accepted, as all of Unity's flags")
    add("-batchmode", action="store_true", help="accepted, as all of Unity's flags")
    args, others = parser.parse_known_args(argv)
    names = [word for word in others if not word.startswith("-")]
    if len(names) != 1:
        given = f"{' and '.join(names)} were given" if names else "none was given"
        parser.error(f"one environment's NAME is needed, and {given}; write values of other flags as -flag=VALUE.")
    args.name = names[0]
    args.ignored = [word for word in others if word.startswith("-")]
    return args


def _fault(text: str) -> Fault:
    try:
        return Fault.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _source(name: str) -> EnvSource:
    """Return where the environment comes from; a process of its own cannot be served."""
    source = resolve_env(name)
    if source.has_own_process:
        raise UnityEnvironmentException(
            f"{name} is a program of its own, which speaks to a trainer by itself: mlagents-learn CONFIG --env {name}"
        )
    return source


def _redirect_output(path: str) -> None:
    """Let everything that this process prints go to a file, libraries' own messages included."""
    sys.stdout.flush()
    sys.stderr.flush()
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.close(file)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(line_buffering=True)  # the last lines before a crash are the ones that matter
