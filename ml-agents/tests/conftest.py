"""What tests of training share: running the command, and reading back what a run wrote."""

import sys
from pathlib import Path

import pytest
import torch
import yaml

from mlagents.trainers import learn
from mlagents.trainers.stats import StatsReporter


@pytest.fixture(autouse=True)
def _no_statistics_left_over():
    """Statistics are kept per process: drop what an earlier test in it has left."""
    StatsReporter.writers.clear()
    StatsReporter.stats_dict.clear()


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    """Tests run beside each other, and their networks are small."""
    torch.set_num_threads(1)


@pytest.fixture
def data_path():
    return Path(__file__).parent / "data"


@pytest.fixture
def run_learn(monkeypatch, capsys, tmp_path):
    """Return a function that runs ``mlagents-learn ARGS`` in this process: (exit code, stdout, stderr).

    It runs in a folder of the test's own, into which results go.
    """
    monkeypatch.chdir(tmp_path)

    def run(*args):
        monkeypatch.setattr(sys, "argv", ["mlagents-learn", *map(str, args)])
        code = 0
        try:
            learn.main()
        except SystemExit as exit_request:
            code = exit_request.code or 0
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


@pytest.fixture
def basic_config(tmp_path):
    """Return a function that writes a small configuration for the built-in Basic, with changes, and gives its path."""

    def write(name="basic.yaml", hyperparameters=(), network_settings=(), **behavior):
        settings = {
            "trainer_type": "ppo",
            "hyperparameters": {
                "batch_size": 16,
                "buffer_size": 64,
                "learning_rate": 3.0e-3,
                **dict(hyperparameters),
            },
            "network_settings": {"hidden_units": 16, "num_layers": 1, **dict(network_settings)},
            "max_steps": 300,
            "time_horizon": 8,
            "summary_freq": 100,
            **behavior,
        }
        path = tmp_path / name
        path.write_text(yaml.safe_dump({"behaviors": {"Basic": settings}}), encoding="utf-8")
        return path

    return write
