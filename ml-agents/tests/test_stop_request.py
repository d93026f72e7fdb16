"""Ctrl-C, on real processes with real signals."""

import signal
import subprocess
import sys
import threading

import pytest

from mlagents.trainers.stop_request import StopRequest

SCRIPT = """
import os, signal
from mlagents.trainers.stop_request import StopRequest

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background process would ignore it
with StopRequest() as stop:
    print("ready", stop.requested, flush=True)
    os.read(0, 1)  # the parent's word to go on; a signal does not end the wait
    print("requested", stop.requested, flush=True)
try:
    print("clean end", flush=True)
    os.read(0, 1)
except KeyboardInterrupt:
    print("interrupted as ever", flush=True)
"""

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")


@pytest.fixture
def process():
    """Start the script and wait until it listens."""
    command = [sys.executable, "-u", "-c", SCRIPT]
    listening = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert listening.stdout.readline() == "ready False\n"
        yield listening
    finally:
        listening.kill()
        listening.communicate()


def interrupt(process):
    """Send the first SIGINT, and wait until it was seen."""
    process.send_signal(signal.SIGINT)
    line = process.stdout.readline()
    assert "Stopping after this step" in line
    assert "again to leave at once" in line


def go_on(process):
    process.stdin.write(".")
    process.stdin.flush()


def test_without_a_signal_nothing_is_requested(process):
    go_on(process)
    assert process.stdout.readline() == "requested False\n"


def test_the_first_signal_is_a_request_and_the_end_is_clean(process):
    interrupt(process)
    go_on(process)
    assert process.stdout.readline() == "requested True\n"
    assert process.stdout.readline() == "clean end\n"
    go_on(process)
    rest, _ = process.communicate(timeout=60)
    assert rest == ""
    assert process.returncode == 0


def test_the_second_signal_ends_the_process_at_once(process):
    interrupt(process)
    process.send_signal(signal.SIGINT)  # while the step is not over yet
    rest, _ = process.communicate(timeout=60)
    assert rest == ""
    assert process.returncode == -signal.SIGINT


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_clusters_signal_asks_too(process, second):
    process.send_signal(signal.SIGTERM)
    line = process.stdout.readline()
    assert "Stopping after this step. Another SIGTERM ends it at once." in line
    process.send_signal(second)
    process.communicate(timeout=60)
    assert process.returncode == -second


def test_afterwards_signals_mean_what_they_meant_before(process):
    go_on(process)
    assert process.stdout.readline() == "requested False\n"
    assert process.stdout.readline() == "clean end\n"
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "interrupted as ever\n"


def test_the_handler_is_put_back_after_an_error():
    before = signal.getsignal(signal.SIGINT)
    stop = StopRequest()
    with pytest.raises(ZeroDivisionError):
        with stop:
            _ = 1 / 0
    assert signal.getsignal(signal.SIGINT) is before


def test_another_thread_leaves_the_handlers_alone():
    before = signal.getsignal(signal.SIGINT)
    seen = []

    def run():
        with StopRequest() as stop:
            seen.append((stop.requested, signal.getsignal(signal.SIGINT)))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [(False, before)]
