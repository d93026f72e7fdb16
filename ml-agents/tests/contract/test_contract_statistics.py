"""Statistics: writers of plug-ins beside ours."""

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mlagents.plugins.stats_writer import register_stats_writer_plugins
from mlagents.trainers.settings import CheckpointSettings, RunOptions
from mlagents.trainers.stats import StatsReporter, StatsSummary, StatsWriter, TensorboardWriter
from mlagents_envs.side_channel.stats_side_channel import StatsAggregationMethod

WRITERS = """
from mlagents.trainers.stats import StatsWriter

given = []

class Own(StatsWriter):
    def write_stats(self, category, values, step):
        pass

def get_writers(run_options):
    given.append(run_options)
    return [Own(), Own()]
"""


def curve(folder, tag):
    events = EventAccumulator(str(folder))
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars(tag)]


def test_the_list_of_writers_is_the_classes_own_and_holds_a_tensorboard_writer(tmp_path):
    options = RunOptions(checkpoint_settings=CheckpointSettings(run_id="run", results_dir=str(tmp_path)))
    for writer in register_stats_writer_plugins(options):
        StatsReporter.add_writer(writer)
    assert StatsReporter("a").writers is StatsReporter("b").writers is StatsReporter.writers
    assert isinstance(StatsReporter.writers, list)
    assert [type(writer) for writer in StatsReporter.writers].count(TensorboardWriter) == 1


def test_a_plugins_function_takes_the_options_and_returns_a_list(install_plugin, tmp_path):
    install_plugin("own-writers", WRITERS, group="mlagents.stats_writer", entry="get_writers")
    options = RunOptions(checkpoint_settings=CheckpointSettings(run_id="run", results_dir=str(tmp_path)))
    writers = register_stats_writer_plugins(options)
    import own_writers

    assert own_writers.given == [options]
    assert sum(isinstance(writer, own_writers.Own) for writer in writers) == 2


@pytest.mark.parametrize("method", list(StatsAggregationMethod))
def test_a_summary_may_hold_a_bare_number(tmp_path, method):
    summary = StatsSummary(full_dist=0.5, aggregation_method=method)
    assert (summary.num, summary.mean, summary.sum, summary.std, summary.aggregated_value) == (1, 0.5, 0.5, 0.0, 0.5)
    writer = TensorboardWriter(str(tmp_path))
    writer.write_stats("Some", {"Own/Number": summary}, 10)
    assert curve(tmp_path / "Some", "Own/Number") == [(10, 0.5)]


def test_a_writer_writes_through_another_while_it_is_asked_itself(tmp_path):
    class Doubling(StatsWriter):
        def write_stats(self, category, values, step):
            doubled = {name: StatsSummary(2 * value.mean, value.aggregation_method) for name, value in values.items()}
            for writer in StatsReporter.writers:
                if isinstance(writer, TensorboardWriter):
                    writer.write_stats(category + "-doubled", doubled, step)

    StatsReporter.add_writer(Doubling())  # before the one that it looks for
    StatsReporter.add_writer(TensorboardWriter(str(tmp_path)))
    reporter = StatsReporter("Some")
    reporter.add_stat("x", 1.0)
    reporter.add_stat("x", 2.0)
    reporter.write_stats(10)
    assert curve(tmp_path / "Some", "x") == [(10, 1.5)]
    assert curve(tmp_path / "Some-doubled", "x") == [(10, 3.0)]
