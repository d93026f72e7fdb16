"""The seed document, taken apart into its blocks, and the package that its Python snippets make."""

import re
import textwrap
from pathlib import Path

import pytest

DATA = Path(__file__).parent / "data"
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PLACE = re.compile(r"^( *)# <(\w+)>$", re.MULTILINE)

BLOCKS = {
    "create_environment": ("shell", "conda create -n trainer-env python=3.10.12"),
    "create_policy": ("python", "def create_policy("),
    "create_optimizer": ("python", "def create_optimizer(self) -> TorchOptimizer:"),
    "process_trajectory": ("python", "def _process_trajectory(self, trajectory: Trajectory) -> None:"),
    "settings": ("python", "class PPOSettings(OnPolicyHyperparamSettings):"),
    "update_signature": ("python", "def update(self, batch: AgentBuffer, num_sequences: int) -> Dict[str, float]:"),
    "losses": ("python", "run_out = self.policy.actor.get_stats("),
    "gradient_step": ("python", "ModelUtils.update_learning_rate(self.optimizer, decay_lr)"),
    "entry_points": ("python", "entry_points={"),
    "key_elements": ("", "ML_AGENTS_TRAINER_TYPE: a string constant for trainer type"),
    "get_type_and_setting": ("python", "def get_type_and_setting():"),
    "configuration": ("python", "behaviors:"),
    "install_mlagents": ("shell", "pip3 install -e ./ml-agents-envs && pip3 install -e ./ml-agents"),
    "install_your_package": ("shell", "pip3 install your_custom_package"),
    "install_our_plugin": ("shell", "pip3 install -e ./ml-agents-trainer-plugin"),
    "train": ("shell", "mlagents-learn ml-agents-trainer-plugin/mlagents_trainer_plugin/a2c/a2c_3DBall.yaml"),
    "create_environment_again": ("shell", "conda create -n trainer-env python=3.10.12"),
    "install_all_again": ("shell", "pip3 install -e ./ml-agents-envs && pip3 install -e ./ml-agents"),
    "trainer_type": ("", "trainer_type: a2c"),
    "train_in_editor": ("shell", "mlagents-learn ml-agents-trainer-plugin/mlagents_trainer_plugin/a2c/a2c_3DBall.yaml"),
    "list_trainers": ("python", ">>> import pkg_resources"),
    "editor_log": ("", "[INFO] Listening on port 5004."),
    "error": ("shell", "mlagents.trainers.exception.TrainerConfigError: Invalid trainer type a2c was found"),
}
"""Every block of the document in its order: the name it has here, its language, and how it begins."""


@pytest.fixture(scope="session")
def seed():
    """Return the blocks of the document by the names of `BLOCKS`."""
    document = (DATA / "custom-trainer-plugin.md").read_text(encoding="utf-8")
    found = FENCE.findall(document)
    assert document.count("```") == 2 * len(found)
    assert len(found) == len(BLOCKS)
    for (language, body), expected in zip(found, BLOCKS.values()):
        assert (language, body[: len(expected[1])]) == expected
    return {name: body for name, (_, body) in zip(BLOCKS, found)}


@pytest.fixture(scope="session")
def your_custom_package(seed, tmp_path_factory):
    """Return the folder of a package made of the snippets, each where its template says ``# <name>``.

    Nothing in them is changed: they are only indented.
    """

    def complete(template):
        text = (DATA / "your_custom_package" / template).read_text(encoding="utf-8")
        return PLACE.sub(lambda place: textwrap.indent(seed[place[2]].rstrip("\n"), place[1]), text)

    folder = tmp_path_factory.mktemp("your_custom_package")
    (folder / "setup.py").write_text(complete("setup.py.txt"), encoding="utf-8")
    package = folder / "your_package"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "your_custom_trainer.py").write_text(complete("your_custom_trainer.py.txt"), encoding="utf-8")
    return folder
