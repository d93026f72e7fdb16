"""The live display, in child processes on real pseudo-terminals, and what a person sees of it on their screen."""

import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
import textwrap

import pytest

from mlagents.trainers.terminal import LiveProgressDisplay, ProgressDisplay, closing_message, progress_display

pty = pytest.importorskip("pty")  # Unix only
fcntl = pytest.importorskip("fcntl")
termios = pytest.importorskip("termios")

CONTROL = re.compile(r"\x1b\[(\??[0-9;]*)([A-Za-z])|(\r\n?|\n)|([^\x1b\r\n]+)")

PRELUDE = """
import os
import sys
from mlagents_envs.logging_util import get_logger
from mlagents.trainers.terminal import LiveProgressDisplay, progress_display
logger = get_logger("test")
now_s = 0.0
display = LiveProgressDisplay(sys.stdout, clock=lambda: now_s)
"""


class Screen:
    """A terminal of endless height that knows the few control sequences which the display needs."""

    def __init__(self, width):
        self.width = width
        self.rows = [""]
        self.row = self.column = 0
        self.cursor_shown = True

    def feed(self, output):
        position = 0
        for match in CONTROL.finditer(output):
            assert match.start() == position, f"unknown sequence at {output[position : position + 20]!r}"
            position = match.end()
            argument, command, line_break, text = match.groups()
            if text:
                self._type(text)
            elif line_break:
                self._break_line(line_break)
            else:
                self._control(argument, command)
        return self

    def _type(self, text):
        for character in text:
            if self.column == self.width:
                self._break_line("\r\n")
            row = self.rows[self.row].ljust(self.column)
            self.rows[self.row] = row[: self.column] + character + row[self.column + 1 :]
            self.column += 1

    def _break_line(self, line_break):
        if line_break != "\n":
            self.column = 0
        if line_break != "\r":
            self.row += 1
            if self.row == len(self.rows):
                self.rows.append("")

    def _control(self, argument, command):
        if command == "A":
            self.row = max(0, self.row - int(argument or 1))
        elif command == "K":
            assert argument == "2"
            self.rows[self.row] = ""
        elif argument == "?25":
            self.cursor_shown = command == "h"
        else:
            assert command == "m", f"unknown control sequence {argument}{command}"

    def narrow(self, width):
        """Break rows that have become too long, as terminals do; the cursor stays with its character."""
        assert self.row == len(self.rows) - 1
        self.rows = [row[i : i + width] for row in self.rows for i in range(0, max(1, len(row)), width)]
        self.row = len(self.rows) - 1
        self.column = len(self.rows[-1])
        self.width = width

    @property
    def lines(self):
        return [row.rstrip() for row in "\n".join(self.rows).rstrip().split("\n")]


class Terminal:
    """Runs a script on a pseudo-terminal of its own."""

    def __init__(self, script, width=100, **environment):
        self._master, slave = pty.openpty()
        attributes = termios.tcgetattr(slave)
        attributes[3] &= ~termios.ECHO
        termios.tcsetattr(slave, termios.TCSANOW, attributes)
        self.resize(width)
        inherited = {key: value for key, value in os.environ.items() if key not in ("COLUMNS", "LINES", "NO_COLOR")}
        self._process = subprocess.Popen(
            [sys.executable, "-c", PRELUDE + textwrap.dedent(script)],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env={**inherited, "TERM": "xterm-256color", "PYTHONIOENCODING": "utf-8", **environment},
        )
        os.close(slave)

    def resize(self, width):
        fcntl.ioctl(
            self._master, termios.TIOCSWINSZ, (24).to_bytes(2, sys.byteorder) + width.to_bytes(6, sys.byteorder)
        )

    def send_line(self):
        os.write(self._master, b"\n")

    def read(self, until=None):
        """Return the output up to the end, or until the script has written something."""
        output = b""
        while until is None or until.encode() not in output:
            try:
                chunk = os.read(self._master, 65536)
            except OSError:  # how Linux says that the other side has closed
                break
            if not chunk:
                break
            output += chunk
        return output.decode()

    def finish(self):
        output = self.read()
        return_code = self._process.wait()
        os.close(self._master)
        return output, return_code


def run(script, width=100, **environment):
    output, return_code = Terminal(script, width, **environment).finish()
    assert return_code == 0, output
    return output


