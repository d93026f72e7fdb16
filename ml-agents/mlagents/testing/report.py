"""What came of checking a trainer, and how it is printed."""

from __future__ import annotations

import textwrap
from dataclasses import dataclass, field
from enum import Enum
from typing import Dict, List, Optional

from mlagents.testing.tasks import Task

CHECKS = {
    "trains": "a training run comes to its end",
    "statistics": "the statistics are finite, and the returns among them are what the environment paid",
    "resumes": "a resumed run begins with the state that was saved",
    "acts": "inference acts without learning, and writes nothing",
    "learns": "the trained model, acting in inference, reaches the wanted mean return",
    "masks": "forbidden choices are never taken",
    "exports": "the ONNX model acts as the network in torch does",
    "repeats": "the same seed gives the same weights",
}
"""Name of each check to what it asks for."""


class Status(Enum):
    """What came of one check, as it stands in the table."""

    PASSED = "ok"
    FAILED = "FAILED"
    SKIPPED = "skipped"


@dataclass(frozen=True)
class CheckResult:
    """One check on one task; a message says why it failed or was skipped."""

    status: Status
    message: str = ""


@dataclass
class TaskReport:
    """All checks on one task.

    :ivar refusal: why the trainer does not fit the task; None where it does.
    :ivar mean_return: what the trained model reached; None where it came to nothing.
    :ivar results: by name of the check; those that could not be run are missing.
    """

    task: Task
    refusal: Optional[str] = None
    mean_return: Optional[float] = None
    results: Dict[str, CheckResult] = field(default_factory=dict)

    def with_status(self, status: Status) -> Dict[str, CheckResult]:
        """Return the results of one kind."""
        return {name: result for name, result in self.results.items() if result.status is status}


@dataclass
class CheckReport:
    """All checks of a trainer; printed, it is a table, and below it the reason of each failure.

    :ivar duration_s: of the checks, in seconds.
    """

    trainer_type: str
    seed: int
    tasks: List[TaskReport] = field(default_factory=list)
    duration_s: float = 0.0

    @property
    def passed(self) -> bool:
        """Whether a task fits the trainer, and nothing failed."""
        return any(task.refusal is None for task in self.tasks) and not any(
            task.with_status(Status.FAILED) for task in self.tasks
        )

    def __str__(self) -> str:
        return "\n".join([self._headline(), "", *self._table(), *self._notes()])

    def _headline(self) -> str:
        counts = {status: sum(len(task.with_status(status)) for task in self.tasks) for status in Status}
        parts = [f"{counts[Status.PASSED]} checks passed"]
        parts += [f"{counts[Status.FAILED]} FAILED"] if counts[Status.FAILED] else []
        parts += [f"{counts[Status.SKIPPED]} skipped"] if counts[Status.SKIPPED] else []
        if all(task.refusal is not None for task in self.tasks):
            parts = ["FAILED, for none of the tasks fits it"]
        return f"Trainer {self.trainer_type}, seed {self.seed}, {self.duration_s:.0f} s: {', '.join(parts)}."

    def _table(self) -> List[str]:
        widths = {name: max(len(name), len(Status.SKIPPED.value)) for name in CHECKS}
        names = "  ".join(name.ljust(width) for name, width in widths.items())
        lines = [f"{'task':<12} {'return':>6} {'wanted':>6}  {names}".rstrip()]
        for report in self.tasks:
            if report.refusal is not None:
                lines.append(f"{report.task.name:<12} does not fit: {report.refusal}")
                continue
            reached = "-" if report.mean_return is None else f"{report.mean_return:.3f}"
            cells = "  ".join(
                (report.results[name].status.value if name in report.results else "-").ljust(width)
                for name, width in widths.items()
            )
            lines.append(f"{report.task.name:<12} {reached:>6} {report.task.threshold:>6.2f}  {cells}".rstrip())
        return lines

    def _notes(self) -> List[str]:
        """Say why checks failed, or were skipped."""
        lines = []
        for report in self.tasks:
            for name, result in report.results.items():
                if result.message:
                    lines += [
                        "",
                        f"{report.task.name} ({report.task.capability}), {name}: {CHECKS[name]}: {result.status.value}",
                        textwrap.indent(result.message.rstrip(), "  "),
                    ]
        return lines


class CheckFailure(Exception):
    """What a check found wrong."""


class CheckSkipped(Exception):
    """Why a check cannot be made here."""


class TrainerCheckError(AssertionError):
    """A trainer failed a check; the message is the report.

    :ivar report: what came of each check.
    """

    def __init__(self, report: CheckReport):
        super().__init__(f"{report}")
        self.report = report
