"""Finding plug-ins: real distributions on the path, good and broken ones."""

import pytest

from mlagents.plugins.discovery import load_plugins


def test_a_plugin_is_loaded_and_described(install_plugin):
    install_plugin("good-one", "def make(): return 42", group="test.good", entry="make")
    (plugin,) = load_plugins("test.good")
    assert (plugin.name, plugin.value) == ("the_good_one", "good_one:make")
    assert (plugin.distribution, plugin.version) == ("good-one", "1.5")
    assert str(plugin) == "the_good_one = good_one:make (of good-one 1.5)"
    assert plugin.loaded() == 42
    assert plugin.error is None
    assert plugin.packages == {"good_one"}


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("import no_such_module_anywhere", ModuleNotFoundError),
        ("def mak(): pass", AttributeError),
        ("1 / 0", ZeroDivisionError),
        ("def make(:", SyntaxError),
        ("import sys; sys.exit('not on this machine')", SystemExit),
    ],
)
def test_a_broken_plugin_is_returned_with_its_error(install_plugin, source, error):
    install_plugin("broken-one", source, group="test.broken", entry="make")
    (plugin,) = load_plugins("test.broken")
    assert isinstance(plugin.error, error)
    assert plugin.loaded is None


def test_the_order_is_that_of_the_distributions(install_plugin):
    for name in ("zeta", "alpha", "mid"):
        install_plugin(f"order-{name}", "def make(): pass", group="test.order", entry="make")
    names = [plugin.distribution for plugin in load_plugins("test.order")]
    assert names == ["order-alpha", "order-mid", "order-zeta"]


def test_an_unknown_group_is_empty():
    assert load_plugins("test.nobody") == []


def test_code_of_ours_is_nobody_elses():
    (ours,) = [plugin for plugin in load_plugins("mlagents.trainer_type") if plugin.name == "default"]
    assert ours.distribution == "mlagents"
    assert ours.packages == set()
    assert ours.gave(None, type("Theirs", (), {"__module__": "their.trainers"})).packages == {"their"}
