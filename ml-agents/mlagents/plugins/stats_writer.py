"""The statistics writers of a run: ours and those of plug-ins, all through the entry point `mlagents.stats_writer`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Iterable, List

from mlagents.plugins import ML_AGENTS_STATS_WRITER
from mlagents.plugins.blame import warn_of_broken
from mlagents.plugins.discovery import Plugin, PluginError, load_plugins
from mlagents.trainers.stats import IS_TRAINING, ConsoleWriter, GaugeWriter, StatsWriter, TensorboardWriter

if TYPE_CHECKING:
    from mlagents.trainers.settings import RunOptions

INFERENCE_FOLDER = "inference"
"""Below the run's folder: the event files written while its models are only watched, apart from the training's."""


def get_default_stats_writers(run_options: RunOptions) -> List[StatsWriter]:
    """Return the writers that every run has: TensorBoard, `timers.json` and the console."""
    checkpoint = run_options.checkpoint_settings
    base_dir = os.path.join(checkpoint.write_path, INFERENCE_FOLDER) if checkpoint.inference else checkpoint.write_path
    return [
        TensorboardWriter(base_dir, clear_past_data=not checkpoint.resume, hidden_keys=[IS_TRAINING, "Step"]),
        GaugeWriter(),
        ConsoleWriter(),
    ]


def register_stats_writer_plugins(run_options: RunOptions) -> List[StatsWriter]:
    """Return the writers of all installed plug-ins, ours among them.

    A plug-in is a function that takes the `RunOptions` and returns a list of `StatsWriter`. One that cannot be
    imported, raises or returns something else is named in a warning, and the run goes on without it.
    """
    plugins = load_plugins(ML_AGENTS_STATS_WRITER)
    return [writer for plugin in plugins for writer in _make_writers(plugin, run_options)]


def _make_writers(plugin: Plugin, run_options: RunOptions) -> List[StatsWriter]:
    """Return a plug-in's writers; none, after a warning, when it is broken."""
    if plugin.error is not None:
        warn_of_broken(plugin)
        return []
    try:
        answer = plugin.loaded(run_options)
        writers = list(answer) if isinstance(answer, Iterable) else None
        if writers is None or not all(isinstance(writer, StatsWriter) for writer in writers):
            raise PluginError(f"it returned {answer!r} instead of a list of StatsWriter objects")
    except (Exception, SystemExit) as error:  # whatever a plug-in may raise
        warn_of_broken(plugin.failed(error))
        return []
    if plugin.packages:
        for writer in writers:
            vars(writer)["origin"] = f"the plug-in {plugin}"  # an assignment fails on a frozen class
    return writers
