"""The files of a run: ``results/<run-id>``."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Dict, List, Optional

import numpy as np
import yaml

from mlagents.torch_utils import torch
from mlagents.trainers import __version__
from mlagents.trainers.exception import UnityTrainerException
from mlagents.trainers.files import remove_leftovers, write_text_atomically
from mlagents.trainers.model_saver.checkpoints import CheckpointHistory
from mlagents.trainers.model_saver.torch_model_saver import BEST_CHECKPOINT_NAME, DEFAULT_CHECKPOINT_NAME
from mlagents.trainers.run_lock import RunLock
from mlagents.trainers.settings import CheckpointSettings, RunOptions
from mlagents.trainers.trainer.trainer_factory import NOT_A_BEHAVIOR
from mlagents_envs import __version__ as envs_version
from mlagents_envs import timers
from mlagents_envs.logging_util import get_logger
from mlagents_envs.spelling import did_you_mean

logger = get_logger(__name__)

CONFIGURATION = "configuration.yaml"
LOCK = ".lock"
STATUS_FORMAT_VERSION = "0.3.0"
TRASH = ".trash"
KEPT_IN_TRASH = 3
_IN_TRASH = re.compile(r".+-\d{8}-\d{6}-\d{6}")


class RunDirectory:
    """Where a run's files lie, and whether they may be written or read.

    :param settings: which run, and whether to resume it, replace it, or start from another.
    """

    def __init__(self, settings: CheckpointSettings):
        self.settings = settings
        self.path = Path(settings.write_path)
        self.logs_path = Path(settings.run_logs_dir)
        self._since_s = time.time()
        self._configuration: Optional[str] = None  # once it was written
        self._lock = RunLock(self.path / LOCK)
        self._session: Optional[int] = None

    @property
    def player_logs_path(self) -> Path:
        """The folder for the logs of executables."""
        return self.path / "inference" if self.settings.inference else self.logs_path

    @property
    def session(self) -> int:
        """Which session of the run this is: 1 for the first, one more each time that it is resumed."""
        if not self.loads_own_state:
            return 1
        if self._session is None:
            metadata = self.read_status().get("metadata")
            sessions = metadata.get("sessions") if isinstance(metadata, dict) else None
            self._session = sessions + 1 if isinstance(sessions, int) else 2
        return self._session

    @property
    def seed(self) -> Optional[int]:
        """The seed of the run as its configuration keeps it; None where that is not there."""
        try:
            configuration = yaml.safe_load((self.path / CONFIGURATION).read_text(encoding="utf-8"))
            seed = configuration["env_settings"]["seed"]
        except (OSError, ValueError, TypeError, LookupError, yaml.YAMLError):
            return None
        return seed if isinstance(seed, int) and seed >= 0 else None

    @property
    def loads_own_state(self) -> bool:
        """Whether the run goes on from its own newest state: it resumes, or plays what it has learned."""
        settings = self.settings
        return settings.resume or settings.load_model or (settings.inference and settings.initialize_from is None)

    @property
    def was_killed_as_it_began(self) -> bool:
        """Whether the run is there, or its empty folder, but no state of it."""
        has_begun = (self.path / CONFIGURATION).is_file() or not self._holds_a_run()
        return has_begun and not self._behavior_folders()

    def _behavior_folders(self) -> List[Path]:
        """Return the folders of the run with states of a behaviour in them."""
        folders = {path.parent for path in self.path.rglob("*.pt")} - {self.path}
        return sorted(folder for folder in folders if folder.relative_to(self.path).parts[0] not in NOT_A_BEHAVIOR)

    @property
    def is_taken(self) -> bool:
        """Whether there is a run of this id, which the settings say neither to go on with nor to replace."""
        settings = self.settings
        return not (self.loads_own_state or settings.inference or settings.force) and self._holds_a_run()

    def check(self) -> None:
        """Check that what the settings ask for can be done; nothing is touched.

        :raises UnityTrainerException: the run exists already, or the one to resume or start from does not.
        """
        settings = self.settings
        if settings.force and (settings.resume or settings.inference):
            with_what = (
                "--resume, which goes on with the run" if settings.resume else "--inference, which replaces none"
            )
            logger.warning(f"--force has no effect beside {with_what}.")
        if self.loads_own_state:
            if not self.path.is_dir():
                raise UnityTrainerException(self._no_such_run(settings.run_id, "resume" if settings.resume else "play"))
        elif self.is_taken:
            raise UnityTrainerException(
                f"There is a run {settings.run_id!r} already, in {self.path}. Go on with it by --resume, replace it by "
                f"--force, or choose another --run-id."
            )
        init_path = settings.maybe_init_path
        if init_path is not None and not settings.resume and not Path(init_path).is_dir():
            raise UnityTrainerException(self._no_such_run(str(settings.initialize_from), "initialize from"))

    def check_writable(self) -> None:
        """Check that files of the run can be written, where there will be any, and by no other process.

        :raises UnityTrainerException: they cannot.
        """
        if not self.settings.inference:
            self._check_writable()
            try:
                self._lock.take()
            except OSError as error:
                raise self._not_writable(error) from error

    def check_could_be_written(self) -> None:
        """Check the same without writing anything, as well as that can be.

        :raises UnityTrainerException: they cannot.
        """
        if self.settings.inference:
            return
        there = next(folder for folder in (self.path, *self.path.absolute().parents) if folder.exists())
        if not there.is_dir():
            raise self._not_writable(OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR)))
        if not os.access(there, os.W_OK):
            raise self._not_writable(OSError(errno.EACCES, os.strerror(errno.EACCES)))
        self._lock.check()

    def close(self) -> None:
        """Let other processes write the run's files."""
        self._lock.release()

    def _holds_a_run(self) -> bool:
        """Return whether a behaviour was trained here; an attempt that failed before leaves no folder of one."""
        if not self.path.is_dir():
            return self.path.exists()
        return any(entry.is_dir() and entry.name not in NOT_A_BEHAVIOR for entry in self.path.iterdir())

    def _no_such_run(self, run_id: str, verb: str) -> str:
        results = self.path.parent if self.path.parent != Path() else Path(".")
        runs = []
        if results.is_dir():
            runs = sorted(entry.name for entry in results.iterdir() if entry.is_dir() and entry.name != TRASH)
        there = f"Runs in {results}: {', '.join(runs)}." if runs else f"There are no runs in {results}."
        return f"There is no run {run_id!r} to {verb}.{did_you_mean(run_id, runs)} {there}"

    def _check_writable(self) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.path):
                pass
        except OSError as error:
            raise self._not_writable(error) from error

    def _not_writable(self, error: OSError) -> UnityTrainerException:
        return UnityTrainerException(
            f"The results folder {self.path} cannot be written: {error.strerror}. Choose another with --results-dir."
        )

    def init_checkpoint(self, behavior_name: str, init_path: Optional[str]) -> Optional[str]:
        """Return the checkpoint that a behaviour starts from, if any.

        :param init_path: the behaviour's own setting: a checkpoint file, or one of the run to initialize from.
        """
        run_to_start_from = self.settings.maybe_init_path
        if init_path is None:
            if run_to_start_from is None:
                return None
            return os.path.join(run_to_start_from, behavior_name, DEFAULT_CHECKPOINT_NAME)
        if os.path.exists(init_path) or run_to_start_from is None:
            return init_path
        return os.path.join(run_to_start_from, behavior_name, init_path)

    def begin(self, options: RunOptions) -> None:
        """Make room for the run, and write ``configuration.yaml``: what it was told, readable as input again.

        A run that it replaces is moved aside into ``.trash`` beside it, where the newest three are kept.

        :raises UnityTrainerException: the results folder cannot be written.
        """
        try:
            self._begin(options)
        except OSError as error:
            raise self._not_writable(error) from error

    def _begin(self, options: RunOptions) -> None:
        if self._holds_a_run() and not self.loads_own_state:
            trash = self.path.parent / TRASH
            trash.mkdir(exist_ok=True)
            held = self._describe()
            before = self._lock
            if sys.platform == "win32":  # where a folder with a file that is open cannot be moved
                before.release()
            aside = trash / f"{self.path.name}-{time.strftime('%Y%m%d-%H%M%S')}-{time.monotonic_ns() % 10**6:06}"
            shutil.move(self.path, aside)
            self._take_back_player_logs(aside)
            logger.info(f"The run that {self.path} held ({held}) was moved to {aside}.")
            replaced = [entry for entry in trash.iterdir() if _IN_TRASH.fullmatch(entry.name)]
            for old in sorted(replaced, key=lambda entry: entry.stat().st_ctime_ns)[:-KEPT_IN_TRASH]:
                shutil.rmtree(old, ignore_errors=True)
            self._check_writable()
            self._lock = RunLock(self.path / LOCK)
            self._lock.take()
            before.release()
            (aside / LOCK).unlink(missing_ok=True)
        remove_leftovers(self.path)
        self._configuration = yaml.safe_dump(options.as_dict(), sort_keys=False)
        write_text_atomically(self.path / CONFIGURATION, self._configuration)

    def mend(self) -> None:
        """Write ``configuration.yaml`` again where it is gone, as it is if somebody deleted the run's folder.

        :raises OSError: it cannot be written, or another process has begun to.
        """
        path = self.path / CONFIGURATION
        if self._configuration is not None and not path.exists():
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock.release()
            try:
                self._lock.take()
            except UnityTrainerException as error:
                raise OSError(str(error)) from error
            write_text_atomically(path, self._configuration)
            logger.warning(f"{path} was gone, and maybe more of the run. What is still known is written again.")

    def _describe(self) -> str:
        """Say which behaviours the run has, and how far they were trained."""
        status = self.read_status()
        described = []
        for folder in self._behavior_folders():
            name = folder.relative_to(self.path).as_posix()
            checkpoints = CheckpointHistory(keep_checkpoints=1)
            checkpoints.restore(status.get(name), folder)
            steps = max((checkpoint.steps for checkpoint in checkpoints.checkpoints), default=0)
            described.append(f"{name}: {steps:,} steps, {len(list(folder.glob('*.pt')))} states")
        return "; ".join(described) or "nothing learned"

    def _take_back_player_logs(self, aside: Path) -> None:
        """Bring the logs of executables that were started for this run back from the one that it replaces."""
        for log in (aside / self.logs_path.name).glob("Player-*.log"):
            if self._is_new(log):
                self.logs_path.mkdir(parents=True, exist_ok=True)
                shutil.move(log, self.logs_path / log.name)

    def _is_new(self, path: Path) -> bool:
        """Whether a file was written in this session."""
        return path.stat().st_mtime >= self._since_s - 1  # file systems keep time more coarsely

    def read_status(self) -> Dict[str, Any]:
        """Return what ``training_status.json`` holds by behaviour; nothing where it is missing or broken."""
        path = self.logs_path / "training_status.json"
        try:
            status = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            logger.warning(f"{path} could not be read ({error}); the list of older checkpoints starts anew.")
            return {}
        return status if isinstance(status, dict) else {}

    def write_status(self, behaviors: Dict[str, Any], status: str) -> None:
        """Write ``training_status.json``.

        :param status: running, interrupted, finished or failed.
        """
        metadata = {
            "run_status": status,
            "sessions": self.session,
            "stats_format_version": STATUS_FORMAT_VERSION,
            "mlagents_version": __version__,
            "torch_version": str(torch.__version__),
        }
        text = json.dumps({**behaviors, "metadata": metadata}, indent=4)
        write_text_atomically(self.logs_path / "training_status.json", text)

    def write_timers(self) -> None:
        """Write ``timers.json``: where the time went."""
        timers.add_metadata("mlagents_version", __version__)
        timers.add_metadata("mlagents_envs_version", envs_version)
        timers.add_metadata("pytorch_version", str(torch.__version__))
        timers.add_metadata("numpy_version", np.__version__)
        text = json.dumps(timers.get_timer_tree(), indent=4)
        write_text_atomically(self.logs_path / "timers.json", text)

    def final_models(self, behavior_names: List[str]) -> List[str]:
        """Return the paths of the final models that this session has written."""
        paths = [self.path / f"{name}.onnx" for name in behavior_names]
        return [str(path) for path in paths if path.exists() and self._is_new(path)]

    def best_models(self, behavior_names: List[str]) -> List[str]:
        """Return the paths of the models that evaluations found best."""
        paths = [(self.path / name / BEST_CHECKPOINT_NAME).with_suffix(".onnx") for name in behavior_names]
        return [str(path) for path in paths if path.exists()]
