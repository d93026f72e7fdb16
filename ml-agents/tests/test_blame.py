"""Whose code an error comes from."""

import importlib
import inspect
import sys
from pathlib import Path

import pytest

from mlagents.plugins.blame import explain_broken, find_culprit, place_of
from mlagents.plugins.discovery import describe_object_at
from mlagents.trainers.trainer_controller import TrainerController

PACKAGE = {
    "blame_package/__init__.py": "",
    "blame_package/one/__init__.py": "def fail(): raise ValueError('one')",
    "blame_package/two/__init__.py": "",
    "blame_package/two/optimizer.py": "def fail(): raise ValueError('two')\ndef call(other): other()",
    "blame_other.py": "def fail(): raise ValueError('other')\ndef call(other): other()",
}


@pytest.fixture
def load(tmp_path, monkeypatch):
    """Return a function that imports one of the modules above."""
    monkeypatch.syspath_prepend(str(tmp_path))
    for name, source in PACKAGE.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(source)
    yield importlib.import_module
    for name in [name for name in sys.modules if name.startswith("blame_")]:
        del sys.modules[name]


PLUGINS = [
    describe_object_at(f"{name}:get") for name in ("blame_package.one", "blame_package.two.trainer", "blame_other")
]


def culprit_of(function, *args):
    with pytest.raises(ValueError) as raised:
        function(*args)
    return find_culprit(raised.value, PLUGINS)


@pytest.mark.parametrize(
    ("module", "plugin"),
    [
        ("blame_package.one", "blame_package.one:get"),
        ("blame_package.two.optimizer", "blame_package.two.trainer:get"),
        ("blame_other", "blame_other:get"),
    ],
)
def test_of_several_plugins_the_nearest_is_named(load, module, plugin):
    culprit = culprit_of(load(module).fail)
    assert culprit.plugin.name == plugin
    assert culprit.place == f"fail ({load(module).__file__}:1)"
    assert culprit.raised_it


def test_the_code_that_ran_last_is_named(load):
    caller, failing = load("blame_package.two.optimizer"), load("blame_other")
    culprit = culprit_of(caller.call, failing.fail)
    assert culprit.plugin.name == "blame_other:get"
    assert failing.__file__ in culprit.report
    assert caller.__file__ not in culprit.report


def test_what_it_calls_raises_in_its_place_but_not_its_words(load):
    caller = load("blame_other")
    culprit = culprit_of(caller.call, lambda: int("x"))
    assert culprit.place == f"call ({caller.__file__}:2)"
    assert not culprit.raised_it


def test_nobody_is_to_blame_for_code_that_is_no_plugins(load):
    assert culprit_of(int, "x") is None


def test_what_has_no_place_is_explained_all_the_same():
    plugin = describe_object_at("blame_missing:get").failed(ModuleNotFoundError("No module named 'blame_missing'"))
    assert explain_broken(plugin) == (
        "plug-in blame_missing:get cannot be used: ModuleNotFoundError: No module named 'blame_missing'"
    )


def test_places_of_functions_and_classes():
    file = inspect.getfile(TrainerController)
    lines = Path(file).read_text(encoding="utf-8").splitlines()
    assert place_of(TrainerController) == f"{file}:{lines.index('class TrainerController:') + 1}"
    decorated = lines.index("    def start_learning(self, env_manager: EnvManager) -> None:")
    assert place_of(TrainerController.start_learning) == f"{file}:{decorated}"  # the line of its decorator
    assert place_of(int) == ""
    assert place_of(3) == ""
