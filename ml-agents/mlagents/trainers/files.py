"""Writing files so that a reader, or a crash, never meets half of one."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[str]:
    """Give a temporary name beside `path` to write to; once the block succeeds, it takes the place of `path`.

    The data are on the disk before the name changes; if the block fails, the file at `path` stays as it was.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = str(target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp"))
    # Unlike the standard library's temporary files, this one has the permissions of any new file from the start.
    os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    try:
        yield temporary
        with open(temporary, "rb+") as written:
            os.fsync(written.fileno())
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def write_text_atomically(path: str | os.PathLike[str], text: str) -> None:
    """Write `text` as the whole of the file at `path`."""
    with atomic_path(path) as temporary:
        Path(temporary).write_text(text, encoding="utf-8")
