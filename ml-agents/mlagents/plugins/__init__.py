"""The entry-point groups by which plug-ins are found, and what has been found so far; imports no torch."""

from typing import Any, Dict

ML_AGENTS_STATS_WRITER = "mlagents.stats_writer"
ML_AGENTS_TRAINER_TYPE = "mlagents.trainer_type"

all_trainer_types: Dict[str, Any] = {}
"""Trainer type name to trainer class; filled by `mlagents.plugins.trainer_type.register_trainer_plugins`."""
all_trainer_settings: Dict[str, Any] = {}
"""Trainer type name to the settings class of its `hyperparameters`."""
