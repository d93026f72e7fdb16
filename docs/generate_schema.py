"""Write config/schema.json, by which editors check configurations: run it after changing a settings class."""

from __future__ import annotations

from pathlib import Path

from mlagents.trainers.settings.schema import render

FILE = Path(__file__).parent.with_name("config") / "schema.json"

TRAINER_TYPES = ("a2c", "dqn", "ppo", "sac")
"""Of our own packages: the file is the same whatever else is installed."""

if __name__ == "__main__":
    FILE.write_text(render(TRAINER_TYPES), encoding="utf-8")
