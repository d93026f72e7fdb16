"""The document's shell commands, as they are printed, in a virtual environment of their own.

Stand-ins: ``python -m venv`` for conda, the built-in 3DBall for an environment's executable, and for a published
package a folder with its wheel.
"""

import contextlib
import doctest
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from types import MappingProxyType

import pytest
import yaml

ROOT = Path(__file__).parent.parent
PACKAGES = ["ml-agents-envs", "ml-agents", "ml-agents-trainer-plugin"]
LEFT_BY_BUILDS = shutil.ignore_patterns("*.egg-info", "__pycache__", "build", "dist")

# One worker runs them all, so that the environment is made once; with it go all tests that need the Editor's port.
pytestmark = [pytest.mark.install, pytest.mark.xdist_group("seed_document_install")]


class Shell:
    """Runs commands in a copy of the project, with a virtual environment activated."""

    def __init__(self, project, environment):
        self.project = project
        self.variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        self.variables |= {
            "PATH": f"{environment / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "VIRTUAL_ENV": str(environment),
            "PIP_CONSTRAINT": str(project / "constraints.txt"),
        }

    def run(self, command, code=0, stdin="", **variables):
        """Run a command, which ends with the exit code `code`; return what it printed."""
        process = self.start(["sh", "-c", command], variables)
        printed, _ = process.communicate(stdin)
        assert process.returncode == code, printed
        return printed

    def train_until_the_first_summary(self, command):
        """Run a command of training, press Ctrl-C once it has shown a summary; it must then end well."""
        process = self.start(shlex.split(command))
        printed = ""
        for line in process.stdout:
            if "Mean Reward" in line and "Mean Reward" not in printed:
                process.send_signal(signal.SIGINT)
            printed += line
        assert process.wait() == 0, printed
        assert "Mean Reward" in printed

    def start(self, arguments, variables=MappingProxyType({})):
        """Start a command and return its process."""
        return subprocess.Popen(
            arguments,
            cwd=self.project,
            env={**self.variables, **variables},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )


@pytest.fixture(scope="module")
def shell(seed, tmp_path_factory):
    """Return a shell in an environment with mlagents, and without plug-ins."""
    folder = tmp_path_factory.mktemp("seed_document")
    project = folder / "project"
    for package in PACKAGES:
        shutil.copytree(ROOT / package, project / package, ignore=LEFT_BY_BUILDS)
    shutil.copy(ROOT / "constraints.txt", project)
    create, activate = seed["create_environment"].splitlines()
    name = activate.removeprefix("conda activate ")
    assert create.startswith(f"conda create -n {name} ")
    subprocess.run([sys.executable, "-m", "venv", name], cwd=folder, check=True)
    shell = Shell(project, folder / name)
    shell.run(seed["install_mlagents"])
    shell.run("pip3 install -e './ml-agents-envs[builtin]'")
    return shell


@pytest.fixture
def wheels(tmp_path):
    return tmp_path / "wheels"


@pytest.fixture
def your_package_installed(shell, seed, your_custom_package, wheels):
    """Install the package of the snippets by the document's line, from a wheel built by its legacy `setup.py`."""
    shell.run(f"pip3 wheel --no-build-isolation --no-deps --wheel-dir {wheels} {your_custom_package}")
    shell.run(seed["install_your_package"], PIP_FIND_LINKS=str(wheels), PIP_NO_INDEX="1")
    yield
    shell.run("pip3 uninstall --yes your_custom_package")


@pytest.fixture
def our_wheel_installed(shell, wheels):
    """Install our plug-in as users do, who have no checkout: from a wheel."""
    shell.run(f"pip3 wheel --no-deps --wheel-dir {wheels} ./ml-agents-trainer-plugin")
    shell.run(f"pip3 install --no-index --find-links {wheels} mlagents_trainer_plugin")
    yield
    shell.run("pip3 uninstall --yes mlagents_trainer_plugin")


@pytest.fixture
def our_plugin_installed(shell, seed):
    """Install our plug-in by the document's line."""
    shell.run(seed["install_our_plugin"])
    yield
    shell.run("pip3 uninstall --yes mlagents_trainer_plugin")


