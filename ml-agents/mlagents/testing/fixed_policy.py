"""A policy that never learns, for whatever collects experience."""

from __future__ import annotations

from typing import List

import numpy as np

from mlagents.trainers.policy import Policy
from mlagents.trainers.settings import NetworkSettings
from mlagents_envs.base_env import BehaviorSpec


class FixedPolicy(Policy):
    """Has no parameters and counts no steps; a subclass says in `get_action` what it decides."""

    def __init__(self, behavior_spec: BehaviorSpec):
        super().__init__(0, behavior_spec, NetworkSettings())

    def increment_step(self, n_steps: int) -> int:
        """Not counted."""
        return 0

    def get_current_step(self) -> int:
        """Not counted."""
        return 0

    def load_weights(self, values: List[np.ndarray]) -> None:
        """There are none."""

    def get_weights(self) -> List[np.ndarray]:
        """There are none."""
        return []

    def init_load_weights(self) -> None:
        """There are none."""
