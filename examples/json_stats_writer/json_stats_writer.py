"""A statistics writer for `mlagents`: every summary as a line of JSON."""

from __future__ import annotations

import json
import math
from pathlib import Path

from mlagents.trainers.settings import RunOptions
from mlagents.trainers.stats import StatsSummary, StatsWriter

FILE_NAME = "stats.jsonl"


class JsonLinesWriter(StatsWriter):
    """Writes a line per summary; each is on disk when `write_stats` returns.

    The file is opened with the first line: when writers are made, the folder still belongs to the run before, which
    ``--force`` moves aside.

    :param path: of the file, in a folder that may not be there yet.
    :param append: whether what is there stays.
    """

    def __init__(self, path: Path, append: bool = False):
        self.path = path
        self._mode = "a" if append else "w"

    def write_stats(self, category: str, values: dict[str, StatsSummary], step: int) -> None:
        """Write the summary of a category: a number for each statistic, null for what JSON has none for, like NaN."""
        numbers = {name: summary.aggregated_value for name, summary in values.items()}
        statistics = {name: number if math.isfinite(number) else None for name, number in numbers.items()}
        line = json.dumps({"category": category, "step": step, "statistics": statistics})
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open(self._mode, encoding="utf-8") as file:
            file.write(line + "\n")
        self._mode = "a"


def get_stats_writers(run_options: RunOptions) -> list[StatsWriter]:
    """Return the writers of a run: the entry point of the plug-in."""
    checkpoint = run_options.checkpoint_settings
    if checkpoint.inference:
        return []
    return [JsonLinesWriter(Path(checkpoint.write_path, FILE_NAME), append=checkpoint.resume)]
