"""A lock on a run's folder: two processes that write the same files would each destroy what the other has learned."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import IO, Optional

from mlagents.trainers.exception import UnityTrainerException
from mlagents_envs.logging_util import get_logger

logger = get_logger(__name__)

if sys.platform == "win32":
    import msvcrt

    def _lock(file: IO[str]) -> None:
        file.seek(_BYTE)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _lock(file: IO[str]) -> None:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _BYTE)


_BYTE = 1 << 20
"""The byte that is locked: far behind those that name the holder, which Windows would let nobody else read."""


class RunLock:
    """Held by one process at a time; the system takes it back from one that is killed.

    :param path: of the file that stands for it.
    """

    def __init__(self, path: Path):
        self._path = path
        self._file: Optional[IO[str]] = None

    def take(self) -> None:
        """Take it.

        :raises UnityTrainerException: another process has it.
        :raises OSError: its file cannot be made.
        """
        while self._file is None:
            file = self._path.open("a+", encoding="utf-8")
            try:
                _lock(file)
            except (BlockingIOError, PermissionError):  # Windows says the latter
                raise self._taken(file) from None
            except OSError as error:  # some network file systems know no locks
                file.close()
                logger.info(f"{self._path.parent} cannot be locked ({error}): take care that one process writes to it.")
                return
            if not self._is_in_place(file):
                file.close()  # whoever had it removed it just now
                continue
            file.truncate(0)
            file.write(f"{os.getpid()}\n")
            file.flush()
            self._file = file

    def check(self) -> None:
        """Check that no other process has it; nothing is written.

        :raises UnityTrainerException: one has.
        """
        if self._file is not None or not os.access(self._path, os.W_OK):
            return
        file = self._path.open("r+", encoding="utf-8")
        try:
            _lock(file)
        except (BlockingIOError, PermissionError):
            raise self._taken(file) from None
        except OSError:  # as in `take`
            pass
        file.close()

    def _is_in_place(self, file: IO[str]) -> bool:
        try:
            return os.path.samestat(os.fstat(file.fileno()), os.stat(self._path))
        except FileNotFoundError:
            return False

    def release(self) -> None:
        """Give it back."""
        if self._file is None:
            return
        if sys.platform != "win32" and self._is_in_place(self._file):  # Windows keeps a file that is open
            os.unlink(self._path)
        self._file.close()
        self._file = None

    def _taken(self, file: IO[str]) -> UnityTrainerException:
        with file:
            file.seek(0)
            holder = file.readline(20).strip()
        by_whom = f"the process {holder}" if holder.isdecimal() else "another process"
        return UnityTrainerException(
            f"The run in {self._path.parent} is being trained by {by_whom}. Wait for it, stop it, or choose another "
            f"--run-id."
        )