def trained_model(shell, run_id):
    """Return the exported model of a run, which must be there."""
    (model,) = (shell.project / "results" / run_id).glob("*.onnx")
    return model.name


def registered(shell):
    """Return the trainer plug-ins of the environment, one a line as the document lists them."""
    script = (
        "from importlib.metadata import entry_points\n"
        "for entry in entry_points(group='mlagents.trainer_type'): print(entry.name, '=', entry.value)"
    )
    return set(shell.run("python -", stdin=script).splitlines())


def test_without_the_plugin_its_trainer_type_is_refused(shell, seed):
    printed = shell.run(seed["train_in_editor"], code=1)
    assert seed["error"].strip().partition(": ")[2] in printed
    assert "Traceback" not in printed


def test_a_package_with_a_legacy_setup_file_registers_and_trains(shell, seed, your_package_installed, tmp_path):
    assert "your_trainer_type = your_package.your_custom_trainer:get_type_and_setting" in registered(shell)
    configuration = yaml.safe_load(seed["configuration"])
    configuration["behaviors"]["3DBall"].update(
        hyperparameters={"batch_size": 128, "buffer_size": 1024}, max_steps=3000, summary_freq=1000
    )
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(configuration), encoding="utf-8")
    assert "Mean Reward" in shell.run(f"mlagents-learn {path} --env 3DBall --run-id your-package")
    assert trained_model(shell, "your-package") == "3DBall.onnx"


def test_a_plugin_installed_as_a_wheel_registers_and_trains(shell, our_wheel_installed):
    assert "a2c = mlagents_trainer_plugin.a2c.a2c_trainer:get_type_and_setting" in registered(shell)
    package = shell.run("python -c 'import mlagents_trainer_plugin; print(*mlagents_trainer_plugin.__path__)'").strip()
    path = Path(package, "a2c", "a2c_3DBall.yaml")
    assert "site-packages" in path.parts
    shell.train_until_the_first_summary(f"mlagents-learn {path} --env 3DBall --run-id our-wheel")
    assert trained_model(shell, "our-wheel") == "3DBall.onnx"


def test_our_plugin_trains_by_the_line_of_the_document(shell, seed, our_plugin_installed):
    command = seed["train"].replace("<run-id-name>", "document").replace("<env-executable>", "3DBall")
    shell.train_until_the_first_summary(command)
    assert trained_model(shell, "document") == "3DBall.onnx"


def test_our_plugin_trains_in_the_editor_by_the_line_of_the_document(shell, seed, our_plugin_installed):
    """`mlagents-env` presses Play: to the trainer it is what the Editor is."""
    with contextlib.closing(socket.socket()) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", 5004))
        except OSError:
            pytest.skip("somebody holds port 5004")
    trainer = shell.start(shlex.split(seed["train_in_editor"]))
    try:
        assert trainer.stdout.readline() == seed["editor_log"]
        environment = shell.start(["mlagents-env", "3DBall"])
        printed = ""
        for line in trainer.stdout:
            if "Mean Reward" in line and "Mean Reward" not in printed:
                trainer.send_signal(signal.SIGINT)
            printed += line
        assert trainer.wait() == 0, printed
        assert "Mean Reward" in printed
        assert environment.wait() == 0
    finally:
        trainer.kill()
        trainer.communicate()
    assert trained_model(shell, "test-trainer") == "3DBall.onnx"


def test_the_registry_lists_what_the_document_lists(shell, seed, our_plugin_installed):
    examples = doctest.DocTestParser().get_examples(seed["list_trainers"])
    printed = set(examples[-1].want.splitlines())
    assert len(printed) == 3
    assert registered(shell) == printed
    shell.run("pip3 install 'setuptools<81'")  # the last ones with pkg_resources
    session = "".join(f"{example.source}\n" for example in examples)
    assert sorted(shell.run("python -i -q 2>/dev/null", stdin=session).split("\n")[:-1]) == sorted(printed)
