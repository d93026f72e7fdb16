"""`mlagents-plot`: the figures are read exactly out of real event files, and a real picture comes out."""

import struct
import subprocess
import sys
from importlib.metadata import entry_points

import numpy as np
import pytest
from matplotlib.image import imread

from mlagents.trainers.plot import COLORS, find_run, main, read_curves
from mlagents.trainers.stats import StatsSummary, TensorboardWriter
from mlagents_envs.side_channel.stats_side_channel import StatsAggregationMethod

REWARD = "Environment/Cumulative Reward"


def write_run(folder, rewards_by_step, behavior="3DBall", extra=None):
    """Write event files as a run does: {step: rewards of the episodes}."""
    writer = TensorboardWriter(str(folder))
    for step, rewards in rewards_by_step.items():
        values = {REWARD: StatsSummary(rewards, StatsAggregationMethod.HISTOGRAM)}
        values.update(
            {key: StatsSummary([value], StatsAggregationMethod.AVERAGE) for key, value in (extra or {}).items()}
        )
        writer.write_stats(behavior, values, step)
    writer.close()


@pytest.fixture
def results(tmp_path):
    """A results folder with two runs and one that has not come to a summary."""
    folder = tmp_path / "results"
    (folder / "empty").mkdir(parents=True)
    write_run(folder / "first", {1000: [0.0, 0.0, 3.0], 2000: [4.0, 8.0]}, extra={"Policy/Entropy": 1.5})
    write_run(folder / "second", {1000: [1.0], 2000: [2.0]})
    return folder


def fails(capsys, *arguments):
    """Run the command, which has to end with one line and exit code 1; return the line."""
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    assert capsys.readouterr().out == ""
    line = caught.value.code  # a text: Python prints it on stderr and exits with 1
    assert isinstance(line, str)
    assert "\n" not in line
    assert line.startswith("mlagents-plot: ")
    return line


def png_size(path):
    content = path.read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", content[16:24])


def test_curve_by_hand(results):
    curve = read_curves(results / "first")["3DBall"]
    np.testing.assert_array_equal(curve.steps, [1000, 2000])
    np.testing.assert_array_equal(curve.means, [1.0, 6.0])
    # [0, 0, 3] has mean 1 and standard deviation sqrt(2): the band ends at the worst episode, 0. [4, 8] has 6 and 2.
    np.testing.assert_allclose(curve.low, [0.0, 4.0], rtol=1e-12)
    np.testing.assert_allclose(curve.high, [1 + np.sqrt(2), 8.0], rtol=1e-12)


def test_statistic_without_distribution(results):
    curve = read_curves(results / "first", "Policy/Entropy")["3DBall"]
    np.testing.assert_array_equal(curve.means, [1.5, 1.5])
    assert curve.low is None
    assert curve.high is None


def test_steps_done_again_after_a_resume_count_once(tmp_path):
    write_run(tmp_path / "run", {100: [1.0], 200: [2.0], 300: [3.0]})
    write_run(tmp_path / "run", {200: [20.0], 250: [25.0, 35.0]})  # a checkpoint at 100 was resumed
    curve = read_curves(tmp_path / "run")["3DBall"]
    np.testing.assert_array_equal(curve.steps, [100, 200, 250])
    np.testing.assert_array_equal(curve.means, [1.0, 20.0, 30.0])
    np.testing.assert_array_equal(curve.high, [1.0, 20.0, 35.0])


def test_values_that_are_not_finite_are_gaps(tmp_path):
    write_run(tmp_path / "run", {100: [1.0], 200: [np.nan, 2.0], 300: [np.inf], 400: [4.0]})
    curve = read_curves(tmp_path / "run")["3DBall"]
    np.testing.assert_array_equal(curve.means, [1.0, np.nan, np.nan, 4.0])
    main([str(tmp_path / "run"), "-o", str(tmp_path / "gaps.png")])
    assert png_size(tmp_path / "gaps.png") == (1200, 675)


def test_file_cut_short_by_a_kill(results):
    (event_file,) = (results / "second" / "3DBall").iterdir()
    event_file.write_bytes(event_file.read_bytes()[:-10])  # in the middle of the last histogram
    curve = read_curves(results / "second")["3DBall"]
    np.testing.assert_array_equal(curve.means, [1.0, 2.0])
    np.testing.assert_array_equal(curve.high, [1.0, np.nan])


