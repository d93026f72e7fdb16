"""Plug-ins: real distributions on the path, good and broken ones."""

import importlib
import sys

import attr
import pytest

from mlagents.plugins import ML_AGENTS_TRAINER_TYPE, trainer_type
from mlagents.plugins.discovery import load_plugins
from mlagents.plugins.trainer_type import get_settings_class, register_trainer_plugins
from mlagents.trainers.exception import TrainerConfigError
from mlagents.trainers.ppo.trainer import PPOSettings, PPOTrainer
from mlagents.trainers.settings import RunOptions

GOOD = """
from mlagents.trainers.settings import OnPolicyHyperparamSettings

class YourTrainer:
    pass

class YourSettings(OnPolicyHyperparamSettings):
    beta: float = 0.5

def get_type_and_setting():
    return {"yours": YourTrainer}, {"yours": YourSettings}
"""


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Install a distribution that offers one plug-in, its module's `get_type_and_setting`."""
    monkeypatch.syspath_prepend(str(tmp_path))
    modules = []

    def install_distribution(name, source, *, group=ML_AGENTS_TRAINER_TYPE, entry="get_type_and_setting"):
        module = name.replace("-", "_")
        modules.append(module)
        (tmp_path / f"{module}.py").write_text(source)
        metadata = tmp_path / f"{module}-1.5.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.5\n")
        (metadata / "entry_points.txt").write_text(f"[{group}]\nthe_{module} = {module}:{entry}\n")
        importlib.invalidate_caches()

    yield install_distribution
    for module in modules:
        sys.modules.pop(module, None)


@pytest.fixture(autouse=True)
def registry(monkeypatch):
    """Start each test with no trainer type registered."""
    for name, empty in (("all_trainer_types", {}), ("all_trainer_settings", {}), ("_problems", [])):
        monkeypatch.setattr(trainer_type, name, empty)


def error_for(name):
    with pytest.raises(TrainerConfigError) as raised:
        get_settings_class(name)
    return str(raised.value)


class TestLoadPlugins:
    def test_a_plugin_is_loaded_and_described(self, install):
        install("good-one", "def make(): return 42", group="test.good", entry="make")
        (plugin,) = load_plugins("test.good")
        assert (plugin.name, plugin.value) == ("the_good_one", "good_one:make")
        assert (plugin.distribution, plugin.version) == ("good-one", "1.5")
        assert plugin.loaded() == 42
        assert plugin.error is None

    @pytest.mark.parametrize(
        ("source", "error"),
        [
            ("import no_such_module_anywhere", ModuleNotFoundError),
            ("def mak(): pass", AttributeError),
            ("1 / 0", ZeroDivisionError),
            ("def make(:", SyntaxError),
        ],
    )
    def test_a_broken_plugin_is_returned_with_its_error(self, install, source, error):
        install("broken-one", source, group="test.broken", entry="make")
        (plugin,) = load_plugins("test.broken")
        assert isinstance(plugin.error, error)
        assert plugin.loaded is None

    def test_the_order_is_that_of_the_distributions(self, install):
        for name in ("zeta", "alpha", "mid"):
            install(f"order-{name}", "def make(): pass", group="test.order", entry="make")
        names = [plugin.distribution for plugin in load_plugins("test.order")]
        assert names == ["order-alpha", "order-mid", "order-zeta"]

    def test_an_unknown_group_is_empty(self):
        assert load_plugins("test.nobody") == []


class TestRegistration:
    def test_our_own_trainers_come_by_the_same_way(self):
        types, settings = register_trainer_plugins()
        assert types["ppo"] is PPOTrainer
        assert settings["ppo"] is PPOSettings

    def test_a_plugin_is_registered_and_its_settings_are_an_attrs_class(self, install, capsys):
        install("good-trainer", GOOD)
        types, settings = register_trainer_plugins()
        assert types["yours"].__name__ == "YourTrainer"
        assert "__attrs_attrs__" in settings["yours"].__dict__
        assert settings["yours"](beta=0.25).beta == 0.25
        assert "cannot be used" not in capsys.readouterr().out

    def test_the_first_look_registers(self, install):
        install("good-trainer", GOOD)
        options = RunOptions.from_dict(
            {"behaviors": {"A": {"trainer_type": "yours", "hyperparameters": {"beta": 2}}}, "default_settings": {}}
        )
        assert attr.asdict(options.behaviors["A"].hyperparameters)["beta"] == 2.0
        assert isinstance(options.behaviors["other"].hyperparameters, PPOSettings)

    @pytest.mark.parametrize(
        ("source", "error"),
        [
            ("import no_such_module_anywhere", "ModuleNotFoundError: No module named 'no_such_module_anywhere'"),
            ("def get_type_and_setting(): raise KeyError('deep')", "KeyError: 'deep'"),
            (
                "def get_type_and_setting(): return None",
                "TypeError: it returned None instead of ({name: trainer class}",
            ),
            ("def get_type_and_setting(): return {}, {}, {}", "TypeError: it returned ({}, {}, {}) instead of"),
            ("def get_type_and_setting(): return {'a': int}, {'b': int}", "ValueError: it gives trainers for ['a']"),
            (
                "def get_type_and_setting(): return {'a': int}, {'a': int}",
                "TypeError: the settings of a, <class 'int'>",
            ),
            ("get_type_and_setting = 3", "TypeError: 'int' object is not callable"),
        ],
    )
    def test_a_broken_plugin_is_named_and_the_others_go_on(self, install, capsys, source, error):
        install("bad-trainer", source)
        types, _ = register_trainer_plugins()
        warning = capsys.readouterr().out
        assert (
            "[WARNING] The plug-in the_bad_trainer = bad_trainer:get_type_and_setting (of bad-trainer 1.5)" in warning
        )
        assert error in warning
        assert "pip uninstall bad-trainer" in warning
        assert set(types) >= {"ppo"}
        assert get_settings_class("ppo") is PPOSettings
        unknown = error_for("bad")
        assert unknown.startswith("Invalid trainer type bad was found")
        assert f"(of bad-trainer 1.5): {error}" in unknown

    def test_a_name_that_two_plugins_give_is_refused_by_both_their_names(self, install, capsys):
        install("first-trainer", GOOD)
        install("second-trainer", GOOD)
        types, settings = register_trainer_plugins()
        assert "yours" not in types
        assert "yours" not in settings
        for message in (capsys.readouterr().out, error_for("yours")):
            assert "trainer type yours is given by the_first_trainer" in message
            assert "(of first-trainer 1.5)" in message
            assert "(of second-trainer 1.5)" in message
        assert get_settings_class("ppo") is PPOSettings

    def test_an_unknown_trainer_type_names_what_is_installed_and_near(self, install):
        install("good-trainer", GOOD)
        message = error_for("your")
        assert message.startswith("Invalid trainer type your was found.")
        assert "Did you mean 'yours'?" in message
        assert "yours" in message.partition("Installed: ")[2]
        assert "ppo" in message.partition("Installed: ")[2]

    def test_a_trainer_type_to_come_says_so(self):
        assert "sac is not there yet" in error_for("sac")

    def test_a_plugin_may_give_a_trainer_type_that_is_to_come(self, install):
        install("sac-trainer", GOOD.replace("yours", "sac"))
        assert get_settings_class("sac").__name__ == "YourSettings"
