"""What the manual says holds: generated pages are current, links lead somewhere, examples and commands are accepted."""

import importlib.util
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from mlagents.trainers.cli_options import create_parser
from mlagents.trainers.config_file import load_config_file
from mlagents.trainers.settings import RunOptions
from mlagents_envs.registry import UnityEnvRegistry

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")


def blocks(page, language):
    """Return the code blocks of a page in one language."""
    return [body for name, body in FENCE.findall(page.read_text(encoding="utf-8")) if name == language]


def of_all_pages(language):
    """Return every block of a language as a test's parameter, named by its page and number."""
    return [
        pytest.param(body, id=f"{page.relative_to(ROOT)}-{number}")
        for page in PAGES
        for number, body in enumerate(blocks(page, language), start=1)
    ]


CONFIGURATIONS = [
    block for block in of_all_pages("yaml") if block.values[0].startswith(("behaviors:", "default_settings:"))
]
COMMANDS = [
    pytest.param(line, id=line)
    for block in of_all_pages("shell")
    for line in block.values[0].splitlines()
    if line.startswith("mlagents-learn ") and "--list-trainers" not in line  # which runs nothing
]


def generator():
    """Return the script that writes the configuration page, as a module."""
    spec = importlib.util.spec_from_file_location("generate_configuration", DOCS / "generate_configuration.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_configuration_page_is_what_the_settings_classes_say():
    page = generator().render()
    assert page == (DOCS / "configuration.md").read_text(encoding="utf-8"), "run docs/generate_configuration.py"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_relative_links_lead_to_files(page):
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    targets = [link.partition("#")[0] for link in LINK.findall(text) if not re.match(r"[a-z]+:", link)]
    assert [target for target in targets if target and not (page.parent / target).exists()] == []


def test_links_and_examples_are_found_at_all():
    assert {"training.md", "reference.md"} <= set(LINK.findall((DOCS / "index.md").read_text(encoding="utf-8")))
    assert len(CONFIGURATIONS) >= 4
    assert len(COMMANDS) >= 6


@pytest.mark.parametrize("text", CONFIGURATIONS)
def test_configurations_are_accepted(text, tmp_path):
    path = tmp_path / "example.yaml"
    path.write_text(text, encoding="utf-8")
    options = RunOptions.from_dict(load_config_file(str(path)).options)
    assert options.behaviors or options.default_settings is not None


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_are_accepted(command):
    arguments = shlex.split(command, comments=True)[1:]
    given = vars(create_parser(lambda: "").parse_args(arguments))
    assert given.get("env_path") or given.get("trainer_config_path")


def test_the_examples_of_environments_run(tmp_path):
    """All blocks of the page as one script: the random loop, the puck, parameters, the ways from other libraries."""
    script = "\n".join(blocks(DOCS / "environments.md", "python"))
    use_the_puck = """
puck = PuckEnv(num_areas=4)
puck.reset()
puck.step()
print(len(puck.get_steps("Puck?team=0")[0]))
"""
    (tmp_path / "examples.py").write_text(script + use_the_puck, encoding="utf-8")
    run = subprocess.run([sys.executable, "examples.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    specification, episodes, agents_of_two_workers, pucks = run.stdout.splitlines()
    assert specification.startswith("3DBall?team=0 [(8,)]")
    assert float(episodes.split()[-1]) == pytest.approx(0.93, abs=0.2)
    assert (agents_of_two_workers, pucks) == ("24", "16")


def test_the_manifest_of_the_manual_is_one(tmp_path):
    (text,) = [block for block in blocks(DOCS / "environments.md", "yaml") if block.startswith("environments:")]
    there = "\n".join(line for line in text.splitlines() if "more-environments" not in line)  # which is on the net
    (tmp_path / "manifest.yaml").write_text(there, encoding="utf-8")
    registry = UnityEnvRegistry()
    registry.register_from_yaml(str(tmp_path / "manifest.yaml"))
    assert list(registry) == ["Walker", "Racer"]