def test_log_lines_scroll_by_above_the_bars():
    output = run(
        """
        with display:
            logger.info("before the first bar")
            for step in range(0, 1001, 10):
                now_s = step / 100
                display.update("3DBall", step, 1000, [step / 10])
                display.update("Basic", step // 2, 1000, [])
                if step % 250 == 0:
                    logger.info("at step %d " + "x" * 120, step)
            print("half a ", end="")
            print("line [bold]not markup[/bold]")
            print("to stderr", file=sys.stderr)
            print("\\r10%", end="")
            print("\\r20%", end="")
            display.update("3DBall", 1000, 1000, [100.0])
        logger.info("after")
        """
    )
    screen = Screen(100).feed(output)
    logged = [f"[INFO] at step {step} " + "x" * 120 for step in (0, 250, 500, 750, 1000)]
    wrapped = [line[i : i + 100] for line in logged for i in (0, 100)]
    assert screen.lines[:-3] == [
        "[INFO] before the first bar",
        *wrapped,
        "half a line [bold]not markup[/bold]",
        "to stderr",
        "20%",
    ]
    ball, basic, after = screen.lines[-3:]
    assert re.fullmatch(r"3DBall  ━{30}  1,000/1,000  reward 100\.000  100 steps/s  0:00 left", ball)
    assert re.fullmatch(r"Basic   ━{30}    500/1,000        reward -   51 steps/s  0:10 left", basic)  # 495 in 9.8 s
    assert after == "[INFO] after"
    assert screen.cursor_shown


def test_speed_is_taken_over_a_recent_window():
    output = run(
        """
        with display:
            for now_s in range(0, 1001, 10):
                display.update("3DBall", 500_000 + 10 * now_s, 1_000_000, [1.0])
            for now_s in range(1005, 1041, 5):
                display.update("3DBall", 510_000 + 100 * (now_s - 1000), 1_000_000, [1.0])
        """
    )
    (line,) = Screen(100).feed(output).lines
    assert line.endswith("514,000/1,000,000  reward 1.000  100 steps/s  1:21:00 left")  # 486,000 steps at 100


def test_updates_between_drawings_cost_no_output_but_are_shown_at_the_next():
    output = run(
        """
        with display:
            for step in range(1000):  # the clock stands still
                display.update("first", step, 2000, [])
                display.update("second", step, 2000, [])
            print("no drawing so far but one")
            now_s = 1.0
            display.update("first", 1000, 2000, [])
            os._exit(0)  # or the end would draw once more
        """
    )
    assert output.split("no drawing")[0].count("steps/s") == 1
    first, second = Screen(100).feed(output).lines[-2:]
    assert "1,000/2,000" in first
    assert "  999/2,000" in second


@pytest.mark.parametrize("width", [1, 20, 30, 50, 70, 90])
def test_bars_fit_into_a_narrow_terminal(width):
    output = run(
        """
        with display:
            display.update("3DBall", 96_000, 200_000, [34.212])
            now_s = 2.0
            display.update("3DBall", 109_024, 200_000, [34.212])
        """,
        width=width,
    )
    screen = Screen(width).feed(output)
    assert len(screen.lines) == 1  # nothing was left behind by a row that did not fit
    shown = ["109,024/200,000", "reward 34.212", "6,512 steps/s", "0:14 left"]
    n_expected = {1: 0, 20: 0, 30: 0, 50: 2, 70: 3, 90: 4}[width]
    assert [fact in screen.lines[0] for fact in shown] == [i < n_expected for i in range(4)]


def test_a_terminal_that_becomes_narrower_is_cleaned_up():
    terminal = Terminal(
        """
        with display:
            logger.info("first")
            display.update("3DBall", 100, 1000, [1.0])
            display.update("Basic", 100, 1000, [1.0])
            now_s = 1.0
            display.update("3DBall", 200, 1000, [1.0])
            print("ready")
            sys.__stdout__.write("\x1b[0;0m")  # invisible; past the proxy
            sys.__stdout__.flush()
            input()
            logger.info("second")
            now_s = 2.0
            display.update("3DBall", 300, 1000, [1.0])
        """
    )
    screen = Screen(100).feed(terminal.read(until="\x1b[0;0m"))
    terminal.resize(40)
    screen.narrow(40)
    terminal.send_line()
    output, return_code = terminal.finish()
    assert return_code == 0
    lines = screen.feed(output).lines
    assert lines[:3] == ["[INFO] first", "ready", "[INFO] second"]
    assert [line.split()[0] for line in lines[3:]] == ["3DBall", "Basic"]


