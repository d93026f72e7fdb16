"""Ctrl-C: asked once, training stops in good order; asked twice, at once."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Dict, Optional, Type

from mlagents_envs.logging_util import get_logger

logger = get_logger(__name__)


class StopRequest:
    """Whether the user asked training to stop; a context manager that listens to SIGINT.

    The first SIGINT sets `requested`, which the training loop looks at after every step. The second has its usual
    effect, the end of the process.
    """

    def __init__(self) -> None:
        self.requested = False
        self._previous: Dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        # Python lets only the main thread set handlers; a run in another thread is stopped by its owner.
        if threading.current_thread() is threading.main_thread():
            self._previous[signal.SIGINT] = signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(
        self,
        error_type: Optional[Type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: Optional[FrameType]) -> None:
        self.requested = True
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        logger.info("Stopping after this step. Press Ctrl-C again to leave at once.")
