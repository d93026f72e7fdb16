"""Statistics: their arithmetic, the console line, and real TensorBoard files read back."""

import json
import math
import shutil
import threading
import time

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mlagents.trainers.stats import (
    ConsoleWriter,
    GaugeWriter,
    StatsPropertyType,
    StatsReporter,
    StatsSummary,
    StatsWriter,
    TensorboardWriter,
)
from mlagents_envs.side_channel.stats_side_channel import StatsAggregationMethod
from mlagents_envs.timers import get_timer_tree, reset_timers

AVERAGE = StatsAggregationMethod.AVERAGE
MOST_RECENT = StatsAggregationMethod.MOST_RECENT
SUM = StatsAggregationMethod.SUM
HISTOGRAM = StatsAggregationMethod.HISTOGRAM
REWARD = "Environment/Cumulative Reward"


@pytest.fixture(autouse=True)
def _no_writers_left():
    StatsReporter.close_writers()
    yield
    StatsReporter.close_writers()


class Recorder(StatsWriter):
    """Keeps what it is told; fails while `broken` is set."""

    def __init__(self):
        self.written = []
        self.added = []
        self.properties = []
        self.broken = None

    def on_add_stat(self, category, key, value, aggregation=AVERAGE):
        self.added.append((category, key, value, aggregation))

    def write_stats(self, category, values, step):
        if self.broken:
            raise self.broken
        self.written.append((category, {key: summary.full_dist for key, summary in values.items()}, step))

    def add_property(self, category, property_type, value):
        self.properties.append((category, property_type, value))


def read(folder):
    return EventAccumulator(str(folder), size_guidance={"scalars": 0, "histograms": 0}).Reload()  # 0: keep all


def scalars(folder, tag):
    return [(event.step, event.value) for event in read(folder).Scalars(tag)]


@pytest.mark.parametrize(("method", "expected"), [(AVERAGE, 3.0), (MOST_RECENT, 6.0), (SUM, 9.0), (HISTOGRAM, 3.0)])
def test_summary_by_hand(method, expected):
    summary = StatsSummary([1.0, 2.0, 6.0], method)
    assert summary.aggregated_value == expected
    assert (summary.num, summary.sum, summary.mean) == (3, 9.0, 3.0)
    assert summary.std == pytest.approx(math.sqrt(14 / 3))  # deviations -2, -1 and 3


@pytest.mark.parametrize("method", list(StatsAggregationMethod))
def test_summary_of_a_bare_float(method):
    summary = StatsSummary(2.5, method)
    assert (summary.aggregated_value, summary.mean, summary.std, summary.num) == (2.5, 2.5, 0.0, 1)


def test_empty_summary():
    summary = StatsSummary.empty()
    assert (summary.num, summary.sum, summary.full_dist) == (0, 0.0, [])
    assert math.isnan(summary.mean)
    assert math.isnan(summary.std)
    assert math.isnan(summary.aggregated_value)


def test_write_stats_hands_over_and_clears_its_category():
    writer = Recorder()
    StatsReporter.add_writer(writer)
    ball, basic = StatsReporter("3DBall"), StatsReporter("Basic")
    ball.add_stat("a", 1.0)
    ball.add_stat("a", 2.0)
    ball.set_stat("b", 5.0)
    ball.set_stat("b", 7.0)
    basic.add_stat("a", 9.0)
    assert ball.get_stats_summaries("a") == StatsSummary([1.0, 2.0], AVERAGE)
    assert ball.get_stats_summaries("b") == StatsSummary([7.0], MOST_RECENT)

    ball.write_stats(12)
    ball.write_stats(24)
    basic.write_stats(3)

    assert writer.written == [
        ("3DBall", {"a": [1.0, 2.0], "b": [7.0]}, 12),
        ("3DBall", {}, 24),
        ("Basic", {"a": [9.0]}, 3),
    ]
    assert ball.get_stats_summaries("a") == StatsSummary.empty()
    assert writer.added[0] == ("3DBall", "a", 1.0, AVERAGE)
    assert writer.added[3] == ("3DBall", "b", 7.0, MOST_RECENT)


def test_asking_for_a_summary_adds_no_statistic():
    reporter = StatsReporter("3DBall")
    reporter.get_stats_summaries("never added")
    assert list(StatsReporter.stats_dict["3DBall"]) == []


