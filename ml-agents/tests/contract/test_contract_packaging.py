"""What the ``setup.py`` of a plug-in imports, in a process of its own, with nothing but Python's packages at hand."""

import subprocess
import sys

import mlagents.plugins
import mlagents.trainers
from mlagents.plugins import ML_AGENTS_STATS_WRITER, ML_AGENTS_TRAINER_TYPE
from mlagents.plugins.trainer_type import register_trainer_plugins

SETUP = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"torch", "numpy", "attr", "cattr", "yaml", "tensorboard", "mlagents_envs"}:
            raise AssertionError(f"a build needs no {name}")

sys.meta_path.insert(0, Refuse())

from mlagents.plugins import ML_AGENTS_STATS_WRITER, ML_AGENTS_TRAINER_TYPE
from mlagents.trainers import __version__

entry_points = {
    ML_AGENTS_TRAINER_TYPE: ["own=package.module:get_type_and_setting"],
    ML_AGENTS_STATS_WRITER: ["own=package.module:get_writers"],
}
print(*entry_points, __version__)
"""


def test_what_a_setup_file_imports_needs_no_other_package():
    done = subprocess.run([sys.executable, "-c", SETUP], capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr == ""
    assert done.stdout.split() == ["mlagents.trainer_type", "mlagents.stats_writer", mlagents.trainers.__version__]


def test_the_groups_are_named_as_installed_plugins_name_them():
    assert (ML_AGENTS_TRAINER_TYPE, ML_AGENTS_STATS_WRITER) == ("mlagents.trainer_type", "mlagents.stats_writer")


def test_what_is_registered_is_where_plugins_look():
    types, settings = register_trainer_plugins()
    assert types is mlagents.plugins.all_trainer_types
    assert settings is mlagents.plugins.all_trainer_settings
    assert "ppo" in types
    assert "ppo" in settings
