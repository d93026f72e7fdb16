"""What tests of training share: running the command, and reading back what a run wrote."""

import importlib
import os
import sys
from pathlib import Path

import hypothesis
import pytest
import torch
import yaml

from mlagents.plugins import ML_AGENTS_TRAINER_TYPE, trainer_type
from mlagents.trainers import learn
from mlagents.trainers.stats import StatsReporter

# The same examples each time; `pytest --hypothesis-profile default` looks for others.
hypothesis.settings.register_profile("fixed", derandomize=True)
hypothesis.settings.load_profile("fixed")


@pytest.fixture(autouse=True)
def _no_statistics_left_over():
    """Statistics are kept per process: drop what an earlier test in it has left."""
    StatsReporter.writers.clear()
    StatsReporter.stats_dict.clear()


@pytest.fixture(autouse=True)
def _no_modules_left_over(tmp_path):
    """Drop the modules that a test wrote into its folder and imported: another test's may have the same name."""
    yield
    written = [
        name for name, it in sys.modules.items() if (getattr(it, "__file__", None) or "").startswith(f"{tmp_path}/")
    ]
    for name in written:
        del sys.modules[name]


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    """Tests run beside each other, and their networks are small."""
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"  # also where agents see images, and in processes that are started


@pytest.fixture(scope="session")
def unity_operators():
    """The ONNX operators that Unity's importer is known to take."""
    return frozenset(
        """
        Add ArgMax Cast Clip Concat Constant Conv Div Equal Exp Expand Flatten Gather Gemm Identity LSTM LeakyRelu Less
        Log MatMul MaxPool Mul Multinomial Neg Pow RandomNormalLike ReduceMean ReduceSum Relu Reshape Shape Sigmoid
        Slice Softmax Sqrt Squeeze Sub Tanh Transpose Unsqueeze Where
        """.split()  # noqa: SIM905
    )


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


@pytest.fixture
def install_plugin(tmp_path, monkeypatch):
    """Return a function that installs a distribution NAME, version 1.5, with one plug-in, and gives its module's path.

    The module, of the given source, and the entry point are called NAME and the_NAME, with ``_`` for ``-``. The
    distributions lie in the folder ``plugins`` of `tmp_path`, for processes to have on their PYTHONPATH. In this
    process the test begins with no trainer type registered.
    """
    folder = tmp_path / "plugins"
    folder.mkdir()
    monkeypatch.syspath_prepend(str(folder))
    for registered in ("all_trainer_types", "all_trainer_settings"):
        monkeypatch.setattr(trainer_type, registered, {})
    monkeypatch.setattr(trainer_type, "_plugins", [])
    modules_before = set(sys.modules)

    def install(name, source, *, group=ML_AGENTS_TRAINER_TYPE, entry="get_type_and_setting"):
        module = name.replace("-", "_")
        path = folder / f"{module}.py"
        path.write_text(source, encoding="utf-8")
        metadata = folder / f"{module}-1.5.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.5\n")
        (metadata / "entry_points.txt").write_text(f"[{group}]\nthe_{module} = {module}:{entry}\n")
        importlib.invalidate_caches()
        return path

    yield install
    for module in set(sys.modules) - modules_before:
        if str(folder) in str(getattr(sys.modules[module], "__file__", "")):
            del sys.modules[module]
