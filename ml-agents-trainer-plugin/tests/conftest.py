"""What tests of the plug-ins share."""

import subprocess
import sys

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from mlagents.trainers.stats import StatsReporter


@pytest.fixture(autouse=True)
def _fresh_start():
    """Statistics are kept per process: drop what an earlier test in it has left; and draw the same numbers always."""
    StatsReporter.writers.clear()
    StatsReporter.stats_dict.clear()
    torch.manual_seed(0)


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    """Tests run beside each other, and their networks are small."""
    torch.set_num_threads(1)


@pytest.fixture
def train(tmp_path):
    """Return a function that trains by the command, and gives the folder of the run and its final mean return.

    That is the mean over all episodes that ended in the run's last three summaries.
    """

    def run(config, environment, seed):
        command = [sys.executable, "-m", "mlagents.trainers.learn", str(config), "--env", environment]
        options = ["--run-id", "run", "--seed", str(seed), "--torch-device", "cpu"]
        subprocess.run([*command, *options], cwd=tmp_path, check=True, stdout=subprocess.DEVNULL)
        folder = tmp_path / "results" / "run"
        events = EventAccumulator(str(folder / environment), size_guidance={"histograms": 0})
        events.Reload()
        last = [event.histogram_value for event in events.Histograms("Environment/Cumulative Reward_hist")[-3:]]
        episodes = sum(histogram.num for histogram in last)
        assert episodes >= 12
        return folder, sum(histogram.sum for histogram in last) / episodes

    return run
