"""Policies: from observations to actions."""

from mlagents.trainers.policy.policy import Policy

__all__ = ["Policy"]
