"""What a person at a terminal sees of a run: the live progress display, and the closing words."""

from __future__ import annotations

import contextlib
import io
import os
import shlex
import sys
import threading
import time
from collections import deque
from types import TracebackType
from typing import (
    TYPE_CHECKING,
    Any,
    Callable,
    Collection,
    Deque,
    Dict,
    List,
    NamedTuple,
    Optional,
    Sequence,
    TextIO,
    Tuple,
    Type,
    cast,
)

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

DRAW_INTERVAL_S = 0.2
RATE_WINDOW_S = 30.0
"""Steps per second are taken over this time, which should span several rounds of collecting and learning."""

MIN_BAR_CELLS, MAX_BAR_CELLS = 8, 30
MAX_NAME_CELLS = 24
GAP_CELLS = 2


class ProgressDisplay:
    """Shows how far each behaviour's training is. This one shows nothing: the log lines say enough.

    Use it as a context manager around the training loop; `progress_display` chooses the kind that fits the stream.
    """

    def __enter__(self) -> ProgressDisplay:
        return self

    def __exit__(
        self,
        exc_type: Optional[Type[BaseException]],
        exc_value: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        """Leave the stream as it was."""

    def update(self, behavior: str, step: int, max_steps: int, returns: Collection[float]) -> None:
        """Note a behaviour's state; cheap enough for every iteration of the training loop.

        :param step: steps of the behaviour's trainer so far, of `max_steps`.
        :param returns: of recent episodes; looked at when they are shown.
        """


def progress_display(stream: Optional[TextIO] = None) -> ProgressDisplay:
    """Return a live display where the stream is a terminal that can show one, otherwise one that shows nothing.

    :param stream: `sys.stdout` when None.
    """
    stream = sys.stdout if stream is None else stream
    can_move_cursor = os.environ.get("TERM", "").lower() not in ("dumb", "unknown")
    return LiveProgressDisplay(stream) if stream.isatty() and can_move_cursor else ProgressDisplay()


class _State(NamedTuple):
    """The newest that is known of a behaviour."""

    step: int
    max_steps: int
    returns: Collection[float]


class LiveProgressDisplay(ProgressDisplay):
    """One bar per behaviour at the bottom of the terminal; whatever else is printed scrolls by above the bars.

    Drawing happens inside `update`, at most every `DRAW_INTERVAL_S`: there is no thread that would compete with the
    training. While bars are shown, `sys.stdout` and `sys.stderr` (as far as they are this terminal) are replaced by
    proxies that lift the bars, print, and put the bars back.

    :param stream: a terminal.
    :param clock: seconds, rising.
    """

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._states: Dict[str, _State] = {}
        self._rates: Dict[str, _Rate] = {}
        self._next_draw_s = float("-inf")
        self._bars: Optional[_Bars] = None

    def __exit__(
        self,
        exc_type: Optional[Type[BaseException]],
        exc_value: Optional[BaseException],
        traceback: Optional[TracebackType],
    ) -> None:
        """Draw the last state, and give the terminal back."""
        if self._bars is not None:
            self._draw()
        self._close()

    def update(self, behavior: str, step: int, max_steps: int, returns: Collection[float]) -> None:
        """Note a behaviour's state, and draw all of them when it is time to."""
        self._states[behavior] = _State(step, max_steps, returns)
        if self._clock() >= self._next_draw_s:
            self._draw()

    def _draw(self) -> None:
        now_s = self._clock()
        self._next_draw_s = now_s + DRAW_INTERVAL_S
        for behavior, state in self._states.items():
            self._rates.setdefault(behavior, _Rate()).add(now_s, state.step)
        rates = {behavior: rate.steps_per_s for behavior, rate in self._rates.items()}
        try:
            if self._bars is None:
                self._bars = _Bars(self._stream)
            self._bars.draw(self._states, rates)
        except OSError:  # the terminal has gone, which is no reason to stop training
            self._close()

    def _close(self) -> None:
        self._next_draw_s = float("inf")
        if self._bars is not None:
            self._bars.close()
            self._bars = None


class _Rate:
    """Steps per second over a recent window."""

    def __init__(self) -> None:
        self._samples: Deque[Tuple[float, int]] = deque()

    def add(self, now_s: float, step: int) -> None:
        self._samples.append((now_s, step))
        while len(self._samples) > 2 and now_s - self._samples[1][0] >= RATE_WINDOW_S:
            self._samples.popleft()

    @property
    def steps_per_s(self) -> Optional[float]:
        """None until there are two moments to compare."""
        (first_s, first_step), (last_s, last_step) = self._samples[0], self._samples[-1]
        return (last_step - first_step) / (last_s - first_s) if last_s > first_s else None


class _BarCharacters(NamedTuple):
    """The characters of a bar; where there is no colour, they have to differ."""

    done: str
    to_do: str

    @staticmethod
    def of(console: Console) -> _BarCharacters:
        line = "-" if console.options.ascii_only else "━"
        return _BarCharacters(line, " " if console.no_color else line)


class _Bars:
    """The bars as they are drawn, by rich, which is imported when there is a terminal to draw on and not before."""

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console
        from rich.live import Live

        self._stream, self._stream_errors = stream, stream.errors
        self._set_stream_errors("replace")  # a name that this terminal has no letters for must not stop the training
        self._console = Console(file=stream, force_terminal=True)
        self._live = Live(console=self._console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False)
        self._bar_characters = _BarCharacters.of(self._console)
        self._stdout, self._stderr = sys.stdout, sys.stderr
        self._proxies: List[_AboveBars] = []
        self._n_rows = 0
        self._row_cells = 0
        self._live.start()
        self._console.show_cursor(True)  # rich hides it, and a process that is killed could not bring it back
        if sys.stdout is stream:
            sys.stdout = self._proxy(sys.stdout)
            if sys.stderr.isatty():
                sys.stderr = self._proxy(sys.stderr)

    def draw(self, states: Dict[str, _State], rates: Dict[str, Optional[float]]) -> None:
        self._clear_broken_rows()
        rows = _rows(states, rates, self._console.width, self._bar_characters)
        self._n_rows, self._row_cells = len(states), self._console.measure(rows).maximum
        self._live.update(rows, refresh=True)

    def print_above(self, lines: str) -> None:
        from rich.text import Text

        self._clear_broken_rows()
        self._console.print(Text.from_ansi(lines), soft_wrap=True)

    def close(self) -> None:
        sys.stdout, sys.stderr = self._stdout, self._stderr
        with contextlib.suppress(OSError):  # the terminal may have gone
            for proxy in self._proxies:
                proxy.finish_line()
            self._live.stop()
        self._set_stream_errors(self._stream_errors)

    def _clear_broken_rows(self) -> None:
        """Clear what rich does not know of: a terminal that was made narrower breaks each row of the bars in two."""
        from rich.control import Control
        from rich.segment import ControlType

        width = self._console.width
        extra_rows = self._n_rows * ((self._row_cells - 1) // width)
        if extra_rows > 0:
            self._console.control(Control(*((ControlType.ERASE_IN_LINE, 2), (ControlType.CURSOR_UP, 1)) * extra_rows))
            self._row_cells = width

    def _set_stream_errors(self, errors: Optional[str]) -> None:
        if isinstance(self._stream, io.TextIOWrapper):
            with contextlib.suppress(OSError):
                self._stream.reconfigure(errors=errors)

    def _proxy(self, stream: TextIO) -> TextIO:
        self._proxies.append(_AboveBars(self, stream))
        return cast(TextIO, self._proxies[-1])


class _AboveBars:
    """Stands in for a stream of the terminal and prints each whole line above the bars."""

    def __init__(self, bars: _Bars, stream: TextIO) -> None:
        self._bars = bars
        self._stream = stream
        self._line = ""
        self._lock = threading.RLock()  # a signal handler may log in the middle of a write

    def write(self, text: str) -> int:
        with self._lock:
            lines, newline, self._line = (self._line + text).rpartition("\n")
            self._line = self._line.rpartition("\r")[2]  # what a carriage return overwrites need not be kept
            if newline:
                self._bars.print_above(lines)
        return len(text)

    def flush(self) -> None:
        """Leave an unfinished line unfinished: the bars would be drawn over it."""

    def finish_line(self) -> None:
        if self._line:
            self.write("\n")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _rows(
    states: Dict[str, _State], rates: Dict[str, Optional[float]], width: int, bar_characters: _BarCharacters
) -> Text:
    """Return a row per behaviour: name, bar, and as many of steps, reward, speed and time left as there is room for."""
    from rich.cells import cell_len, set_cell_size
    from rich.text import Text

    name_cells = min(MAX_NAME_CELLS, max(map(cell_len, states)))
    room = width - name_cells - GAP_CELLS - MIN_BAR_CELLS
    columns = []
    for column in zip(*(_facts(state, rates[behavior]) for behavior, state in states.items())):
        column_cells = max(map(len, column))
        room -= GAP_CELLS + column_cells
        if room < 0:
            room += GAP_CELLS + column_cells
            break
        columns.append([text.rjust(column_cells) for text in column])

    bar_cells = max(0, min(MAX_BAR_CELLS, MIN_BAR_CELLS + room))
    gap = " " * GAP_CELLS
    text = Text(no_wrap=True, overflow="crop", end="")
    for row, (behavior, state) in enumerate(states.items()):
        n_done = int(bar_cells * min(1.0, state.step / max(1, state.max_steps)))
        text.append("\n" if row else "")
        text.append(set_cell_size(behavior, name_cells) + gap, "bold")
        text.append(bar_characters.done * n_done, "bar.complete")
        text.append(bar_characters.to_do * (bar_cells - n_done), "bar.back")
        text.append("".join(gap + column[row] for column in columns))
    return text


def _facts(state: _State, rate: Optional[float]) -> List[str]:
    """Return what stands behind a bar, the most important first."""
    returns = tuple(state.returns)  # in one go: a trainer may be adding to them in another thread
    reward = f"{sum(returns) / len(returns):,.3f}" if returns else "-"
    steps_per_s = "-" if rate is None else f"{rate:,.0f}"
    return [
        f"{state.step:,}/{state.max_steps:,}",
        f"reward {reward}",
        f"{steps_per_s} steps/s",
        f"{_time_left(state, rate)} left",
    ]


def _time_left(state: _State, rate: Optional[float]) -> str:
    """Return hours, minutes and seconds, or a dash when there is no telling."""
    steps_left = max(0, state.max_steps - state.step)
    if not steps_left:
        return "0:00"
    if not rate or rate < 0:
        return "-"
    minutes, seconds = divmod(round(steps_left / rate), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


def closing_message(
    run_id: str, results_dir: str, model_paths: Sequence[str], interrupted: bool, best_paths: Sequence[str] = ()
) -> str:
    """Return what to tell at the end of a run: where the models are, and what can be done next.

    :param model_paths: the exported models; may be empty.
    :param interrupted: the run can go on from where it is.
    :param best_paths: the models that evaluations found best.
    """
    run_folder = os.path.join(results_dir, run_id)
    configuration = shlex.quote(os.path.join(run_folder, "configuration.yaml"))
    again = f"mlagents-learn {configuration} --run-id {shlex.quote(run_id)} --resume"
    if results_dir != "results":
        again += f" --results-dir {shlex.quote(results_dir)}"
    folder = shlex.quote(run_folder)
    plot = shlex.quote(f"{run_id}.png")

    lines = ["Training was interrupted; everything learned so far is saved." if interrupted else "Training is over."]
    lines += [f"  The model is in          {path}" for path in model_paths]
    lines += [f"  The best one is in       {path}" for path in best_paths]
    hints = [
        ("See the curves", f"tensorboard --logdir {folder}"),
        ("Draw a picture of them", f"mlagents-plot {folder} -o {plot}"),
    ]
    if interrupted:
        hints.append(("Go on with it", again))
    hints.append(("Watch it play", f"{again} --inference"))
    lines += [f"  {what + ':':<24} {command}" for what, command in hints]
    return "\n".join(lines)
