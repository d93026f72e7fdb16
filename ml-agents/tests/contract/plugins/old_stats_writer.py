"""A statistics writer that sends smoothed curves through the run's own TensorBoard writer."""

import json
import os

from mlagents.trainers.stats import StatsReporter, StatsSummary, StatsWriter, TensorboardWriter
from mlagents_envs.side_channel.stats_side_channel import StatsAggregationMethod


class SmoothingWriter(StatsWriter):
    def __init__(self, path):
        self.path = path
        self.smoothed = {}
        self.tensorboard = None

    def write_stats(self, category, values, step):
        if category.endswith("-smoothed"):
            return
        if self.tensorboard is None:
            for writer in StatsReporter.writers:
                if isinstance(writer, TensorboardWriter):
                    self.tensorboard = writer
        for name, summary in values.items():
            self.smoothed[name] = 0.5 * self.smoothed.get(name, summary.mean) + 0.5 * summary.mean
        summaries = {
            name: StatsSummary(full_dist=value, aggregation_method=StatsAggregationMethod.AVERAGE)
            for name, value in self.smoothed.items()
        }
        self.tensorboard.write_stats(f"{category}-smoothed", summaries, step)
        with open(self.path, "a") as file:
            file.write(json.dumps({"category": category, "step": step, **self.smoothed}) + "\n")


def get_writers(run_options):
    folder = run_options.checkpoint_settings.write_path
    return [SmoothingWriter(os.path.join(os.path.dirname(folder), "smoothed.jsonl"))]
