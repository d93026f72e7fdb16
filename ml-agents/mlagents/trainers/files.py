"""Writing files so that a reader, or a crash, never meets half of one."""

from __future__ import annotations

import contextlib
import os
import re
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Optional, Type

from mlagents_envs.logging_util import get_logger

logger = get_logger(__name__)

RETRY_INTERVAL_S = 30.0
"""How long to wait before writing again what could not be written."""

_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{32}\.tmp")


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[str]:
    """Give a temporary name beside `path` to write to; once the block succeeds, it takes the place of `path`.

    The data are on the disk before the name changes; if the block fails, the file at `path` stays as it was.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_name(target)
    # Unlike the standard library's temporary files, this one has the permissions of any new file from the start.
    os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    try:
        yield temporary
        with open(temporary, "rb+") as written:
            os.fsync(written.fileno())
        os.replace(temporary, target)
        _sync_folder(target.parent)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def temporary_name(path: str | os.PathLike[str]) -> str:
    """Return a new name beside `path`, which `remove_leftovers` knows."""
    target = Path(path)
    return str(target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp"))


class Attempts:
    """Attempts to write something, as a context: an `OSError` in it is a warning, and reason to try again later.

    :param what: is written, for messages.
    :param clock: seconds, from whenever.
    """

    def __init__(self, what: str, clock: Callable[[], float] = time.monotonic):
        self._what = what
        self._clock = clock
        self._failed_at_s: Optional[float] = None

    def may_try(self) -> bool:
        """Return whether the last attempt succeeded, or was long enough ago."""
        return self._failed_at_s is None or self._clock() >= self._failed_at_s + RETRY_INTERVAL_S

    def __enter__(self) -> Attempts:
        return self

    def __exit__(
        self,
        error_type: Optional[Type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> bool:
        if isinstance(error, OSError):
            if self._failed_at_s is None:
                logger.warning(
                    f"{self._what} could not be written: {error}. Training goes on; it is tried again every "
                    f"{RETRY_INTERVAL_S:.0f} s."
                )
            self._failed_at_s = self._clock()
            return True
        if error is None and self._failed_at_s is not None:
            logger.info(f"{self._what} could be written again.")
            self._failed_at_s = None
        return False


def _sync_folder(folder: Path) -> None:
    """Put a change of name on the disk, where the system lets one."""
    if os.name == "posix":
        with contextlib.suppress(OSError):  # some network file systems do not; the file itself is safe by now
            descriptor = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


def remove_leftovers(folder: str | os.PathLike[str]) -> None:
    """Delete what `atomic_path` left below `folder` when its process was killed."""
    for leftover in Path(folder).rglob(".*.tmp"):
        if _TEMPORARY.fullmatch(leftover.name):
            leftover.unlink(missing_ok=True)


def write_text_atomically(path: str | os.PathLike[str], text: str) -> None:
    """Write `text` as the whole of the file at `path`."""
    with atomic_path(path) as temporary:
        Path(temporary).write_text(text, encoding="utf-8")
