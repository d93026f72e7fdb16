"""The command `mlagents-new-trainer`: writes a plug-in package with a trainer that works, to be changed from there.

`template-trainer/` beside this module is that package, which here gets its own name.
"""

from __future__ import annotations

import argparse
import importlib.util
import keyword
import re
import shlex
import sys
from pathlib import Path
from typing import List, NoReturn, Optional, Sequence

from mlagents.plugins.trainer_type import find_trainer_plugins, plugins_that_give

TEMPLATE_NAME = "template-trainer"
TEMPLATE = Path(__file__).parent / TEMPLATE_NAME
NAME_PATTERN = re.compile(r"[A-Za-z]([A-Za-z0-9_-]*[A-Za-z0-9])?")
"""What can name a distribution and, with ``_`` for ``-``, a module."""


class NewTrainerError(Exception):
    """The package cannot be written; the message says why and what to do."""


def module_name(name: str) -> str:
    """Return the name of a plug-in's Python package, which is its trainer type too.

    :param name: of the distribution.
    :raises NewTrainerError: no package can be named so.
    """
    module = name.replace("-", "_")
    if not NAME_PATTERN.fullmatch(name) or keyword.iskeyword(module):
        raise NewTrainerError(
            f"{name!r} cannot name a Python package. Take letters, digits, - and _, with a letter first, and no word "
            "of the language, as in my-trainer."
        )
    return module


def class_prefix(module: str) -> str:
    """Return what the names of a plug-in's classes begin with: ``SoftQ`` for ``soft_q`` and ``soft_q_trainer``."""
    camel = "".join(word[0].upper() + word[1:] for word in module.split("_") if word)
    return camel.removesuffix("Trainer") or camel


def check_free(name: str, folder: Path) -> None:
    """Check that nothing stands in a new plug-in's way.

    :raises NewTrainerError: its folder is there, its trainer type is installed, or a module has its name.
    """
    module = module_name(name)
    if folder.exists():
        raise NewTrainerError(f"{folder} is there already. Take another name, or another --directory.")
    find_trainer_plugins()
    for plugin in plugins_that_give(module):
        raise NewTrainerError(f"The trainer type {module} is taken, by the plug-in {plugin}. Take another name.")
    if importlib.util.find_spec(module) is not None:
        raise NewTrainerError(f"A Python module {module} is installed, which this one would hide. Take another name.")


def write_plugin(name: str, directory: Path) -> Path:
    """Write the package of a new plug-in.

    :param name: of its distribution.
    :param directory: where its folder goes.
    :returns: the folder.
    :raises NewTrainerError: see `check_free`; or it cannot be written.
    """
    folder = directory / name
    check_free(name, folder)
    module = module_name(name)
    names = {"template_trainer": module, TEMPLATE_NAME: name, "Template": class_prefix(module)}
    try:
        for source in _template_files():
            target = folder / _renamed(source.relative_to(TEMPLATE).as_posix(), names)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(_renamed(source.read_text(encoding="utf-8"), names), encoding="utf-8")
    except OSError as error:
        raise NewTrainerError(f"{folder} cannot be written: {error.strerror}.") from error
    return folder


def _template_files() -> List[Path]:
    # Installers compile what they install.
    return sorted(path for path in TEMPLATE.rglob("*") if path.is_file() and path.suffix != ".pyc")


def _renamed(text: str, names: dict[str, str]) -> str:
    """Return `text` with every name of the template replaced, all at once: a new name may contain an old one."""
    return re.sub("|".join(map(re.escape, names)), lambda match: names[match.group()], text)


class _Parser(argparse.ArgumentParser):
    """Ends with exit code 1 on a user's mistake, as every other mistake does."""

    def error(self, message: str) -> NoReturn:
        self.exit(1, f"{self.format_usage()}{self.prog}: {message}\n")


def main(argv: Optional[Sequence[str]] = None) -> None:
    """Run the command; a mistake is one message on stderr and exit code 1."""
    parser = _Parser(
        prog="mlagents-new-trainer",
        description="Write a plug-in package with a trainer of your own: complete, tested, and ready to be changed.",
    )
    parser.add_argument("name", metavar="NAME", help="of the package; with _ for - it is the trainer type too")
    parser.add_argument("--directory", default=".", help="where its folder goes (default: the current one)")
    args = parser.parse_args(argv)
    try:
        folder = write_plugin(args.name, Path(args.directory))
    except NewTrainerError as error:
        sys.exit(f"mlagents-new-trainer: {error}")
    print(_next_steps(folder, module_name(args.name)))


def _next_steps(folder: Path, module: str) -> str:
    path = shlex.quote(folder.as_posix())
    return f"""\
Wrote {folder}.
  Install it:     pip install -e {path}
  Train with it:  mlagents-learn {shlex.quote((folder / "3DBall.yaml").as_posix())} --env 3DBall --run-id {module}
  Test it:        python -m pytest {path}
  Change it:      the loss is in {folder / module / "optimizer.py"}"""
