"""Trainer types: registered by plug-ins, or named as ``package.module:Class`` in a configuration."""

import sys

import attr
import pytest
import torch
import yaml

from mlagents.plugins.trainer_type import get_settings_class, get_trainer_class, register_trainer_plugins
from mlagents.trainers.exception import TrainerConfigError
from mlagents.trainers.ppo.trainer import PPOSettings, PPOTrainer
from mlagents.trainers.settings import RunOptions

PLUGIN = """
from mlagents.trainers.ppo.trainer import PPOSettings, PPOTrainer

class YourSettings(PPOSettings):
    beta: float = 0.5
    extra: int = 7

class YourTrainer(PPOTrainer):
    @staticmethod
    def get_settings_type():
        return YourSettings

    @staticmethod
    def get_trainer_name():
        return "yours"
"""

REGISTRATION = """
def get_type_and_setting():
    return {"yours": YourTrainer}, {"yours": YourSettings}
"""


def error_for(name):
    with pytest.raises(TrainerConfigError) as raised:
        get_settings_class(name)
    return str(raised.value)


class TestRegistration:
    def test_our_own_trainers_come_by_the_same_way(self, install_plugin):
        types, settings = register_trainer_plugins()
        assert types["ppo"] is PPOTrainer
        assert settings["ppo"] is PPOSettings

    def test_a_plugin_is_registered_and_its_settings_are_an_attrs_class(self, install_plugin, capsys):
        install_plugin("good-trainer", PLUGIN + REGISTRATION)
        types, settings = register_trainer_plugins()
        assert types["yours"].__name__ == "YourTrainer"
        assert "__attrs_attrs__" in settings["yours"].__dict__
        assert settings["yours"](beta=0.25).beta == 0.25
        assert "good-trainer" not in capsys.readouterr().out

    def test_the_first_look_registers(self, install_plugin):
        install_plugin("good-trainer", PLUGIN + REGISTRATION)
        options = RunOptions.from_dict(
            {"behaviors": {"A": {"trainer_type": "yours", "hyperparameters": {"beta": 2}}}, "default_settings": {}}
        )
        assert attr.asdict(options.behaviors["A"].hyperparameters)["beta"] == 2.0
        assert type(options.behaviors["other"].hyperparameters) is PPOSettings
        assert get_trainer_class("yours").__name__ == "YourTrainer"

    def test_a_name_that_two_plugins_give_is_refused_by_both_their_names(self, install_plugin, capsys):
        install_plugin("first-trainer", PLUGIN + REGISTRATION)
        register_trainer_plugins()
        assert get_settings_class("yours").__name__ == "YourSettings"
        assert "cannot be used" not in capsys.readouterr().out
        install_plugin("second-trainer", PLUGIN + REGISTRATION)
        types, settings = register_trainer_plugins()
        assert "yours" not in types
        assert "yours" not in settings
        (warning,) = [line for line in capsys.readouterr().out.splitlines() if "yours" in line]
        for message in (warning, error_for("yours")):
            assert "The trainer type yours cannot be used" in message
            assert "the_first_trainer = first_trainer:get_type_and_setting (of first-trainer 1.5)" in message
            assert "the_second_trainer = second_trainer:get_type_and_setting (of second-trainer 1.5)" in message
        assert get_settings_class("ppo") is PPOSettings

    def test_an_unknown_trainer_type_names_what_is_installed_and_near(self, install_plugin):
        install_plugin("good-trainer", PLUGIN + REGISTRATION)
        message = error_for("your")
        assert message.startswith("Invalid trainer type your was found.")
        assert "Did you mean 'yours'?" in message
        assert "yours" in message.partition("Installed: ")[2]
        assert "ppo" in message.partition("Installed: ")[2]

    def test_a_dotted_name_is_told_of_the_colon(self, install_plugin):
        assert "named by package.module:Class" in error_for("my_trainers.YourTrainer")

    def test_a_trainer_type_to_come_says_so(self, install_plugin):
        assert "poca is not there yet" in error_for("poca")

    def test_a_plugin_may_give_a_trainer_type_that_is_to_come(self, install_plugin):
        install_plugin("poca-trainer", (PLUGIN + REGISTRATION).replace('"yours"', '"poca"'))
        assert get_settings_class("poca").__name__ == "YourSettings"


