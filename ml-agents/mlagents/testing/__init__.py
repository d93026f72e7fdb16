"""Small tasks for trainers, and `check_trainer`, which says what a trainer can do and what it gets wrong.

One line in the tests of a plug-in, ``check_trainer("my_trainer")``, or ``python -m mlagents.testing my_trainer``.
"""

from mlagents.testing.check import check_trainer
from mlagents.testing.report import CheckReport, TrainerCheckError
from mlagents.testing.tasks import TASKS, Task

__all__ = ["TASKS", "CheckReport", "Task", "TrainerCheckError", "check_trainer"]
