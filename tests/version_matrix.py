"""Tests `mlagents_envs` by itself on several versions of Python and of what it depends on: `make test-versions`.

Each combination gets a virtual environment of its own, without torch, in a temporary folder; the package is
installed from a wheel, and its tests run from a copy, so that nothing of the checkout is imported or written to.
They run two at a time. "Oldest" is the lower bound in the package's pyproject.toml, "newest" what
constraints.txt names. The combinations are few, and chosen so that with any one interpreter missing, the others
still cover both ends of NumPy and of protobuf.

One combination does without the extra `builtin`: the tests that need MuJoCo skip there. The slowest tests run
only with everything at its oldest: `make test` runs them with the newest.

Exits with 1 when a combination fails, or when fewer than three interpreters were found.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Dict, List, NamedTuple, Optional

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "ml-agents-envs"
LEFT_BY_BUILDS = shutil.ignore_patterns("*.egg-info", "__pycache__", "build", "dist")
TEST_TOOLS = ["pytest", "h2", "hypothesis", "pygame-ce"]  # pygame: what games of PettingZoo's import
SHOWN = ["numpy", "protobuf", "grpcio", "gymnasium", "pettingzoo", "mujoco"]
ENOUGH_INTERPRETERS = 3
AT_A_TIME = 2
STEP_TIMEOUT_S = 900
LOG_LINES_SHOWN = 80

SLOW_TESTS = "hundred_thousand or one_after_the_other or many_layouts or bytes_are_those_of_protobuf"
ALL = "all"


class Combination(NamedTuple):
    """A version of Python, and which dependencies are at their oldest; the others are at their newest."""

    python: str
    oldest: List[str]
    extra: str = "[builtin]"
    with_slow_tests: bool = False

    @property
    def name(self) -> str:
        """What the table calls it."""
        return f"{', '.join(self.oldest)} oldest" if self.oldest else "all newest"


COMBINATIONS = [
    Combination("3.10", [ALL], with_slow_tests=True),
    Combination("3.11", []),
    Combination("3.12", ["numpy"], extra=""),
    Combination("3.13", ["protobuf"]),
]


class Outcome(NamedTuple):
    """What became of a combination."""

    combination: Combination
    passed: bool
    result: str
    versions: Dict[str, str] = {}
    seconds: float = 0.0
    log: str = ""


class StepFailed(Exception):
    """A command of a combination ended with an error, or did not end; it is named by what it was to do."""


def find_interpreter(version: str) -> Optional[str]:
    """Return a working interpreter of a version ("3.12"): the running one, one on PATH, or one of pyenv's."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    installed = sorted(pyenv.glob(f"versions/{version}.*/bin/python{version}"))
    candidates = [sys.executable, shutil.which(f"python{version}"), *map(str, installed)]
    return next((path for path in candidates if path and _is_python(path, version)), None)


def _is_python(path: str, version: str) -> bool:
    """Whether a program is Python of this version and can make virtual environments (a shim or a bare one cannot)."""
    script = "import ensurepip, sys, venv; print('%d.%d' % sys.version_info[:2])"
    answer = subprocess.run([path, "-c", script], capture_output=True, text=True)
    return answer.returncode == 0 and answer.stdout.strip() == version


def oldest_versions() -> Dict[str, str]:
    """Return the requirement of each dependency's oldest version ("numpy==1.26.*"), by its name in lower case."""
    project = (PACKAGE / "pyproject.toml").read_text(encoding="utf-8").partition("[project]")[2]
    bounds = re.findall(r'"([\w-]+)>=([\d.]+)"', project)
    return {name.lower(): f"{name}=={version}.*" for name, version in bounds}


def constraints(combination: Combination) -> str:
    """Return the constraints file of a combination."""
    oldest = oldest_versions()
    if combination.oldest == [ALL]:  # nothing of constraints.txt then: its versions leave old Pythons behind
        return "\n".join(oldest.values())
    newest = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    kept = [line for line in newest if line.partition("==")[0].lower() not in combination.oldest]
    return "\n".join([*kept, *(oldest[name] for name in combination.oldest)])


