"""The registry: a mapping of names, built-in entries, lazy imports."""

import subprocess
import sys

import pytest

from mlagents_envs.base_env import BaseEnv
from mlagents_envs.exception import UnityEnvironmentException
from mlagents_envs.registry import UnityEnvRegistry, default_registry
from mlagents_envs.registry.base_registry_entry import BaseRegistryEntry
from mlagents_envs.registry.builtin_entry import BuiltinRegistryEntry
from mlagents_envs.side_channel.stats_side_channel import StatsSideChannel


class Entry(BaseRegistryEntry):
    def make(self, **kwargs):
        raise NotImplementedError


@pytest.fixture
def registry():
    registry = UnityEnvRegistry()
    for name in ("3DBall", "Basic", "Walker"):
        registry.register(Entry(name, 1.0, f"The task {name}."))
    return registry


@pytest.fixture
def module(tmp_path, monkeypatch):
    """Write a module `registry_test_env` with the given text, importable during the test."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(text):
        (tmp_path / "registry_test_env.py").write_text(text)

    yield write
    sys.modules.pop("registry_test_env", None)


def test_a_registry_is_a_mapping(registry):
    assert list(registry) == ["3DBall", "Basic", "Walker"]
    assert len(registry) == 3
    assert "Basic" in registry
    assert "Nothing" not in registry
    assert registry.get("Nothing") is None
    entry = registry["Walker"]
    assert (entry.identifier, entry.expected_reward, entry.description) == ("Walker", 1.0, "The task Walker.")


def test_registering_a_name_again_replaces_its_entry(registry):
    newer = Entry("Basic", None, None)
    registry.register(newer)
    assert registry["Basic"] is newer
    assert len(registry) == 3


def test_clear(registry):
    registry.clear()
    assert len(registry) == 0
    with pytest.raises(UnityEnvironmentException, match="It holds: nothing"):
        registry["Basic"]


@pytest.mark.parametrize("error_type", [KeyError, UnityEnvironmentException])
def test_an_unknown_name_lists_what_there_is(registry, error_type):
    with pytest.raises(error_type) as error:
        registry["3dbal"]
    assert str(error.value) == (
        "There is no environment '3dbal' in the registry. Did you mean '3DBall'? It holds: 3DBall, Basic, Walker."
    )


def test_the_default_registry_holds_the_builtin_environments():
    assert {name: entry.expected_reward for name, entry in default_registry.items()} == {
        "3DBall": 100.0,
        "Basic": 0.93,
        "GridWorld": 0.8,
        "Hallway": 0.8,
        "Sorter": 0.8,
    }
    assert all(entry.description for entry in default_registry.values())


@pytest.mark.parametrize("name", list(default_registry))
def test_builtin_environments_can_be_made(name):
    if name == "3DBall":
        pytest.importorskip("mujoco")
    env = default_registry[name].make(seed=1, worker_id=2)
    assert isinstance(env, BaseEnv)
    env.close()


def test_a_builtin_is_made_with_what_concerns_it(module):
    module("def make(**kwargs): return kwargs")
    entry = BuiltinRegistryEntry("Test", None, None, "registry_test_env:make")
    assert entry.make() == {"seed": 0, "num_areas": 1, "side_channels": None}
    channels = [StatsSideChannel()]
    made = entry.make(
        seed=3,
        num_areas=4,
        side_channels=channels,
        worker_id=1,
        base_port=5005,
        no_graphics=True,
        no_graphics_monitor=False,
        timeout_wait=60,
        additional_args=["--x"],
        log_folder="logs",
    )
    assert made == {"seed": 3, "num_areas": 4, "side_channels": channels}


def test_an_argument_that_no_environment_takes_is_a_type_error():
    with pytest.raises(TypeError, match="'Basic' takes no argument no_grafics, sed"):
        default_registry["Basic"].make(sed=1, no_grafics=True, worker_id=0)


def test_missing_physics_says_what_to_install(module):
    module("raise ModuleNotFoundError(\"No module named 'mujoco'\", name='mujoco')")
    with pytest.raises(UnityEnvironmentException, match=r'pip install "mlagents_envs\[builtin\]"'):
        BuiltinRegistryEntry("Test", None, None, "registry_test_env:make").make()


def test_a_fault_inside_a_builtin_is_not_dressed_up(module):
    module("import a_module_that_is_not_there")
    with pytest.raises(ModuleNotFoundError, match="a_module_that_is_not_there"):
        BuiltinRegistryEntry("Test", None, None, "registry_test_env:make").make()


@pytest.mark.parametrize("module_name", ["base_env", "registry", "env_resolver", "timers"])
def test_importing_loads_nothing_heavy(module_name):
    code = (
        f"import mlagents_envs.{module_name}, sys; "
        "print([m for m in ('torch', 'mujoco', 'grpc', 'google.protobuf', 'mlagents') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert result.stdout.strip() == "[]"
