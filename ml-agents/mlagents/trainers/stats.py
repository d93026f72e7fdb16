"""Statistics of a run: collected by category (a behaviour's name), summed up and handed to the writers."""

from __future__ import annotations

import abc
import contextlib
import tempfile
import time
from collections import defaultdict
from enum import Enum
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING, Any, Dict, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Set, Tuple

import numpy as np

from mlagents_envs.logging_util import DEBUG, get_logger
from mlagents_envs.side_channel.stats_side_channel import StatsAggregationMethod
from mlagents_envs.timers import set_gauge

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

logger = get_logger(__name__)

CUMULATIVE_REWARD = "Environment/Cumulative Reward"
GROUP_CUMULATIVE_REWARD = "Environment/Group Cumulative Reward"
SELF_PLAY_ELO = "Self-play/ELO"
EVALUATION_REWARD = "Evaluation/Cumulative Reward"
EVALUATION_LENGTH = "Evaluation/Episode Length"
IS_TRAINING = "Is Training"
HISTOGRAM_SUFFIX = "_hist"
"""Added to a statistic's tag for the distribution that its mean was taken from."""


class StatsSummary(NamedTuple):
    """What one statistic came to since the last summary.

    `full_dist` holds the values in the order in which they were added; writers of plug-ins may put a bare float there.
    """

    full_dist: List[float]
    aggregation_method: StatsAggregationMethod

    @staticmethod
    def empty() -> StatsSummary:
        """Return the summary of a statistic to which nothing was added."""
        return StatsSummary([], StatsAggregationMethod.AVERAGE)

    @property
    def values(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        """The values, (num,) float64."""
        return np.atleast_1d(np.asarray(self.full_dist, dtype=np.float64))

    @property
    def aggregated_value(self) -> float:
        """The one number that stands for the values, by the aggregation method; a histogram's is its mean."""
        if self.aggregation_method == StatsAggregationMethod.SUM:
            return self.sum
        if self.aggregation_method == StatsAggregationMethod.MOST_RECENT and self.num:
            return float(self.values[-1])
        return self.mean

    @property
    def mean(self) -> float:
        """The mean; NaN when there are no values."""
        return float(self.sum / self.num) if self.num else float("nan")

    @property
    def std(self) -> float:
        """The standard deviation (of a population: divided by num); NaN when there are no values."""
        with np.errstate(invalid="ignore", over="ignore"):  # of infinite values
            return float(self.values.std()) if self.num else float("nan")

    @property
    def num(self) -> int:
        """How many values there are."""
        return int(self.values.size)

    @property
    def sum(self) -> float:
        """The sum."""
        with np.errstate(invalid="ignore", over="ignore"):
            return float(self.values.sum())


class StatsPropertyType(Enum):
    """What `StatsWriter.add_property` tells about a category."""

    HYPERPARAMETERS = "hyperparameters"
    SELF_PLAY = "selfplay"


class StatsWriter(abc.ABC):
    """Takes the statistics to one place: a file, a terminal, a service.

    Plug-ins add theirs through the entry point group `mlagents.stats_writer`.

    :cvar origin: the plug-in that it comes from, for messages; empty for our own.
    """

    origin: str = ""

    def on_add_stat(  # noqa: B027  # optional
        self,
        category: str,
        key: str,
        value: float,
        aggregation: StatsAggregationMethod = StatsAggregationMethod.AVERAGE,
    ) -> None:
        """Take a single value at the moment it is added; called very often."""

    @abc.abstractmethod
    def write_stats(self, category: str, values: Dict[str, StatsSummary], step: int) -> None:
        """Write the summary of a category at a step of its trainer."""

    def add_property(  # noqa: B027  # optional
        self, category: str, property_type: StatsPropertyType, value: Any
    ) -> None:
        """Take a fact about a category that is not a series of numbers, like its hyperparameters."""

    def close(self) -> None:  # noqa: B027  # optional
        """Let go of files and connections at the end of the run."""


class GaugeWriter(StatsWriter):
    """Keeps the means and sums as gauges in the timers, so that they end up in `timers.json`."""

    @staticmethod
    def sanitize_string(s: str) -> str:
        """Return a name without slashes and spaces."""
        return s.replace("/", ".").replace(" ", "")

    def write_stats(self, category: str, values: Dict[str, StatsSummary], step: int) -> None:
        """Set the gauges `<category>.<statistic>.mean` and `.sum`."""
        for key, summary in values.items():
            name = GaugeWriter.sanitize_string(f"{category}.{key}")
            set_gauge(f"{name}.mean", summary.mean)
            set_gauge(f"{name}.sum", summary.sum)


class ConsoleWriter(StatsWriter):
    """Logs one line per summary."""

    def __init__(self) -> None:
        self.training_start_time = time.time()
        self.self_play = False

    def write_stats(self, category: str, values: Dict[str, StatsSummary], step: int) -> None:
        """Log the step, the time since the start and the rewards of the episodes that ended since the last summary."""
        elapsed_s = time.time() - self.training_start_time
        parts = [category, f"Step: {step}", f"Time Elapsed: {elapsed_s:0.3f} s"]
        if EVALUATION_REWARD in values:
            reward = values[EVALUATION_REWARD]
            parts += [f"Evaluation of {reward.num} episodes", f"Mean Reward: {reward.mean:0.3f}"]
            logger.info(". ".join([*parts, f"Std of Reward: {reward.std:0.3f}."]))
            return
        if CUMULATIVE_REWARD in values:
            reward = values[CUMULATIVE_REWARD]
            parts += [f"Mean Reward: {reward.mean:0.3f}", f"Std of Reward: {reward.std:0.3f}"]
            if GROUP_CUMULATIVE_REWARD in values:
                parts.append(f"Mean Group Reward: {values[GROUP_CUMULATIVE_REWARD].mean:0.3f}")
        else:
            parts.append("No episode was completed since last summary")
        is_training = IS_TRAINING in values and values[IS_TRAINING].aggregated_value > 0
        parts.append("Training" if is_training else "Not Training")
        if self.self_play and SELF_PLAY_ELO in values:
            parts.append(f"ELO: {values[SELF_PLAY_ELO].aggregated_value:0.3f}")
        logger.info(". ".join(parts) + ".")

    def add_property(self, category: str, property_type: StatsPropertyType, value: Any) -> None:
        """Log hyperparameters; note whether a self-play rating belongs in the line."""
        if property_type == StatsPropertyType.HYPERPARAMETERS:
            logger.info("Hyperparameters of behavior %s:%s", category, _as_text(value, indent="\t"))
        elif property_type == StatsPropertyType.SELF_PLAY:
            self.self_play = bool(value)


class TensorboardWriter(StatsWriter):
    """Writes TensorBoard event files, in one folder per category; each summary is on disk when `write_stats` returns.

    Every statistic is a scalar of its name. The cumulative reward, and whatever is aggregated as a histogram, also
    leave a histogram (`<name>_hist`), from which the spread over the episodes can be read back.

    :param base_dir: the folder above the categories' folders.
    :param clear_past_data: delete the event files of an earlier run in a category's folder before its first summary.
    :param hidden_keys: statistics that are for other writers only.
    """

    def __init__(self, base_dir: str, clear_past_data: bool = False, hidden_keys: Optional[List[str]] = None) -> None:
        self.base_dir = base_dir
        self.hidden_keys: List[str] = hidden_keys if hidden_keys is not None else []
        self.summary_writers: Dict[str, SummaryWriter] = {}
        self._clear_past_data = clear_past_data
        self._cleared: Set[str] = set()

    def write_stats(self, category: str, values: Dict[str, StatsSummary], step: int) -> None:
        """Add a point to every curve of the category.

        :raises OSError: the folder cannot be written to; the next summary then begins a new event file.
        """
        with self._open_writer(category) as writer:
            for key, summary in values.items():
                if key in self.hidden_keys or not summary.num:
                    continue
                writer.add_scalar(key, summary.aggregated_value, step)
                if key == CUMULATIVE_REWARD or summary.aggregation_method == StatsAggregationMethod.HISTOGRAM:
                    finite = summary.values[np.isfinite(summary.values)]  # nothing else falls into a bin
                    if finite.size:
                        writer.add_histogram(key + HISTOGRAM_SUFFIX, finite, step)

    def add_property(self, category: str, property_type: StatsPropertyType, value: Any) -> None:
        """Add the hyperparameters as text."""
        if property_type == StatsPropertyType.HYPERPARAMETERS:
            with self._open_writer(category) as writer:
                writer.add_text("Hyperparameters", _as_text(value, indent="    "))  # indented by 4: code in Markdown

    def close(self) -> None:
        """Close the event files."""
        for category in list(self.summary_writers):
            self.summary_writers.pop(category).close()

    @contextlib.contextmanager
    def _open_writer(self, category: str) -> Iterator[SummaryWriter]:
        """Give the category's writer, flush it afterwards, and begin anew after a failure."""
        folder = Path(self.base_dir, category)
        try:
            if category not in self.summary_writers:
                self.summary_writers[category] = self._create_writer(folder, category)
            _check_writable(folder)
            yield self.summary_writers[category]
            self.summary_writers[category].flush()
        except Exception:
            failed = self.summary_writers.pop(category, None)
            if failed is not None:
                with contextlib.suppress(Exception):  # the first failure is the one to tell of
                    failed.close()
            raise

    def _create_writer(self, folder: Path, category: str) -> SummaryWriter:
        # Imported here, for it takes a second, and not every run writes event files.
        from torch.utils.tensorboard import SummaryWriter

        folder.mkdir(parents=True, exist_ok=True)
        _check_writable(folder)
        if self._clear_past_data and category not in self._cleared:
            _delete_event_files(folder)
            self._cleared.add(category)
        return SummaryWriter(str(folder))


class StatsReporter:
    """Collects the statistics of one category and hands them to all writers; the values are shared by the process.

    A writer that fails does not stop the run: a warning names it and its error, once until it works again.

    :param category: usually the behaviour's name.
    """

    writers: List[StatsWriter] = []
    stats_dict: Dict[str, Dict[str, List[float]]] = defaultdict(lambda: defaultdict(list))
    stats_aggregation: Dict[str, Dict[str, StatsAggregationMethod]] = defaultdict(
        lambda: defaultdict(lambda: StatsAggregationMethod.AVERAGE)
    )
    lock = RLock()
    _failing: Set[Tuple[int, str]] = set()
    """Which writer (by identity) has failed in which method, and has been warned of."""

    def __init__(self, category: str) -> None:
        self.category = category

    @staticmethod
    def add_writer(writer: StatsWriter) -> None:
        """Add a writer for all categories."""
        with StatsReporter.lock:
            StatsReporter.writers.append(writer)

    @staticmethod
    def close_writers() -> None:
        """Close all writers and forget them, together with what has not been written, so that another run can begin."""
        with StatsReporter.lock:
            StatsReporter._tell_writers("close")
            StatsReporter.writers.clear()
            StatsReporter.stats_dict.clear()
            StatsReporter.stats_aggregation.clear()
            StatsReporter._failing.clear()

    @staticmethod
    def state_dict() -> Dict[str, Any]:
        """Return what was added in all categories since their last summaries."""
        with StatsReporter.lock:
            return {
                "values": {category: dict(values) for category, values in StatsReporter.stats_dict.items()},
                "aggregation": {
                    category: {key: method.value for key, method in methods.items()}
                    for category, methods in StatsReporter.stats_aggregation.items()
                },
            }

    @staticmethod
    def load_state_dict(state: Mapping[str, Any]) -> None:
        """Go on with what `state_dict` told, in the place of what was added so far."""
        with StatsReporter.lock:
            StatsReporter.stats_dict.clear()
            for category, values in state["values"].items():
                StatsReporter.stats_dict[category].update({key: list(numbers) for key, numbers in values.items()})
            for category, methods in state["aggregation"].items():
                known = {key: StatsAggregationMethod(method) for key, method in methods.items()}
                StatsReporter.stats_aggregation[category].update(known)

    def add_property(self, property_type: StatsPropertyType, value: Any) -> None:
        """Tell the writers a fact about this category."""
        with StatsReporter.lock:
            StatsReporter._tell_writers("add_property", self.category, property_type, value)

    def add_stat(
        self, key: str, value: float, aggregation: StatsAggregationMethod = StatsAggregationMethod.AVERAGE
    ) -> None:
        """Add a value to a statistic.

        :param key: the statistic's name, like "Losses/Policy Loss".
        :param aggregation: how the values since the last summary become one; the latest call decides.
        """
        with StatsReporter.lock:
            StatsReporter.stats_dict[self.category][key].append(value)
            StatsReporter.stats_aggregation[self.category][key] = aggregation
            self._tell_of_value(key, value, aggregation)

    def set_stat(self, key: str, value: float) -> None:
        """Replace all values of a statistic by this one."""
        aggregation = StatsAggregationMethod.MOST_RECENT
        with StatsReporter.lock:
            StatsReporter.stats_dict[self.category][key] = [value]
            StatsReporter.stats_aggregation[self.category][key] = aggregation
            self._tell_of_value(key, value, aggregation)

    def write_stats(self, step: int) -> None:
        """Hand a summary of everything added since the last one to the writers.

        :param step: the trainer's step.
        """
        with StatsReporter.lock:
            summaries = {key: self.get_stats_summaries(key) for key in StatsReporter.stats_dict[self.category]}
            summaries = {key: summary for key, summary in summaries.items() if summary.num}
            del StatsReporter.stats_dict[self.category]
            StatsReporter._tell_writers("write_stats", self.category, summaries, int(step))

    def write_apart(self, values: Mapping[str, Sequence[float]], step: int) -> None:
        """Hand statistics to the writers at once, by their means; what waits for the next summary goes on to wait.

        :param step: the trainer's step.
        """
        with StatsReporter.lock:
            average = StatsAggregationMethod.AVERAGE
            summaries = {key: StatsSummary(list(map(float, numbers)), average) for key, numbers in values.items()}
            StatsReporter._tell_writers("write_stats", self.category, summaries, int(step))

    def get_stats_summaries(self, key: str) -> StatsSummary:
        """Return what was added to a statistic since the last summary; empty when that is nothing."""
        with StatsReporter.lock:
            values = StatsReporter.stats_dict[self.category].get(key)
            if not values:
                return StatsSummary.empty()
            return StatsSummary(list(values), StatsReporter.stats_aggregation[self.category][key])

    @staticmethod
    def _tell_writers(method: str, *args: Any) -> None:
        """Call a method of every writer."""
        for writer in StatsReporter.writers:
            StatsReporter._tell(writer, method, *args)

    def _tell_of_value(self, key: str, value: float, aggregation: StatsAggregationMethod) -> None:
        """Call `on_add_stat` of the writers that have one of their own; few do, and values come by the thousand."""
        for writer in StatsReporter.writers:
            if type(writer).on_add_stat is not StatsWriter.on_add_stat:
                StatsReporter._tell(writer, "on_add_stat", self.category, key, value, aggregation)

    @staticmethod
    def _tell(writer: StatsWriter, method: str, *args: Any) -> None:
        """Call a method of a writer; a failure is a warning."""
        failing = StatsReporter._failing
        try:
            getattr(writer, method)(*args)
            failing.discard((id(writer), method))
        except Exception as error:  # a curve that cannot be written is not worth a training run
            if (id(writer), method) not in failing:
                failing.add((id(writer), method))
                logger.warning(
                    "The statistics writer %s%s failed in %s: %s: %s. The run goes on.",
                    type(writer).__name__,
                    writer.origin and f" of {writer.origin}",
                    method,
                    type(error).__name__,
                    error,
                    exc_info=logger.isEnabledFor(DEBUG),
                )


def _as_text(value: Any, indent: str) -> str:
    """Return nested dictionaries as indented lines, each after a line break; anything else on the same line."""
    if not isinstance(value, dict) or not value:
        return f" {value}"
    lines = (f"\n{indent}{key}:{_as_text(item, indent + '  ')}" for key, item in value.items())
    return "".join(lines)


def _delete_event_files(folder: Path) -> None:
    """Delete TensorBoard's files of an earlier run, and say which."""
    event_files = sorted(folder.glob("events.out.tfevents*"))
    for path in event_files:
        path.unlink()
    if event_files:
        names = ", ".join(path.name for path in event_files)
        logger.info("Deleted the TensorBoard files of an earlier run in %s: %s.", folder, names)


def _check_writable(folder: Path) -> None:
    """Write as much as a summary may need to an unnamed file in the folder.

    TensorBoard writes from a thread of its own, which on a full disk would print a traceback and then be gone.

    :raises OSError: the folder is gone, full or closed to us.
    """
    with tempfile.TemporaryFile(dir=folder) as probe:
        probe.write(bytes(1 << 16))
        probe.flush()
