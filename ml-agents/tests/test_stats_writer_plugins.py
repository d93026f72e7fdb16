"""Statistics writers by entry point: real distributions in a folder on the path, good and broken ones."""

import os

import pytest

from mlagents.plugins.stats_writer import get_default_stats_writers, register_stats_writer_plugins
from mlagents.trainers.settings import CheckpointSettings, RunOptions
from mlagents.trainers.stats import ConsoleWriter, GaugeWriter, StatsSummary, TensorboardWriter
from mlagents_envs.side_channel.stats_side_channel import StatsAggregationMethod

PLUGIN = """
from mlagents.trainers.stats import StatsWriter

class MyWriter(StatsWriter):
    def __init__(self, run_options):
        self.run_options = run_options

    def write_stats(self, category, values, step):
        pass

def make(run_options):
    return [MyWriter(run_options)]

def crash(run_options):
    raise ValueError("no account")

def nonsense(run_options):
    return ["file.csv"]

def nothing(run_options):
    return None
"""


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Return a function that installs a distribution with one statistics writer plug-in."""
    (tmp_path / "writer_plugin_for_test.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(tmp_path)

    def install(distribution, value):
        folder = tmp_path / f"{distribution}-1.5.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.5\n")
        (folder / "entry_points.txt").write_text(f"[mlagents.stats_writer]\nmine = {value}\n")

    return install


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
    install("good-writers", "writer_plugin_for_test:make")
    options = run_options(tmp_path)
    (mine,) = [writer for writer in register_stats_writer_plugins(options) if type(writer).__name__ == "MyWriter"]
    assert mine.run_options is options


@pytest.mark.parametrize(
    ("value", "error"),
    [
        ("no_such_module_anywhere:make", "ModuleNotFoundError: No module named 'no_such_module_anywhere'"),
        ("writer_plugin_for_test:misspelt", "AttributeError"),
        ("writer_plugin_for_test:crash", "ValueError: no account"),
        ("writer_plugin_for_test:nonsense", "TypeError: it returned 'file.csv', which is not a StatsWriter"),
        ("writer_plugin_for_test:nothing", "TypeError"),
    ],
)
def test_a_broken_plugin_is_named_and_the_others_go_on(tmp_path, install, capsys, value, error):
    install("broken-writers", value)
    install("good-writers", "writer_plugin_for_test:make")
    writers = register_stats_writer_plugins(run_options(tmp_path))
    names = [type(writer).__name__ for writer in writers]
    assert sorted(names) == ["ConsoleWriter", "GaugeWriter", "MyWriter", "TensorboardWriter"]
    (warning,) = capsys.readouterr().out.splitlines()
    assert warning.startswith("[WARNING]")
    assert "broken-writers 1.5" in warning
    assert error in warning
    assert "pip uninstall broken-writers" in warning