def test_statistics_of_watching_are_not_of_the_run(results):
    write_run(results / "first" / "inference", {1: [100.0]})
    assert list(read_curves(results / "first")) == ["3DBall"]


def test_picture_of_two_runs(results, tmp_path, capsys):
    picture = tmp_path / "curve.png"
    main(["first", str(results / "second"), "--results-dir", str(results), "-o", str(picture)])
    assert capsys.readouterr().out == f"Wrote {picture}\n"
    assert png_size(picture) == (1200, 675)
    image = imread(picture)[..., :3]
    for color, drawn in zip(COLORS, [True, True, False]):
        rgb = np.array([int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)])
        assert ((np.abs(image - rgb) < 0.01).all(axis=-1).sum() > 500) == drawn


def drawn_names(monkeypatch, *arguments):
    """Return title and legend that the command gives to its picture."""
    drawn = {}
    monkeypatch.setattr(
        "mlagents.trainers.plot.draw",
        lambda curves, tag, title, output: drawn.update(title=title, legend=list(curves)),
    )
    main([str(argument) for argument in (*arguments, "-o", "unused.png")])
    return drawn["title"], drawn["legend"]


def test_names_in_the_picture(results, tmp_path, monkeypatch):
    write_run(tmp_path / "other" / "second", {1000: [1.0]})
    write_run(tmp_path / "many", {1000: [1.0]}, behavior="Striker")
    write_run(tmp_path / "many", {1000: [1.0]}, behavior="Goalie")
    first, second, same_name = results / "first", results / "second", tmp_path / "other" / "second"
    assert drawn_names(monkeypatch, first) == ("3DBall", ["first"])
    assert drawn_names(monkeypatch, first, second, first) == ("3DBall", ["first", "second"])
    assert drawn_names(monkeypatch, second, same_name) == ("3DBall", [str(second), str(same_name)])
    several = ("Goalie, Striker", ["many: Goalie", "many: Striker"])
    assert drawn_names(monkeypatch, tmp_path / "many") == several
    assert drawn_names(monkeypatch, tmp_path / "many", "--behavior", "Goalie") == ("Goalie", ["many"])
    assert drawn_names(monkeypatch, first / "3DBall") == ("3DBall", ["3DBall"])


def test_run_id_beats_a_folder_without_statistics(results, tmp_path, monkeypatch):
    (tmp_path / "first").mkdir()
    monkeypatch.chdir(tmp_path)
    assert find_run("first", str(results)) == results / "first"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            "frist -o x.png",
            "There is no run 'frist'; in 'results' there are: empty, first, second. Did you mean 'first'?",
        ),
        ("first --tag Policy/Entrpy -o x.png", "it has: Environment/Cumulative Reward, Policy/Entropy. Did you mean"),
        ("first --behavior 3dball -o x.png", "it has: 3DBall. Did you mean '3DBall'?"),
        ("empty -o x.png", "results/empty' yet: no TensorBoard file"),
        ("first -o nowhere/x.png", "'nowhere/x.png' cannot be written: No such file or directory."),
        ("first -o results", "'results' should end in .png"),
        ("first -o x.docx", "'x.docx' should end in .png, or in another of: "),
        ("first --results-dir nowhere -o x.png", "no folder 'nowhere' to look for runs in"),
    ],
)
def test_mistakes(results, capsys, monkeypatch, arguments, expected):
    monkeypatch.chdir(results.parent)
    assert expected in fails(capsys, *arguments.split())


def test_matplotlib_missing(results, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    line = fails(capsys, results / "first", "-o", tmp_path / "x.png")
    assert 'pip install "mlagents[plot]"' in line


def test_the_installed_command(tmp_path):
    (command,) = entry_points(group="console_scripts", name="mlagents-plot")
    script = (
        f"import sys; sys.argv = ['mlagents-plot', 'nothing', '-o', 'x.png']; import {command.module} as m; m.main()"
    )
    finished = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (finished.returncode, finished.stdout) == (1, "")
    assert finished.stderr.splitlines() == [
        "mlagents-plot: There is no run 'nothing', and no folder 'results' to look for runs in (--results-dir)."
    ]
