"""Optimizers: the losses and their gradient steps."""

from mlagents.trainers.optimizer.optimizer import Optimizer

__all__ = ["Optimizer"]