class TestModuleClass:
    @pytest.fixture
    def module(self, install_plugin, tmp_path, monkeypatch):
        """Write ``my_trainer.py`` into the current folder, which the command alone does not import from."""
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry not in ("", str(tmp_path))])

        def write(source):
            sys.modules.pop("my_trainer", None)
            (tmp_path / "my_trainer.py").write_text(source, encoding="utf-8")

        yield write
        sys.modules.pop("my_trainer", None)

    def test_a_run_trains_with_it_resumes_and_keeps_its_name(self, module, run_learn, basic_config, tmp_path):
        module(PLUGIN)
        config = basic_config(trainer_type="my_trainer:YourTrainer", hyperparameters={"extra": 3})
        code, _, err = run_learn(config, "--env", "Basic", "--run-id", "run", "--seed", 1)
        assert (code, err) == (0, "")
        run = tmp_path / "results" / "run"
        written = yaml.safe_load((run / "configuration.yaml").read_text())["behaviors"]["Basic"]
        assert written["trainer_type"] == "my_trainer:YourTrainer"
        assert written["hyperparameters"]["extra"] == 3
        assert written["hyperparameters"]["beta"] == 0.5

        config = basic_config(trainer_type="my_trainer:YourTrainer", max_steps=400)
        code, _, err = run_learn(config, "--env", "Basic", "--run-id", "run", "--resume")
        assert (code, err) == (0, "")
        state = torch.load(run / "Basic" / "checkpoint.pt", weights_only=True)
        assert int(state["global_step"]["_GlobalSteps__global_step"]) >= 400

    def test_what_its_module_would_register_counts(self, module):
        """A trainer has the same settings before it is packaged and after."""
        module(
            "class OtherSettings: pass\n"
            + PLUGIN.replace("return YourSettings", "raise NotImplementedError")
            + REGISTRATION
        )
        assert get_settings_class("my_trainer:YourTrainer").__name__ == "YourSettings"
        assert get_trainer_class("my_trainer:YourTrainer").__name__ == "YourTrainer"

    @pytest.mark.parametrize(
        ("trainer_type", "message"),
        [
            ("my_trainr:YourTrainer", "there is no module 'my_trainr' in "),
            ("my_trainer:YourTrainr", "'YourTrainr' has to be a class of the module 'my_trainer', and there is none. "
             "Did you mean 'YourTrainer'?"),
            ("./my_trainer.py:YourTrainer", "Write package.module:Class"),
            ("my_trainer:your-trainer", "Write package.module:Class"),
            ("my_trainer:answer", "it is an object of type int"),
            ("my_trainer:YourSettings", "is not a subclass of mlagents.trainers.trainer.Trainer"),
            ("my_trainer:make", "is not a subclass of mlagents.trainers.trainer.Trainer"),
            ("my_trainer:Abstract", "lacks methods that every trainer of its kind has to define: "
             "_process_trajectory, create_optimizer, create_policy"),
            ("my_trainer:Silent", "Silent has no static method get_settings_type"),
            ("my_trainer:Wrong", "the settings of my_trainer:Wrong, <class 'dict'>, are not a subclass of "
             "HyperparamSettings"),
        ],
    )  # fmt: skip
    def test_a_mistake_is_one_message_with_its_place(self, module, run_learn, basic_config, trainer_type, message):
        module(
            PLUGIN
            + """
from mlagents.trainers.trainer.on_policy_trainer import OnPolicyTrainer

answer = 42

def make():
    pass

class Abstract(OnPolicyTrainer):
    pass

class Wrong(PPOTrainer):
    @staticmethod
    def get_settings_type():
        return dict

class Silent(PPOTrainer):
    get_settings_type = None
"""
        )
        config = basic_config(trainer_type=trainer_type)
        line = 1 + config.read_text().splitlines().index(f"    trainer_type: {trainer_type}")
        code, _, err = run_learn(config, "--env", "Basic")
        assert code == 1
        assert err.startswith(f"mlagents-learn: error: {config}:{line}: behaviors.Basic.trainer_type: ")
        assert message in err
        assert len(err.splitlines()) == 1
        assert "Traceback" not in err

    @pytest.mark.parametrize(
        ("source", "line", "error"),
        [
            (PLUGIN + "\n1 / 0\n", "1 / 0", "ZeroDivisionError: division by zero"),
            ("import sys\nsys.exit(3)\n", "sys.exit(3)", "SystemExit: 3"),
            ("import no_such_module_anywhere\n", "import no_such", "ModuleNotFoundError: No module named 'no_such_"),
            (PLUGIN.replace("return YourSettings", "raise KeyError('x')"), "raise KeyError", "KeyError: 'x'"),
            ("def f(:\n", "def f(:", "SyntaxError: "),
        ],
    )
    def test_an_error_of_its_own_comes_with_its_code_and_no_other(
        self, module, run_learn, basic_config, source, line, error
    ):
        module(source)
        code, _, err = run_learn(basic_config(trainer_type="my_trainer:YourTrainer"), "--env", "Basic")
        assert code == 1
        assert "behaviors.Basic.trainer_type: plug-in my_trainer:YourTrainer " in err
        assert error in err.splitlines()[0]
        files = [text for text in err.splitlines() if text.startswith("  File ")]
        assert len(files) == 1
        assert "my_trainer.py" in files[0]
        assert f"    {line}" in err

    def test_the_words_of_the_author_reach_the_user_as_they_are(self, module):
        module("from mlagents.trainers.exception import TrainerConfigError\nraise TrainerConfigError('buy a licence')")
        assert error_for("my_trainer:YourTrainer") == "buy a licence"