def test_no_value_is_lost_between_threads():
    writer = Recorder()
    StatsReporter.add_writer(writer)
    reporter = StatsReporter("3DBall")

    def add_many():
        for value in range(2000):
            reporter.add_stat("a", float(value))

    threads = [threading.Thread(target=add_many) for _ in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        reporter.write_stats(0)
    reporter.write_stats(0)
    written = [value for _, values, _ in writer.written for value in values.get("a", [])]
    assert sorted(written) == sorted(list(range(2000)) * 4)


def test_console_line(capsys, monkeypatch):
    writer = ConsoleWriter()
    monkeypatch.setattr(time, "time", lambda: writer.training_start_time + 8.988)
    rewards = StatsSummary([0.591, 2.355], HISTOGRAM)
    training, idle = StatsSummary([1.0], MOST_RECENT), StatsSummary([0.0], MOST_RECENT)
    elo = StatsSummary([1200.5], MOST_RECENT)

    writer.write_stats("3DBall", {REWARD: rewards, "Is Training": training, "Self-play/ELO": elo}, 12000)
    writer.write_stats("3DBall", {"Is Training": training}, 24000)
    writer.write_stats("3DBall", {REWARD: rewards, "Is Training": idle}, 36000)
    writer.add_property("3DBall", StatsPropertyType.SELF_PLAY, True)
    group = StatsSummary([4.0], AVERAGE)
    values = {
        REWARD: rewards,
        "Environment/Group Cumulative Reward": group,
        "Is Training": training,
        "Self-play/ELO": elo,
    }
    writer.write_stats("3DBall", values, 48000)

    start = "[INFO] 3DBall. Step:"
    reward = "Mean Reward: 1.473. Std of Reward: 0.882."
    assert capsys.readouterr().out.splitlines() == [
        f"{start} 12000. Time Elapsed: 8.988 s. {reward} Training.",
        f"{start} 24000. Time Elapsed: 8.988 s. No episode was completed since last summary. Training.",
        f"{start} 36000. Time Elapsed: 8.988 s. {reward} Not Training.",
        f"{start} 48000. Time Elapsed: 8.988 s. {reward} Mean Group Reward: 4.000. Training. ELO: 1200.500.",
    ]


def test_console_shows_hyperparameters(capsys):
    ConsoleWriter().add_property("3DBall", StatsPropertyType.HYPERPARAMETERS, {"a": 1, "b": {"c": [2], "d": None}})
    expected = "[INFO] Hyperparameters of behavior 3DBall:\n\ta: 1\n\tb:\n\t  c: [2]\n\t  d: None\n"
    assert capsys.readouterr().out == expected


def test_gauges_end_up_in_the_timers():
    reset_timers()
    GaugeWriter().write_stats("3DBall", {"Policy/Learning Rate": StatsSummary([1.0, 3.0], AVERAGE)}, 5)
    gauges = json.loads(json.dumps(get_timer_tree()))["gauges"]
    assert gauges["3DBall.Policy.LearningRate.mean"]["value"] == 2.0
    assert gauges["3DBall.Policy.LearningRate.sum"]["value"] == 4.0


def test_tensorboard_files_read_back(tmp_path):
    rewards = np.random.default_rng(7).normal(1000.0, 0.5, 50).tolist()
    StatsReporter.add_writer(TensorboardWriter(str(tmp_path), hidden_keys=["Is Training", "Step"]))
    reporter = StatsReporter("3DBall")
    reporter.add_property(StatsPropertyType.HYPERPARAMETERS, {"batch_size": 64})
    for step in (100, 200):
        reporter.add_stat("Losses/Policy Loss", 0.25)
        reporter.add_stat("Losses/Policy Loss", 0.75)
        reporter.add_stat("goals", 2.0, SUM)
        reporter.add_stat("goals", 3.0, SUM)
        reporter.add_stat("speed", 1.0, HISTOGRAM)
        reporter.add_stat("speed", 5.0, HISTOGRAM)
        reporter.set_stat("Step", float(step))
        reporter.set_stat("Is Training", 1.0)
        for reward in rewards:
            reporter.add_stat(REWARD, reward)
        reporter.write_stats(step)

    # The files are complete although nothing has been closed: a killed run keeps its curves.
    events = read(tmp_path / "3DBall")
    assert set(events.Tags()["scalars"]) == {"Losses/Policy Loss", "goals", "speed", REWARD}
    assert set(events.Tags()["histograms"]) == {REWARD + "_hist", "speed_hist"}
    assert [(event.step, event.value) for event in events.Scalars("goals")] == [(100, 5.0), (200, 5.0)]
    assert [event.value for event in events.Scalars("Losses/Policy Loss")] == [0.5, 0.5]
    distribution = events.Histograms(REWARD + "_hist")[1].histogram_value
    assert distribution.num == 50
    assert (distribution.min, distribution.max) == (min(rewards), max(rewards))
    mean = distribution.sum / distribution.num
    assert math.sqrt(distribution.sum_squares / distribution.num - mean**2) == pytest.approx(np.std(rewards), rel=1e-6)
    assert events.Scalars(REWARD)[0].value == pytest.approx(mean)
    text = events.Tensors("Hyperparameters/text_summary")[0].tensor_proto.string_val[0].decode()
    assert text == "\n    batch_size: 64"  # a code block


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_values_that_are_not_finite_are_written_as_they_are(tmp_path, recwarn, value):
    writer = TensorboardWriter(str(tmp_path))
    writer.write_stats("3DBall", {REWARD: StatsSummary([value], AVERAGE), "other": StatsSummary([1.0], AVERAGE)}, 1)
    writer.write_stats("3DBall", {REWARD: StatsSummary([2.0, value, 4.0], AVERAGE)}, 2)
    ConsoleWriter().write_stats("3DBall", {REWARD: StatsSummary([2.0, value], AVERAGE)}, 2)
    writer.close()
    for _, read_back in scalars(tmp_path / "3DBall", REWARD):
        np.testing.assert_equal(read_back, value)
    assert scalars(tmp_path / "3DBall", "other") == [(1, 1.0)]
    (finite,) = read(tmp_path / "3DBall").Histograms(REWARD + "_hist")
    assert (finite.step, finite.histogram_value.num, finite.histogram_value.sum) == (2, 2.0, 6.0)
    assert not recwarn.list


@pytest.mark.parametrize("clear", [True, False])
def test_files_of_an_earlier_run_are_deleted_when_asked_and_named(tmp_path, capsys, clear):
    first = TensorboardWriter(str(tmp_path))
    first.write_stats("3DBall", {"a": StatsSummary([1.0], AVERAGE)}, 1)
    first.close()
    (old_file,) = (tmp_path / "3DBall").iterdir()
    model = tmp_path / "3DBall" / "checkpoint.pt"
    model.write_bytes(b"")

    second = TensorboardWriter(str(tmp_path), clear_past_data=clear)
    second.write_stats("3DBall", {"a": StatsSummary([2.0], AVERAGE)}, 2)
    second.write_stats("3DBall", {"a": StatsSummary([3.0], AVERAGE)}, 3)
    second.close()

    assert [step for step, _ in scalars(tmp_path / "3DBall", "a")] == ([2, 3] if clear else [1, 2, 3])
    assert (old_file.name in capsys.readouterr().out) == clear
    assert model.exists()


def test_a_writer_that_fails_is_named_once_and_the_others_go_on(capsys):
    failing, working = Recorder(), Recorder()
    StatsReporter.add_writer(failing)
    StatsReporter.add_writer(working)
    reporter = StatsReporter("3DBall")
    failing.broken = ValueError("no connection")
    for step in (1, 2):
        reporter.add_stat("a", 1.0)
        reporter.write_stats(step)
    out = capsys.readouterr().out
    assert out.splitlines() == [
        "[WARNING] The statistics writer Recorder failed in write_stats: ValueError: no connection. The run goes on."
    ]

    failing.broken = None
    reporter.write_stats(3)
    failing.broken = ValueError("again")
    reporter.write_stats(4)
    assert "again" in capsys.readouterr().out
    assert [step for _, _, step in failing.written] == [3]
    assert [step for _, _, step in working.written] == [1, 2, 3, 4]


def write_one(reporter, step):
    reporter.add_stat("a", float(step))
    reporter.write_stats(step)


def test_training_survives_the_loss_of_the_folder(tmp_path, capfd):
    StatsReporter.add_writer(TensorboardWriter(str(tmp_path / "run")))
    reporter = StatsReporter("3DBall")
    write_one(reporter, 1)
    shutil.rmtree(tmp_path / "run")
    write_one(reporter, 2)
    write_one(reporter, 3)
    output = capfd.readouterr()
    assert output.out.count("TensorboardWriter failed in write_stats: FileNotFoundError") == 1
    assert "Traceback" not in output.err
    assert scalars(tmp_path / "run" / "3DBall", "a") == [(3, 3.0)]


def test_training_survives_a_full_disk(tmp_path, capfd):
    resource = pytest.importorskip("resource")  # a limit on the size of files fails like a full disk; Unix only
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    StatsReporter.add_writer(TensorboardWriter(str(tmp_path)))
    reporter = StatsReporter("3DBall")
    write_one(reporter, 1)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        write_one(reporter, 2)
        write_one(reporter, 3)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    write_one(reporter, 4)
    output = capfd.readouterr()
    assert output.out.count("TensorboardWriter failed in write_stats: OSError") == 1
    assert "Traceback" not in output.err
    assert scalars(tmp_path / "3DBall", "a") == [(1, 1.0), (4, 4.0)]


def test_close_writers_makes_room_for_another_run(tmp_path):
    writer = TensorboardWriter(str(tmp_path))
    StatsReporter.add_writer(writer)
    reporter = StatsReporter("3DBall")
    write_one(reporter, 1)
    reporter.add_stat("a", 2.0)
    StatsReporter.close_writers()
    assert StatsReporter.writers == []
    assert writer.summary_writers == {}
    assert reporter.get_stats_summaries("a") == StatsSummary.empty()
