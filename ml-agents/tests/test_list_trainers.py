"""``mlagents-learn --list-trainers``."""

import os
import subprocess
import sysconfig
from pathlib import Path

PLUGIN = """
from enum import Enum
from typing import Dict, List, Optional, Tuple

import attr

from mlagents.trainers.ppo.trainer import PPOTrainer
from mlagents.trainers.settings import HyperparamSettings, setting

class Mode(Enum):
    FAST = "fast"
    SLOW = "slow"

class ShownSettings(HyperparamSettings):
    mode: Mode = Mode.SLOW
    path: Optional[str] = None
    either: "int | str" = 3
    sizes: List[int] = attr.Factory(lambda: [64, 32])
    double: float = attr.Factory(lambda self: 2 * self.batch_size, takes_self=True)
    on: bool = setting(True, help="Whether it is on.")
    _private: Dict[str, float] = attr.Factory(dict)
    hidden: int = attr.ib(default=1, init=False)

@attr.s(auto_attribs=True)
class StrictSettings:
    needed: int = setting(help="How many.")
    double: float = attr.Factory(lambda self: 2 * self.needed, takes_self=True)
    unknown: "Missing" = 5

class ShownTrainer(PPOTrainer):
    pass

def get_type_and_setting():
    return {"shown": ShownTrainer, "strict": ShownTrainer}, {"shown": ShownSettings, "strict": StrictSettings}
"""

SHOWN = """\
shown  shown_trainer.ShownTrainer  (shown-trainer 1.5)
  batch_size              int                 1024      Experiences per gradient step.
  buffer_size             int                 10240     Experiences gathered before an update, or kept for replay.
  learning_rate           float               0.0003    Initial step size of the optimiser.
  learning_rate_schedule  constant or linear  constant  How the learning rate changes over max_steps.
  mode                    fast or slow        slow
  path                    str or null         null
  either                  int or str          3
  sizes                   List[int]           [64, 32]
  double                  float               2048
  on                      bool                true      Whether it is on.
  private                 Dict[str, float]    {}

strict  shown_trainer.ShownTrainer  (shown-trainer 1.5)
  needed   int      required  How many.
  double   float    computed
  unknown  Missing  5
"""


def test_every_trainer_is_shown_with_its_settings_and_no_warning(install_plugin, run_learn):
    install_plugin("shown-trainer", PLUGIN)
    code, out, err = run_learn("--list-trainers")
    assert (code, err) == (0, "")
    assert f"\n\n{SHOWN}" in out
    assert out.startswith("ppo  mlagents.trainers.ppo.trainer.PPOTrainer  (mlagents 2.0.0)\n  batch_size ")
    assert "[WARNING]" not in out


def test_broken_plugins_and_names_given_twice_come_last(install_plugin, run_learn):
    good = PLUGIN.replace('"strict": ShownTrainer', '"other": ShownTrainer').replace('"strict": S', '"other": S')
    install_plugin("a-first", good)
    install_plugin("a-second", PLUGIN)
    path = install_plugin("a-broken", "\n1 / 0")
    code, out, err = run_learn("--list-trainers")
    assert (code, err) == (0, "")
    *trainers, broken, conflict = out.rstrip("\n").split("\n\n")
    names = [trainer.partition(" ")[0] for trainer in trainers]
    assert {"ppo", "other", "strict"} <= set(names)
    assert "shown" not in names
    assert broken == (
        "BROKEN  the_a_broken = a_broken:get_type_and_setting (of a-broken 1.5)\n"
        f"  ZeroDivisionError: division by zero in the import of a_broken ({path}:2)"
    )
    assert conflict.startswith(
        "BROKEN  The trainer type shown cannot be used, for it is given by the plug-in the_a_first"
    )
    assert conflict.endswith("(of a-second 1.5). Uninstall all but one.")


def test_the_command_finds_plugins_on_the_path(install_plugin, tmp_path):
    path = install_plugin("shown-trainer", PLUGIN)
    install_plugin("a-broken", "import no_such_module_anywhere")
    finished = subprocess.run(
        [Path(sysconfig.get_path("scripts"), "mlagents-learn"), "no_file.yaml", "--list-trainers"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(path.parent)},
        capture_output=True,
        text=True,
    )
    assert (finished.returncode, finished.stderr) == (0, "")
    assert SHOWN in finished.stdout
    assert "BROKEN  the_a_broken = " in finished.stdout