def test_the_terminal_is_given_back_after_an_exception():
    output, return_code = Terminal(
        """
        stdout, stderr = sys.stdout, sys.stderr
        try:
            with display:
                display.update("3DBall", 10, 1000, [])
                assert sys.stdout is not stdout
                raise KeyboardInterrupt
        except KeyboardInterrupt:
            assert sys.stdout is stdout and sys.stderr is stderr
        display.update("3DBall", 20, 1000, [])
        raise RuntimeError("a bug")
        """
    ).finish()
    screen = Screen(100).feed(output)
    assert return_code == 1
    assert screen.lines[0].startswith("3DBall")
    assert screen.lines[1].startswith("Traceback")
    assert screen.lines[-1] == "RuntimeError: a bug"
    assert screen.cursor_shown


def test_the_cursor_is_never_left_hidden():
    output = run("display.update('3DBall', 1, 2, []); os._exit(0)")
    assert Screen(100).feed(output).cursor_shown


def test_no_color():
    script = "with display: display.update('3DBall', 50, 100, [1.0])"
    colour = re.compile(r"\x1b\[(?:\d;)*(?:3|9)[0-9]")
    coloured, plain = run(script), run(script, NO_COLOR="1")
    assert colour.search(coloured)
    assert not colour.search(plain)
    assert Screen(100).feed(plain).lines[0].startswith("3DBall  " + "━" * 15 + " " * 15 + "  50/100")


def test_a_terminal_without_the_letters():
    script = """
    with display:
        display.update("caf\u00e9", 50, 100, [1.0])
        logger.info("\u2603")
    print(sys.stdout.errors)
    """
    output = run(script, NO_COLOR="1", PYTHONIOENCODING="ascii:xmlcharrefreplace")
    snowman, bar, errors = Screen(100).feed(output).lines
    assert (snowman, errors) == ("[INFO] ?", "xmlcharrefreplace")
    assert bar.startswith("caf?  " + "-" * 15 + " " * 15 + "  50/100")


def test_a_dumb_terminal_gets_plain_lines():
    script = """
    with progress_display() as display:
        display.update("3DBall", 50, 100, [1.0])
        logger.info("plain")
    """
    assert run(script, TERM="dumb") == "[INFO] plain\r\n"


def test_without_a_terminal_nothing_is_shown_and_rich_is_not_imported():
    script = PRELUDE + textwrap.dedent(
        """
        with progress_display() as display:
            display.update("3DBall", 50, 100, [1.0])
            logger.info("plain")
        assert "rich" not in sys.modules
        """
    )
    finished = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (finished.stdout, finished.stderr, finished.returncode) == ("[INFO] plain\n", "", 0)
    assert type(progress_display(io.StringIO())) is ProgressDisplay


def test_training_survives_the_end_of_its_terminal(monkeypatch):
    master, slave = pty.openpty()
    stream = os.fdopen(slave, "w")
    monkeypatch.setattr(sys, "stdout", stream)
    with LiveProgressDisplay(stream, clock=iter(range(100)).__next__) as display:
        display.update("3DBall", 1, 100, [])
        assert sys.stdout is not stream
        os.close(master)
        display.update("3DBall", 2, 100, [])
        assert sys.stdout is stream
        display.update("3DBall", 3, 100, [])
    with contextlib.suppress(OSError):  # what it could not write
        stream.close()


def test_closing_words():
    message = closing_message("ball", "results", ["results/ball/3DBall.onnx"], interrupted=False)
    assert message.splitlines() == [
        "Training is over.",
        "  The model is in          results/ball/3DBall.onnx",
        "  See the curves:          tensorboard --logdir results/ball",
        "  Draw a picture of them:  mlagents-plot results/ball -o ball.png",
        "  Watch it play:           mlagents-learn results/ball/configuration.yaml --run-id ball --resume --inference",
    ]


def test_closing_words_of_an_interrupted_run_can_be_pasted_into_a_shell():
    message = closing_message("my run", "/data/all runs", [], interrupted=True)
    commands = [shlex.split(line.split(":", 1)[1]) for line in message.splitlines()[1:]]
    learn = ["mlagents-learn", "/data/all runs/my run/configuration.yaml", "--run-id", "my run", "--resume"]
    learn += ["--results-dir", "/data/all runs"]
    assert commands == [
        ["tensorboard", "--logdir", "/data/all runs/my run"],
        ["mlagents-plot", "/data/all runs/my run", "-o", "my run.png"],
        learn,
        [*learn, "--inference"],
    ]
