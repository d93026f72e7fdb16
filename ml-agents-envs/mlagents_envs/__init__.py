"""Environments for training agents: the low-level API, built-in simulations, side channels, the registry."""

__version__ = "2.0.0"
__release_tag__ = "release_22"
