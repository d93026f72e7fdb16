"""Finding the executable that a user means, and starting it."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from typing import IO, Any, Dict, List, Optional, Union

from mlagents_envs.exception import UnityEnvironmentException
from mlagents_envs.spelling import did_you_mean

_SUFFIXES = {"darwin": (".app",), "win32": (".exe",)}
"""What may be left out at the end of an executable's path, by platform; elsewhere, Unity's of Linux."""

_INSIDE_A_BUNDLE = os.path.join("Contents", "MacOS")


def get_platform() -> str:
    """Return the platform as `sys.platform` names it: ``linux``, ``darwin`` or ``win32``."""
    return sys.platform


def candidate_paths(env_path: str) -> List[str]:
    """Return the paths that `env_path` may mean on this platform, in the order in which they are tried."""
    suffixes = _SUFFIXES.get(get_platform(), (".x86_64", ".x86"))
    return [env_path + suffix for suffix in ("", *suffixes)]


def validate_environment_path(env_path: str) -> Optional[str]:
    """Return the file to run for the path that a user gave; None where there is none.

    On macOS, an application is a folder, and what runs is a file in it.
    """
    for path in candidate_paths(env_path):
        if os.path.isfile(path):
            return path
        if get_platform() == "darwin" and os.path.isdir(os.path.join(path, _INSIDE_A_BUNDLE)):
            return _executable_of_bundle(path)
    return None


def _executable_of_bundle(path: str) -> Optional[str]:
    """Return the file in a bundle that has its name, or else its only one."""
    folder = os.path.join(path, _INSIDE_A_BUNDLE)
    names = sorted(os.listdir(folder))
    own_name = os.path.basename(path.rstrip(os.sep)).removesuffix(".app")
    if own_name not in names and len(names) != 1:
        return None
    return os.path.join(folder, own_name if own_name in names else names[0])


def describe_missing(env_path: str) -> str:
    """Return what to say of a path under which there is no executable."""
    text = f"no such file (looked for {', '.join(candidate_paths(env_path))})."
    if os.path.isdir(env_path):
        runnable = [path for path in _files_in(env_path) if os.path.isfile(path) and os.access(path, os.X_OK)]
        inside = f" Executables in it: {', '.join(runnable)}." if runnable else ""
        return f"{text} {env_path} is a folder.{inside}"
    return text + did_you_mean(env_path, _files_in(os.path.dirname(env_path)))


def _files_in(folder: str) -> List[str]:
    try:
        return sorted(os.path.join(folder, name) for name in os.listdir(folder or os.curdir))
    except (OSError, ValueError):  # no such folder, or not even the name of one
        return []


def launch_executable(
    file_name: str, args: List[str], output: Union[int, IO[Any], None] = subprocess.DEVNULL
) -> subprocess.Popen[bytes]:
    """Start an executable in a session of its own, so that Ctrl-C in the terminal reaches only the trainer.

    :param file_name: as for `validate_environment_path`.
    :param output: where what it prints goes, errors included.
    :raises UnityEnvironmentException: it is missing or cannot be run.
    """
    path = validate_environment_path(file_name)
    if path is None:
        raise UnityEnvironmentException(f"{file_name} cannot be started: there is {describe_missing(file_name)}")
    path = os.path.abspath(path)  # a bare name would be looked for on the search path
    if not os.access(path, os.X_OK):
        raise UnityEnvironmentException(f"{path} is not executable. Make it so: chmod +x '{path}'")
    own_group: Dict[str, Any] = {"start_new_session": True}
    if sys.platform == "win32":
        own_group = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
    try:
        return subprocess.Popen(
            [path, *args], stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, **own_group
        )
    except OSError as error:
        hint = " Is it made for this platform? A script needs a first line such as #!/bin/sh."
        raise UnityEnvironmentException(
            f"{path} cannot be started: {error.strerror}.{hint if error.errno == errno.ENOEXEC else ''}"
        ) from None
