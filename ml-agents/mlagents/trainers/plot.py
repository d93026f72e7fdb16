"""The command `mlagents-plot`: learning curves of one or more runs as a picture."""

from __future__ import annotations

import argparse
import io
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence

import numpy as np

from mlagents.plugins.stats_writer import INFERENCE_FOLDER
from mlagents.trainers.stats import CUMULATIVE_REWARD, HISTOGRAM_SUFFIX
from mlagents_envs.spelling import did_you_mean

EVENT_FILES = "events.out.tfevents*"
AXIS_LABELS = {
    CUMULATIVE_REWARD: "Cumulative reward per episode",
    "Environment/Group Cumulative Reward": "Cumulative group reward per episode",
    "Environment/Episode Length": "Episode length (decisions)",
}
WIDTH_INCHES, HEIGHT_INCHES, DOTS_PER_INCH = 8.0, 4.5, 150
COLORS = ["#2563eb", "#d9480f", "#2b8a3e", "#862e9c", "#c2255c", "#0b7285", "#5c4813", "#495057"]

Floats = np.ndarray[Any, np.dtype[np.float64]]


class PlotError(Exception):
    """Nothing can be drawn; the message says why and what to do."""


@dataclass(frozen=True)
class Curve:
    """A statistic of one behaviour over its run, (P,) points in the order of their steps."""

    steps: Floats
    means: Floats
    low: Optional[Floats] = None
    """The mean less one standard deviation over the episodes of a summary, but not below the worst of them; None where
    no distribution was recorded, NaN at points without one."""
    high: Optional[Floats] = None
    """Likewise above the mean."""


def find_run(run: str, results_dir: str) -> Path:
    """Return the folder of a run.

    :param run: the folder itself, or the id of a run in `results_dir`.
    :raises PlotError: there is no such run.
    """
    folders = [folder for folder in (Path(run), Path(results_dir, run)) if folder.is_dir()]
    if folders:
        return next((folder for folder in folders if _behavior_folders(folder)), folders[0])
    results = Path(results_dir)
    if not results.is_dir():
        raise PlotError(f"There is no run {run!r}, and no folder {results_dir!r} to look for runs in (--results-dir).")
    runs = sorted(folder.name for folder in results.iterdir() if folder.is_dir())
    there_is = f"there are: {', '.join(runs)}" if runs else "there are none"
    raise PlotError(f"There is no run {run!r}; in {results_dir!r} {there_is}.{did_you_mean(run, runs)}")


def read_curves(run_folder: Path, tag: str = CUMULATIVE_REWARD) -> Dict[str, Curve]:
    """Return the curves of a run's behaviours, by behaviour name.

    :param tag: the statistic's TensorBoard tag.
    :raises PlotError: the run has no event files, or nothing under that tag.
    """
    curves: Dict[str, Curve] = {}
    tags: Dict[str, None] = {}
    for behavior, folder in _behavior_folders(run_folder).items():
        events = _load_events(folder)
        tags.update(dict.fromkeys(events.Tags()["scalars"]))
        if tag in events.Tags()["scalars"]:
            curves[behavior] = _to_curve(events, tag)
    if not tags:
        raise PlotError(f"There are no statistics in {str(run_folder)!r} yet: no TensorBoard file with anything in it.")
    if not curves:
        raise PlotError(f"{str(run_folder)!r} has no {tag!r}; it has: {', '.join(tags)}.{did_you_mean(tag, tags)}")
    return curves


def draw(curves: Dict[str, Curve], tag: str, title: str, output: Path) -> None:
    """Draw curves into a picture file, whose ending decides the format.

    :param curves: by the name that each has in the legend.
    :raises PlotError: matplotlib is missing, or the file cannot be written.
    """
    try:
        import matplotlib
        from cycler import cycler
        from matplotlib.figure import Figure  # unlike pyplot it needs no screen, and leaves nothing behind
        from matplotlib.ticker import MaxNLocator, StrMethodFormatter
    except ImportError as error:
        raise PlotError(f'Drawing needs matplotlib ({error}): pip install "mlagents[plot]"') from error

    style = {
        "font.size": 12,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.prop_cycle": cycler(color=COLORS),
    }
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(WIDTH_INCHES, HEIGHT_INCHES), dpi=DOTS_PER_INCH, layout="constrained")
        axes = figure.subplots()
        for name, curve in curves.items():
            marker = "o" if curve.steps.size == 1 else None
            (line,) = axes.plot(curve.steps, curve.means, label=name, linewidth=2, marker=marker)
            if curve.low is not None and curve.high is not None:
                axes.fill_between(curve.steps, curve.low, curve.high, color=line.get_color(), alpha=0.18, linewidth=0)
        axes.set_xlabel("Training steps (decisions of all agents)")
        axes.set_ylabel(AXIS_LABELS.get(tag, tag))
        axes.set_title(title, loc="left", fontweight="bold", pad=12)
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, steps=[1, 2, 2.5, 5, 10]))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
        axes.set_xlim(left=0)
        axes.margins(x=0.01)
        axes.grid(alpha=0.3)
        axes.legend(loc="best", frameon=False, title=_legend_title(curves), title_fontsize=10, alignment="left")
        _save(figure, output)


