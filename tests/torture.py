"""What a run survives: ``make torture``.

It is killed at random moments, during writes too, and resumed; its files are damaged; its disk is full for a while.
Each of these is done many times, in seconds, and reported as a line. The exit code is 1 if anything was lost.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import torch
import yaml

from mlagents.trainers import learn
from mlagents.trainers.model_saver.checkpoint_file import read_checkpoint
from mlagents.trainers.settings import SerializationSettings
from mlagents.trainers.trainer_controller import TrainerController

CHECKPOINT_INTERVAL = 100
FINAL_STEP = 100_000  # further than any run gets before it is killed
CONFIGURATIONS = {
    "ppo": {"hyperparameters": {"batch_size": 16, "buffer_size": 64}},
    "sac": {"hyperparameters": {"batch_size": 16, "steps_per_update": 8, "save_replay_buffer": True}},
    "a2c": {"hyperparameters": {"batch_size": 16, "buffer_size": 64}},
    "dqn": {"hyperparameters": {"batch_size": 16, "steps_per_update": 8, "save_replay_buffer": True}},
}
RESUMED = re.compile(r"Resuming from step (\d+) of")
BEGAN_ANEW = "it begins anew"
SUMMARY = re.compile(rb"Basic\. Step: (\d+)\.")


class Attempt(NamedTuple):
    """What came of a process that trained for a while."""

    code: int
    reached: int  # the step that it is known to have reached
    output: str


def write_configuration(folder: Path, trainer_type: str) -> Path:
    settings = {
        "trainer_type": trainer_type,
        "max_steps": FINAL_STEP,
        "checkpoint_interval": CHECKPOINT_INTERVAL,
        "summary_freq": 20,
        "time_horizon": 8,
        "network_settings": {"hidden_units": 16, "num_layers": 1},
        **CONFIGURATIONS[trainer_type],
    }
    path = folder / f"{trainer_type}.yaml"
    path.write_text(yaml.safe_dump({"behaviors": {"Basic": settings}}))
    return path


def arguments(config: Path, folder: Path, *more: str) -> list[str]:
    common = ["--env", "Basic", "--run-id", "run", "--results-dir", str(folder), "--seed", "1"]
    return [str(config), *common, *more]


# Processes: forked ones, which have imported everything, and the command as users run it.


def in_child(argv: list[str], kill_after_s: float | None, prepare: Callable[[], None] = lambda: None) -> Attempt:
    """Train in a forked process, and kill it after a while unless it has ended."""
    progress, its_progress = os.pipe()
    output, its_output = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(its_output, 1)
        os.dup2(its_output, 2)
        os._exit(_run(argv, its_progress, prepare))
    os.close(its_progress)
    os.close(its_output)
    killer = _kill_after(child, kill_after_s)
    with ThreadPoolExecutor() as readers:
        steps, text = readers.map(_read_all, (progress, output))
    _, status = os.waitpid(child, 0)
    if killer is not None:
        killer.cancel()
    lines = steps.split()
    return Attempt(os.waitstatus_to_exitcode(status), int(lines[-1]) if lines else 0, text.decode(errors="replace"))


def _read_all(descriptor: int) -> bytes:
    with open(descriptor, "rb") as pipe:
        return pipe.read()


def _run(argv: list[str], write_end: int, prepare: Callable[[], None]) -> int:
    advance = TrainerController.advance

    def advance_and_tell(controller: TrainerController, env_manager: object) -> int:
        steps = advance(controller, env_manager)
        os.write(write_end, b"%d\n" % sum(trainer.get_step for trainer in controller.trainers.values()))
        return steps

    TrainerController.advance = advance_and_tell
    sys.argv = ["mlagents-learn", *argv]
    prepare()
    try:
        learn.main()
        code = 0
    except SystemExit as request:
        code = int(request.code or 0)
    sys.stdout.flush()
    sys.stderr.flush()
    return code


def _kill_after(process: int, kill_after_s: float | None) -> threading.Timer | None:
    if kill_after_s is None:
        return None
    killer = threading.Timer(kill_after_s, os.kill, (process, signal.SIGKILL))
    killer.start()
    return killer


def by_command(argv: list[str], kill_after_s: float) -> Attempt:
    """Train by the command, and kill it some time after its first summary."""
    command = [Path(sys.executable).with_name("mlagents-learn"), *argv]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert process.stdout is not None
    output, killer = b"", None
    for line in process.stdout:
        output += line
        if killer is None and (SUMMARY.search(line) or b"Listening" in line):
            killer = _kill_after(process.pid, kill_after_s)
    process.wait()
    steps = [int(step) for step in SUMMARY.findall(output)]
    return Attempt(process.returncode, max(steps, default=0), output.decode(errors="replace"))


# What is done to runs.


class Failure(Exception):
    """Something was lost."""


def check_resumed(attempt: Attempt, reached: int) -> None:
    """Raise `Failure` unless a run was gone on with that had reached a step, but for a checkpoint's interval."""
    found = RESUMED.search(attempt.output)
    if attempt.code not in (0, -signal.SIGKILL) or "Traceback" in attempt.output:
        raise Failure(f"exit code {attempt.code}:\n{attempt.output[-2000:]}")
    if found is None and BEGAN_ANEW not in attempt.output and attempt.code == 0:
        raise Failure(f"not resumed:\n{attempt.output[-2000:]}")
    resumed_at = int(found[1]) if found else 0
    if (found or BEGAN_ANEW in attempt.output) and reached - resumed_at > CHECKPOINT_INTERVAL + 20:
        raise Failure(f"resumed from {resumed_at}, having reached {reached}:\n{attempt.output[-2000:]}")


