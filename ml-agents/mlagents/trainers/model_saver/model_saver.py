"""What every saver of models is."""

import abc
from typing import Any, List, Tuple


class BaseModelSaver(abc.ABC):
    """Writes and reads the state of a behaviour's training."""

    @abc.abstractmethod
    def register(self, module: Any) -> None:
        """Add what `module.get_modules()` names to the state."""

    @abc.abstractmethod
    def save_checkpoint(self, behavior_name: str, step: int) -> Tuple[str, List[str]]:
        """Write the state and the model; return the path of the model and the other paths."""

    @abc.abstractmethod
    def export(self, output_filepath: str, behavior_name: str) -> None:
        """Write the model to `output_filepath`, without its ending."""

    @abc.abstractmethod
    def initialize_or_load(self, policy: Any = None) -> None:
        """Read the state that a run resumes or starts from, if there is one."""
