"""Loggers with one format and one level for the whole toolkit."""

import logging
import sys

CRITICAL = logging.CRITICAL
FATAL = logging.FATAL
ERROR = logging.ERROR
WARNING = logging.WARNING
INFO = logging.INFO
DEBUG = logging.DEBUG
NOTSET = logging.NOTSET

DATE_FORMAT = "%Y-%m-%d %H:%M:%S"
DEBUG_LOG_FORMAT = "%(asctime)s %(levelname)s [%(filename)s:%(lineno)d] %(message)s"
LOG_FORMAT = "[%(levelname)s] %(message)s"

ROOT_NAME = "mlagents_toolkit"
"""The one logger that owns the handler; every logger of the toolkit is below it."""


class _StdoutHandler(logging.StreamHandler):  # type: ignore[type-arg]  # generic only for type checkers
    """Writes to whatever `sys.stdout` is when a record arrives, so that a redirected stdout is honoured."""

    def __init__(self) -> None:
        super().__init__(sys.stdout)

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stdout
        super().emit(record)


def root_logger() -> logging.Logger:
    """Return the logger above all loggers of the toolkit, with its handler in place."""
    root = logging.getLogger(ROOT_NAME)
    if not root.handlers:
        root.propagate = False
        root.addHandler(_StdoutHandler())
        _apply_level(root, INFO)
    return root


def get_logger(name: str) -> logging.Logger:
    """Return the logger of a module; its level follows `set_log_level`.

    :param name: usually ``__name__``.
    """
    return root_logger().getChild(name)


def set_log_level(log_level: int) -> None:
    """Set the level of every logger of the toolkit; DEBUG also adds time and place to each line."""
    _apply_level(root_logger(), log_level)


def _apply_level(root: logging.Logger, log_level: int) -> None:
    root.setLevel(log_level)
    if log_level == DEBUG:
        formatter = logging.Formatter(fmt=DEBUG_LOG_FORMAT, datefmt=DATE_FORMAT)
    else:
        formatter = logging.Formatter(fmt=LOG_FORMAT)
    for handler in root.handlers:
        handler.setFormatter(formatter)
