"""The process that an environment runs in."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
from collections import deque
from typing import IO, List, Optional

import psutil

from mlagents_envs.env_utils import launch_executable

_LINES_TO_SHOW = 10
_BYTES_TO_SEARCH = 8192
"""How much of the end of a log is read for its last lines, however long they are."""

_TERMINATION_GRACE_S = 2.0


class EnvProcess:
    """An executable with a wire to the trainer.

    What it prints is kept aside, for the message in case it fails, and does not mix with what the trainer prints.

    :param file_name: of the executable; see `validate_environment_path`.
    :param args: of its command line.
    :param log_path: the file that it was told to write its log to.
    :raises UnityEnvironmentException: it is missing or cannot be run.
    """

    def __init__(self, file_name: str, args: List[str], log_path: Optional[str] = None):
        self._log_path = log_path
        self._output: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  # `stop` closes it
        try:
            self._popen = launch_executable(file_name, args, self._output)
        except BaseException:
            self._output.close()
            raise
        self.pid = self._popen.pid

    def has_ended(self, timeout_s: float = 0.0) -> bool:
        """Return whether it has ended, or does so within a time."""
        try:
            self._popen.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return False
        return True

    def describe_end(self) -> str:
        """Return how it ended: ``ended with exit code 3``, ``was killed by SIGSEGV``."""
        code = self._popen.returncode
        if code is not None and code < 0:
            try:
                return f"was killed by {signal.Signals(-code).name}"
            except ValueError:
                return f"was killed by signal {-code}"
        return f"ended with exit code {code}"

    def describe_log(self) -> str:
        """Return the last lines of its log, and of what it printed, for a message; empty when there are none."""
        parts = []
        if self._log_path is not None:
            try:
                with open(self._log_path, "rb") as log:
                    parts.append(_describe_tail(f"The end of its log, {self._log_path}", log))
            except OSError:
                parts.append(f"\nIt wrote no log to {self._log_path}.")
        if not self._output.closed:
            parts.append(_describe_tail("The last that it printed", self._output))
        return "".join(parts)

    def stop(self, grace_s: float) -> None:
        """End the process, and those that it started; doing so again does nothing.

        :param grace_s: how long it may take to end by itself, and so to save what it has to, in seconds.
        """
        if self._output.closed:
            return
        descendants = self._descendants()
        if not self.has_ended(grace_s):
            self._signal_all(descendants, kill=False)
            self.has_ended(_TERMINATION_GRACE_S)
        self._signal_all(descendants, kill=True)
        self._popen.wait()
        self._output.close()

    def _descendants(self) -> List[psutil.Process]:
        """Return what the process has started; on Windows only, elsewhere its process group tells."""
        if sys.platform == "win32":
            with contextlib.suppress(psutil.Error):
                return list(psutil.Process(self.pid).children(recursive=True))
        return []

    def _signal_all(self, descendants: List[psutil.Process], kill: bool) -> None:
        """Terminate or kill the process and its descendants, those that are still there."""
        if sys.platform == "win32":
            for process in [self._popen, *descendants]:
                with contextlib.suppress(psutil.Error, OSError):
                    process.kill() if kill else process.terminate()
        else:
            with contextlib.suppress(ProcessLookupError, PermissionError):  # nobody is left, and how macOS says so
                os.killpg(self.pid, signal.SIGKILL if kill else signal.SIGTERM)


def _describe_tail(title: str, file: IO[bytes]) -> str:
    """Return the last lines of a file under a title; empty when there is nothing."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _BYTES_TO_SEARCH))
    lines = deque(file.read().decode("utf-8", errors="replace").split("\n"), maxlen=_LINES_TO_SHOW + 1)
    text = [line.rstrip() for line in lines if line.strip()][-_LINES_TO_SHOW:]
    return "".join([f"\n{title}:", *(f"\n  {line}" for line in text)]) if text else ""
