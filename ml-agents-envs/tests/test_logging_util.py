"""Log lines: format, level, where they go."""

import contextlib
import io
import re

import pytest

from mlagents_envs import logging_util
from mlagents_envs.logging_util import get_logger, set_log_level


@pytest.fixture(autouse=True)
def _level_restored():
    yield
    set_log_level(logging_util.INFO)


def test_a_line_is_level_and_message(capsys):
    get_logger("some.module").info("Saved %d files.", 3)
    get_logger("some.module").warning("Careful.")
    assert capsys.readouterr() == ("[INFO] Saved 3 files.\n[WARNING] Careful.\n", "")


def test_loggers_of_all_modules_follow_the_level(capsys):
    before = get_logger("made.before")
    set_log_level(logging_util.ERROR)
    for logger in (before, get_logger("made.after")):
        logger.warning("unheard")
        logger.error("heard")
    assert capsys.readouterr().out == "[ERROR] heard\n" * 2


def test_debug_lines_say_when_and_where(capsys):
    set_log_level(logging_util.DEBUG)
    get_logger("some.module").debug("detail")
    line = capsys.readouterr().out
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d DEBUG \[test_logging_util.py:\d+\] detail\n", line)
    set_log_level(logging_util.INFO)
    get_logger("some.module").debug("unheard")
    get_logger("some.module").info("plain again")
    assert capsys.readouterr().out == "[INFO] plain again\n"


def test_a_redirected_stdout_is_honoured(capsys):
    logger = get_logger("some.module")
    elsewhere = io.StringIO()
    with contextlib.redirect_stdout(elsewhere):
        logger.info("elsewhere")
    logger.info("here")
    assert elsewhere.getvalue() == "[INFO] elsewhere\n"
    assert capsys.readouterr().out == "[INFO] here\n"


def test_asking_twice_gives_the_same_logger_and_one_line(capsys):
    assert get_logger("twice") is get_logger("twice")
    get_logger("twice").info("once")
    assert capsys.readouterr().out == "[INFO] once\n"