class Sandbox:
    """A virtual environment in a folder of its own; commands run with it activated, and what they print is kept."""

    def __init__(self, folder: Path):
        folder.mkdir()
        self.folder = folder
        self.log = ""
        self._variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        self._variables["PATH"] = f"{folder / 'venv' / 'bin'}{os.pathsep}{os.environ['PATH']}"

    def run(self, purpose: str, *command: str) -> str:
        """Run a command in the folder and return what it printed; raises `StepFailed`."""
        try:
            done = subprocess.run(
                command,
                cwd=self.folder,
                env=self._variables,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=STEP_TIMEOUT_S,
            )
        except subprocess.TimeoutExpired as error:
            printed = error.stdout or b""  # bytes, whatever `text` says
            self.log += printed.decode(errors="replace") if isinstance(printed, bytes) else printed
            raise StepFailed(f"{purpose}: not done in {STEP_TIMEOUT_S} s") from None
        self.log += done.stdout
        if done.returncode != 0:
            raise StepFailed(f"{purpose}: failed")
        return done.stdout

    def python(self, purpose: str, *arguments: str) -> str:
        """Run the environment's own Python."""
        return self.run(purpose, str(self.folder / "venv" / "bin" / "python"), *arguments)


def try_out(combination: Combination, interpreter: str, wheel: Path, tests: Path, folder: Path) -> Outcome:
    """Install the wheel into a new environment and run the tests there."""
    start = time.monotonic()
    sandbox, versions = Sandbox(folder), {}
    (folder / "constraints.txt").write_text(constraints(combination), encoding="utf-8")
    try:
        sandbox.run("environment", interpreter, "-m", "venv", "venv")
        pip = ["-m", "pip", "install", "--quiet", "--only-binary", ":all:", "--constraint", "constraints.txt"]
        sandbox.python("install", *pip, f"{wheel}{combination.extra}", *TEST_TOOLS)
        sandbox.python("no torch", "-c", "import importlib.util as i; assert i.find_spec('torch') is None")
        installed = sandbox.python("versions", "-m", "pip", "list", "--format=freeze")
        versions = dict(re.findall(r"^([\w-]+)==(\S+)$", installed, re.MULTILINE))
        chosen = [] if combination.with_slow_tests else ["-k", f"not ({SLOW_TESTS})"]
        settings = ["-c", str(ROOT / "pyproject.toml"), "--rootdir", str(folder), "-ra", "--color=no", "-v"]
        printed = sandbox.python("tests", "-m", "pytest", *settings, *chosen, str(tests))
        passed, result = True, printed.splitlines()[-1].strip("= ").partition(" in ")[0]
    except StepFailed as failure:
        passed, result = False, str(failure)
    outcome = Outcome(combination, passed, result, versions, time.monotonic() - start, sandbox.log)
    print(f"Python {combination.python}, {combination.name}: {result}", flush=True)
    return outcome


def try_all(interpreters: Dict[str, str], folder: Path) -> List[Outcome]:
    """Try every combination whose interpreter was found."""
    shutil.copytree(PACKAGE, folder / "package", ignore=LEFT_BY_BUILDS)
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", ".", "./package"]
    subprocess.run(build, cwd=folder, check=True)
    (wheel,) = folder.glob("*.whl")
    tests = shutil.move(folder / "package" / "tests", folder / "tests")  # away from the sources, which hide the wheel
    shutil.rmtree(folder / "package")

    def run(combination: Combination) -> Outcome:
        python = combination.python
        if python not in interpreters:
            return Outcome(combination, False, "MISSING: no such interpreter")
        return try_out(combination, interpreters[python], wheel, Path(tests), folder / python)

    with ThreadPoolExecutor(AT_A_TIME) as pool:
        return list(pool.map(run, COMBINATIONS))


def table(outcomes: List[Outcome]) -> str:
    """Return what became of each combination, one a line."""
    rows = [["Python", *SHOWN, "seconds", "result"]]
    for outcome in outcomes:
        versions = [outcome.versions.get(name, "-") for name in SHOWN]
        rows.append([outcome.combination.python, *versions, f"{outcome.seconds:.0f}", outcome.result])
    widths = [max(map(len, column)) for column in zip(*rows)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows)


def main() -> int:
    """Try what can be tried, print what became of it, and return the exit code."""
    found = {combination.python: find_interpreter(combination.python) for combination in COMBINATIONS}
    interpreters = {version: path for version, path in found.items() if path}
    with tempfile.TemporaryDirectory(prefix="version-matrix-") as folder:
        outcomes = try_all(interpreters, Path(folder))
    tried = [outcome for outcome in outcomes if outcome.combination.python in interpreters]
    failed = [outcome for outcome in tried if not outcome.passed]
    for outcome in failed:
        tail = "\n".join(outcome.log.splitlines()[-LOG_LINES_SHOWN:])
        print(f"\n--- Python {outcome.combination.python}, {outcome.result}: the end of the log ---\n{tail}")
    print(f"\n{table(outcomes)}")
    too_few = len(tried) < ENOUGH_INTERPRETERS
    if too_few:
        print(f"{len(tried)} interpreter(s) found; at least {ENOUGH_INTERPRETERS} are needed.")
    return int(bool(failed) or too_few)


if __name__ == "__main__":
    sys.exit(main())
