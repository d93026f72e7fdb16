"""What the writer leaves in its file."""

import json
import math

import pytest
from json_stats_writer import JsonLinesWriter, get_stats_writers

from mlagents.trainers.settings import CheckpointSettings, RunOptions
from mlagents.trainers.stats import StatsSummary
from mlagents_envs.side_channel.stats_side_channel import StatsAggregationMethod

AVERAGE, MOST_RECENT = StatsAggregationMethod.AVERAGE, StatsAggregationMethod.MOST_RECENT


def lines_of(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_every_summary_is_a_line(tmp_path):
    writer = JsonLinesWriter(tmp_path / "new" / "stats.jsonl")
    writer.write_stats("Ball", {"Reward": StatsSummary([1.0, 2.0], AVERAGE)}, 10)
    writer.write_stats("Ball", {"Step": StatsSummary([1.0, 20.0], MOST_RECENT)}, 20)
    assert lines_of(writer.path) == [
        {"category": "Ball", "step": 10, "statistics": {"Reward": 1.5}},
        {"category": "Ball", "step": 20, "statistics": {"Step": 20.0}},
    ]


def test_what_is_not_finite_is_null(tmp_path):
    writer = JsonLinesWriter(tmp_path / "stats.jsonl")
    writer.write_stats("Ball", {"Loss": StatsSummary([math.nan], AVERAGE)}, 10)
    assert lines_of(writer.path)[0]["statistics"] == {"Loss": None}


@pytest.mark.parametrize(("resume", "n_lines"), [(False, 1), (True, 2)])
def test_a_resumed_run_adds_to_the_file(tmp_path, resume, n_lines):
    for checkpoint in ({}, {"resume": resume}):
        options = RunOptions(
            checkpoint_settings=CheckpointSettings(run_id="run", results_dir=str(tmp_path), **checkpoint)
        )
        (writer,) = get_stats_writers(options)
        writer.write_stats("Ball", {"Reward": StatsSummary([1.0], AVERAGE)}, 10)
    assert writer.path == tmp_path / "run" / "stats.jsonl"
    assert len(lines_of(writer.path)) == n_lines


def test_the_file_of_an_earlier_run_is_left_alone_until_there_is_a_line(tmp_path):
    path = tmp_path / "stats.jsonl"
    path.write_text("{}\n", encoding="utf-8")
    writer = JsonLinesWriter(path)
    assert lines_of(path) == [{}]
    writer.write_stats("Ball", {}, 10)
    assert lines_of(path) == [{"category": "Ball", "step": 10, "statistics": {}}]


def test_nothing_is_written_while_a_model_is_only_watched(tmp_path):
    checkpoint = CheckpointSettings(run_id="run", results_dir=str(tmp_path), resume=True, inference=True)
    assert get_stats_writers(RunOptions(checkpoint_settings=checkpoint)) == []
    assert list(tmp_path.iterdir()) == []
