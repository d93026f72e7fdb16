"""What holds for the project as a whole: versions, dependencies, and what importing costs."""

import re
import subprocess
import sys
from importlib.metadata import entry_points, requires, version
from pathlib import Path

import pytest

import mlagents.trainers
import mlagents_envs
import mlagents_trainer_plugin

ROOT = Path(__file__).parent.parent
DISTRIBUTIONS = ["mlagents_envs", "mlagents", "mlagents_trainer_plugin"]


def test_all_packages_have_one_version():
    versions = {mlagents_envs.__version__, mlagents.trainers.__version__, mlagents_trainer_plugin.__version__}
    assert versions == {"2.0.0"}
    assert {version(name) for name in DISTRIBUTIONS} == versions


def test_each_package_needs_the_other_of_its_own_version():
    assert f"mlagents_envs=={mlagents_envs.__version__}" in requires("mlagents")
    assert f"mlagents=={mlagents.trainers.__version__}" in requires("mlagents_trainer_plugin")


def test_the_commands_and_trainer_types_are_registered():
    commands = {entry.name for entry in entry_points(group="console_scripts") if entry.value.startswith("mlagents.")}
    assert {"mlagents-learn", "mlagents-plot"} <= commands
    types = {entry.name: entry.value for entry in entry_points(group="mlagents.trainer_type")}
    assert types["default"] == "mlagents.plugins.trainer_type:get_default_trainer_types"


def test_nothing_from_the_past_is_used():
    gone = re.compile(r"^\s*(import|from) (pkg_resources|distutils|imp|gym|six)\b", re.MULTILINE)
    sources = [path for folder in ROOT.glob("ml-agents*") for path in folder.rglob("*.py")]
    assert len(sources) > 50
    assert [path for path in sources if gone.search(path.read_text(encoding="utf-8"))] == []
    assert list(ROOT.glob("ml-agents*/setup.py")) == []


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("mlagents_envs.base_env", ["torch", "mujoco", "grpc"]),
        ("mlagents_envs.registry", ["torch", "mujoco", "grpc"]),
        ("mlagents.plugins", ["torch"]),
        ("mlagents.trainers.settings", ["torch"]),
    ],
)
def test_importing_a_light_module_loads_nothing_heavy(module, absent):
    script = f"import sys, {module}; print([name for name in {absent!r} if name in sys.modules])"
    output = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert output.strip() == "[]"


def test_the_readme_names_commands_that_exist():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    named = set(re.findall(r"\bmake ([a-z-]+)", readme))
    assert {"train", "test"} <= named <= targets