def plot(runs: Sequence[str], output: Path, results_dir: str, tag: str, behavior: Optional[str]) -> None:
    """Draw the runs' curves of one statistic.

    :param behavior: only this behaviour's curves; all when None.
    :raises PlotError: for any mistake of the user.
    """
    curves: Dict[str, Curve] = {}
    behaviors: Dict[str, None] = {}
    folders = {find_run(run, results_dir).resolve(): run for run in runs}  # a run named twice is drawn once
    names = [folder.name for folder in folders]
    for folder, run in folders.items():
        of_run = read_curves(folder, tag)
        if behavior is not None and behavior not in of_run:
            hint = did_you_mean(behavior, of_run)
            raise PlotError(f"The run {run!r} has no {tag!r} of {behavior!r}; it has: {', '.join(of_run)}.{hint}")
        chosen = of_run if behavior is None else {behavior: of_run[behavior]}
        behaviors.update(dict.fromkeys(chosen))
        run_name = folder.name if names.count(folder.name) == 1 else run
        for name, curve in chosen.items():
            curves[run_name if len(chosen) == 1 else f"{run_name}: {name}"] = curve
    draw(curves, tag, title=", ".join(behaviors), output=output)


def main(argv: Optional[Sequence[str]] = None) -> None:
    """Run the command; a mistake is one line on stderr and exit code 1."""
    parser = argparse.ArgumentParser(
        prog="mlagents-plot",
        description="Draw a statistic of training runs against their steps, one line per run and behavior, shaded "
        "by one standard deviation over the episodes.",
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="a run's folder, or its id below --results-dir")
    parser.add_argument("-o", "--output", required=True, metavar="FILE.png", help="the picture; .svg and .pdf work too")
    parser.add_argument("--results-dir", default="results", help="where runs are (default: %(default)s)")
    parser.add_argument(
        "--tag", default=CUMULATIVE_REWARD, help="the statistic's TensorBoard tag (default: %(default)s)"
    )
    parser.add_argument("--behavior", help="draw this behavior only")
    args = parser.parse_args(argv)
    try:
        plot(args.runs, Path(args.output), args.results_dir, args.tag, args.behavior)
    except PlotError as error:
        sys.exit(f"mlagents-plot: {error}")
    print(f"Wrote {args.output}")


def _behavior_folders(run_folder: Path) -> Dict[str, Path]:
    """Return the folders with event files, by their path below the run's; a behaviour's own folder counts as well."""
    folders = sorted({path.parent for path in run_folder.rglob(EVENT_FILES)})
    by_name = {folder.relative_to(run_folder).as_posix(): folder for folder in folders}
    return {
        run_folder.resolve().name if name == "." else name: folder
        for name, folder in by_name.items()
        if not name.startswith(f"{INFERENCE_FOLDER}/")
    }


def _load_events(folder: Path) -> Any:
    """Return TensorBoard's view of all event files of a folder, every point kept."""
    from tensorboard.backend.event_processing.event_accumulator import HISTOGRAMS, SCALARS, EventAccumulator

    return EventAccumulator(str(folder), size_guidance={SCALARS: 0, HISTOGRAMS: 0}).Reload()


def _to_curve(events: Any, tag: str) -> Curve:
    points = _without_undone(events.Scalars(tag))
    steps = np.array([point.step for point in points], dtype=np.float64)
    means = np.array([point.value for point in points], dtype=np.float64)
    means[~np.isfinite(means)] = np.nan  # a gap in the line
    if tag + HISTOGRAM_SUFFIX not in events.Tags()["histograms"]:
        return Curve(steps, means)

    low, high = np.full_like(means, np.nan), np.full_like(means, np.nan)
    row_of_step = {point.step: row for row, point in enumerate(points)}
    for event in _without_undone(events.Histograms(tag + HISTOGRAM_SUFFIX)):
        row, distribution = row_of_step.get(event.step), event.histogram_value
        if row is not None:
            mean = distribution.sum / distribution.num
            std = np.sqrt(max(0.0, distribution.sum_squares / distribution.num - mean**2))
            low[row] = max(mean - std, distribution.min)
            high[row] = min(mean + std, distribution.max)
    return Curve(steps, means, low, high)


def _without_undone(points: Sequence[Any]) -> List[Any]:
    """Leave out what a killed run wrote after the checkpoint from which it was resumed: steps that were done again."""
    kept: List[Any] = []
    for point in points:
        while kept and kept[-1].step >= point.step:
            kept.pop()
        kept.append(point)
    return kept


def _legend_title(curves: Dict[str, Curve]) -> Optional[str]:
    has_spread = any(curve.low is not None for curve in curves.values())
    return "mean, shaded ± standard deviation over episodes" if has_spread else None


def _save(figure: Any, output: Path) -> None:
    """Write the picture in one go, so that a failure leaves no half of one."""
    supported = figure.canvas.get_supported_filetypes()
    ending = output.suffix.lstrip(".").lower()
    if ending not in supported:
        raise PlotError(f"{str(output)!r} should end in .png, or in another of: {', '.join(sorted(supported))}.")
    picture = io.BytesIO()
    figure.savefig(picture, format=ending)
    try:
        output.write_bytes(picture.getvalue())
    except OSError as error:
        raise PlotError(f"{str(output)!r} cannot be written: {error.strerror}.") from error
