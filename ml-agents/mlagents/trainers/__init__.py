"""Trainers, networks, settings and everything between an environment and a trained model."""

__version__ = "2.0.0"
__release_tag__ = "release_22"
