"""The base classes of trainers."""

from mlagents.trainers.trainer.trainer import Trainer
from mlagents.trainers.trainer.trainer_factory import TrainerFactory

__all__ = ["Trainer", "TrainerFactory"]
