"""Statistics writers by entry point: real distributions in a folder on the path, good and broken ones."""

import os

import pytest

from mlagents.plugins import ML_AGENTS_STATS_WRITER
from mlagents.plugins.stats_writer import get_default_stats_writers, register_stats_writer_plugins
from mlagents.trainers.settings import CheckpointSettings, RunOptions
from mlagents.trainers.stats import ConsoleWriter, GaugeWriter, StatsSummary, TensorboardWriter
from mlagents_envs.side_channel.stats_side_channel import StatsAggregationMethod

PLUGIN = """
import attr
from mlagents.trainers.stats import StatsWriter

class MyWriter(StatsWriter):
    def __init__(self, run_options):
        self.run_options = run_options

    def write_stats(self, category, values, step):
        raise ValueError("disconnected")

@attr.s(frozen=True)
class FrozenWriter(StatsWriter):
    def write_stats(self, category, values, step):
        pass

def make(run_options):
    return [MyWriter(run_options)]

def make_frozen(run_options):
    yield FrozenWriter()

def crash(run_options):
    raise ValueError("no account")

def nonsense(run_options):
    return ["file.csv"]

def nothing(run_options):
    return None

def single(run_options):
    return MyWriter(run_options)

def leave(run_options):
    raise SystemExit("no account")
"""


@pytest.fixture
def install(install_plugin):
    """Return a function that installs a distribution with one statistics writer plug-in."""
    return lambda name, entry: install_plugin(name, PLUGIN, group=ML_AGENTS_STATS_WRITER, entry=entry)


def run_options(tmp_path, **checkpoint):
    return RunOptions(checkpoint_settings=CheckpointSettings(run_id="ball", results_dir=str(tmp_path), **checkpoint))


def test_defaults_come_through_the_entry_point(tmp_path):
    writers = register_stats_writer_plugins(run_options(tmp_path))
    assert [type(writer) for writer in writers] == [TensorboardWriter, GaugeWriter, ConsoleWriter]
    assert writers[0].base_dir == os.path.join(str(tmp_path), "ball")
    assert writers[0].hidden_keys == ["Is Training", "Step"]


@pytest.mark.parametrize(
    ("checkpoint", "kept"),
    [({}, False), ({"force": True}, False), ({"resume": True}, True), ({"resume": True, "inference": True}, True)],
)
def test_only_resuming_and_watching_keep_the_curves(tmp_path, checkpoint, kept):
    values = {"a": StatsSummary([1.0], StatsAggregationMethod.AVERAGE)}
    earlier, *_ = get_default_stats_writers(run_options(tmp_path))
    earlier.write_stats("3DBall", values, 1)
    earlier.close()
    (event_file,) = (tmp_path / "ball" / "3DBall").iterdir()
    content = event_file.read_bytes()

    writer, *_ = get_default_stats_writers(run_options(tmp_path, **checkpoint))
    writer.write_stats("3DBall", values, 1)
    writer.close()
    assert event_file.exists() == kept
    if kept:
        assert event_file.read_bytes() == content
    n_files = len(list((tmp_path / "ball" / "3DBall").iterdir()))
    assert n_files == (2 if kept and "inference" not in checkpoint else 1)


def test_writers_of_a_plugin_are_added(tmp_path, install):
    install("good-writers", "make")
    install("frozen-writers", "make_frozen")
    options = run_options(tmp_path)
    writers = {type(writer).__name__: writer for writer in register_stats_writer_plugins(options)}
    assert writers["MyWriter"].run_options is options
    assert writers["MyWriter"].origin == "the plug-in the_good_writers = good_writers:make (of good-writers 1.5)"
    assert writers["FrozenWriter"].origin.endswith("(of frozen-writers 1.5)")
    assert writers["TensorboardWriter"].origin == ""


@pytest.mark.parametrize(
    ("entry", "error"),
    [
        ("misspelt", "AttributeError: module 'broken_writers' has no attribute 'misspelt'"),
        ("crash", "ValueError: no account in crash ("),
        ("leave", "SystemExit: no account in leave ("),
        ("nonsense", "it returned ['file.csv'] instead of a list of StatsWriter objects"),
        ("nothing", "it returned None instead of a list of StatsWriter objects"),
        ("single", "it returned <broken_writers.MyWriter object at "),
    ],
)
def test_a_broken_plugin_is_named_and_the_others_go_on(tmp_path, install, capsys, entry, error):
    install("broken-writers", entry)
    install("good-writers", "make")
    writers = register_stats_writer_plugins(run_options(tmp_path))
    names = [type(writer).__name__ for writer in writers]
    assert sorted(names) == ["ConsoleWriter", "GaugeWriter", "MyWriter", "TensorboardWriter"]
    (warning,) = capsys.readouterr().out.splitlines()
    assert warning.startswith(
        f"[WARNING] The plug-in the_broken_writers = broken_writers:{entry} (of broken-writers 1.5)"
    )
    assert error in warning
    assert "pip uninstall broken-writers" in warning


def test_a_writer_that_fails_in_a_run_is_named_once_with_its_plugin(install, run_learn, basic_config):
    install("good-writers", "make")
    code, out, err = run_learn(basic_config(), "--env", "Basic")
    assert (code, err) == (0, "")
    (warning,) = [line for line in out.splitlines() if "MyWriter" in line]
    assert "MyWriter of the plug-in the_good_writers = good_writers:make (of good-writers 1.5) failed in" in warning
    assert "write_stats: ValueError: disconnected. The run goes on." in warning
