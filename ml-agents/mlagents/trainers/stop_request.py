"""Ctrl-C, or a cluster's SIGTERM: asked once, training stops in good order; asked twice, at once."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Dict, Optional, Type

from mlagents_envs.logging_util import get_logger

logger = get_logger(__name__)


class StopRequest:
    """Whether the user asked training to stop; a context manager that listens to SIGINT and SIGTERM.

    The first signal sets `requested`, which the training loop looks at after every step. The second has its usual
    effect, the end of the process.
    """

    def __init__(self) -> None:
        self.requested = False
        self._previous: Dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        # Python lets only the main thread set handlers; a run in another thread is stopped by its owner.
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self,
        error_type: Optional[Type[BaseException]],
        error: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def renew(self) -> None:
        """Forget what was requested, and listen again."""
        self.requested = False
        for number in self._previous:
            signal.signal(number, self._handle)

    def _handle(self, number: int, frame: Optional[FrameType]) -> None:
        self.requested = True
        for listened_to in self._previous:
            signal.signal(listened_to, signal.SIG_DFL)
        again = "Press Ctrl-C again to leave" if number == signal.SIGINT else "Another SIGTERM ends it"
        logger.info(f"Stopping after this step. {again} at once.")