def kill_and_resume(folder: Path, n_kills: int, rng: random.Random, with_command: bool) -> int:
    """Kill a run again and again, each time going on with it; return how often it was resumed."""
    config = write_configuration(folder, rng.choice(list(CONFIGURATIONS)))
    reached = 0
    train = by_command if with_command else in_child
    more = ["--checkpoint-interval-s", "0.02"] if rng.random() < 0.5 else []
    resume: list[str] = []
    for _ in range(n_kills):
        attempt = train(arguments(config, folder, *more, *resume), rng.uniform(0.0, 1.5))
        if resume:
            check_resumed(attempt, reached)
        if attempt.code != -signal.SIGKILL:
            raise Failure(f"it ended by itself, with {attempt.code}:\n{attempt.output[-2000:]}")
        reached = max(reached, attempt.reached)
        resume = ["--resume"] if (folder / "run" / "configuration.yaml").exists() else []
    config.write_text(config.read_text().replace(f"max_steps: {FINAL_STEP}", "max_steps: 1"))
    check_resumed(in_child(arguments(config, folder, "--resume"), None), reached)
    return n_kills


def damage_files(folder: Path, n_damages: int, rng: random.Random) -> int:
    """Flip or cut a run's newest files at random places; each time the run is resumed, from what is whole."""
    SerializationSettings.convert_to_onnx = False
    config = write_configuration(folder, "ppo")
    config.write_text(config.read_text().replace(f"max_steps: {FINAL_STEP}", "max_steps: 300"))
    attempt = in_child(arguments(config, folder), None)
    if attempt.code:
        raise Failure(attempt.output)
    whole = folder / "whole"
    shutil.move(folder / "run", whole)
    for _ in range(n_damages):
        shutil.rmtree(folder / "run", ignore_errors=True)
        shutil.copytree(whole, folder / "run")
        newest = folder / "run" / rng.choice(["Basic/checkpoint.pt", "Basic/checkpoint.pt", "run_state.pt"])
        content = bytearray(newest.read_bytes())
        place = rng.randrange(len(content))
        if rng.random() < 0.5:
            content[place] ^= 1 << rng.randrange(8)
        else:
            del content[place:]
        newest.write_bytes(content)
        attempt = in_child(arguments(config, folder, "--resume"), None)
        check_resumed(attempt, attempt.reached or 300)
        if f"{newest} could not be read as a checkpoint" not in attempt.output:
            raise Failure(f"byte {place} of {newest} was not missed:\n{attempt.output[-2000:]}")
        check_finite(folder)
    return n_damages


def check_finite(folder: Path) -> None:
    for tensor in read_checkpoint(folder / "run" / "Basic" / "checkpoint.pt")["Policy"].values():
        if not torch.isfinite(tensor).all():
            raise Failure("the newest state is not finite")


def fill_the_disk(folder: Path, n_runs: int, rng: random.Random) -> int:
    """Let no file grow beyond some size, for a while: the run goes on, and what it learned is saved in the end."""
    for number in range(n_runs):
        shutil.rmtree(folder / "run", ignore_errors=True)
        config = write_configuration(folder, "ppo")
        config.write_text(config.read_text().replace(f"max_steps: {FINAL_STEP}", "max_steps: 400"))
        limit = rng.randrange(200, 20_000)
        attempt = in_child(arguments(config, folder), None, functools.partial(_limit_files, limit, 3.0))
        if attempt.code == 1 and attempt.reached == 0 and "cannot be written: File too large" in attempt.output:
            continue  # not even its configuration: it has not begun
        if attempt.code or "Traceback" in attempt.output or attempt.reached < 400:
            raise Failure(f"run {number} with files of at most {limit} bytes:\n{attempt.output[-3000:]}")
        steps = read_checkpoint(folder / "run" / "Basic" / "checkpoint.pt")["global_step"]
        if next(iter(steps.values())) < 400:
            raise Failure(f"run {number}: saved at {steps}")
    return n_runs


def _limit_files(n_bytes: int, lifted_after_s: float) -> None:
    def limit(n_bytes: int) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, resource.RLIM_INFINITY))

    limit(n_bytes)
    threading.Timer(lifted_after_s, limit, (resource.RLIM_INFINITY,)).start()


# The command.


@contextlib.contextmanager
def folder_for_runs() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="torture-") as name:
        yield Path(name)


def main() -> None:
    """Do it all, and say what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--scale", type=float, default=1.0, help="share of the attempts to make")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"
    rng = random.Random(chosen.seed)

    def times(number: int) -> int:
        return max(1, round(number * chosen.scale))

    parts: list[tuple[str, Callable[[Path], int]]] = [
        *[("killed, forked", lambda folder: kill_and_resume(folder, 8, rng, False))] * times(10),
        *[("killed, by command", lambda folder: kill_and_resume(folder, 5, rng, True))] * times(4),
        ("damaged", lambda folder: damage_files(folder, times(200), rng)),
        ("disk full", lambda folder: fill_the_disk(folder, times(10), rng)),
    ]
    counts: dict[str, int] = {}
    failures = 0
    since_s = time.monotonic()
    for name, part in parts:
        with folder_for_runs() as folder:
            try:
                counts[name] = counts.get(name, 0) + part(folder)
            except Failure as failure:
                failures += 1
                print(*sorted(str(path) for path in folder.rglob("*")), sep="\n")
                print(f"FAILED, {name}: {failure}", flush=True)
    for name, count in counts.items():
        print(f"{name:20} {count:4} times")
    print(f"{failures} failures in {time.monotonic() - since_s:.0f} s")
    sys.exit(failures > 0)


if __name__ == "__main__":
    main()
