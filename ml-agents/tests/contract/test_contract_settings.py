"""Settings classes, as plug-ins subclass them and write to them."""

import attr
import pytest

from mlagents.plugins.trainer_type import register_trainer_plugins
from mlagents.trainers import settings
from mlagents.trainers.exception import TrainerConfigError
from mlagents.trainers.ppo.optimizer_torch import PPOSettings
from mlagents.trainers.ppo.trainer import PPOTrainer
from mlagents.trainers.settings import NetworkSettings, RunOptions, ScheduleType, TrainerSettings
from mlagents.trainers.torch_entities.networks import SimpleActor

OLD_SETTINGS = """
import attr
from typing import List, Optional
from mlagents.trainers.exception import TrainerConfigError
from mlagents.trainers.ppo.trainer import PPOTrainer
from mlagents.trainers.settings import OffPolicyHyperparamSettings, OnPolicyHyperparamSettings, ScheduleType

class Bare(OnPolicyHyperparamSettings):
    beta: float = 5.0e-3
    num_epoch: int = 7
    learning_rate_schedule: ScheduleType = ScheduleType.LINEAR

class BareAbove(Bare):
    gain: float = 1.5

@attr.s(auto_attribs=True)
class Decorated(OffPolicyHyperparamSettings):
    batch_size: int = 32
    sizes: List[int] = attr.ib(factory=lambda: [4, 4])
    tau: float = attr.ib(default=0.005)
    target: Optional[float] = None
    updates_per_step: float = attr.ib()

    @updates_per_step.default
    def _default(self):
        return 1 / self.steps_per_update

    @tau.validator
    def _check(self, attribute, value):
        if not 0 < value <= 1:
            raise TrainerConfigError(f"{attribute.name} is {value}, which no target network can follow.")

@attr.s(auto_attribs=True)
class DecoratedAboveBare(Bare):
    extra: int = 3

class Trainer(PPOTrainer):
    pass

def get_type_and_setting():
    classes = {"bare": Bare, "above": BareAbove, "decorated": Decorated, "mixed": DecoratedAboveBare}
    return {name: Trainer for name in classes}, classes
"""


@pytest.fixture
def read(install_plugin):
    """Return a function that reads the hyperparameters of a trainer type of a plug-in as a file would give them."""
    install_plugin("old-settings", OLD_SETTINGS)

    def read(trainer_type, **hyperparameters):
        behavior = {"trainer_type": trainer_type, "hyperparameters": hyperparameters}
        return RunOptions.from_dict({"behaviors": {"A": behavior}}).behaviors["A"].hyperparameters

    return read


def _classes():
    return [cls for cls in vars(settings).values() if isinstance(cls, type) and attr.has(cls)]


@pytest.mark.parametrize("cls", [*_classes(), PPOSettings, NetworkSettings.MemorySettings])
def test_settings_take_what_a_plugin_hangs_on_them(cls):
    if getattr(cls, "__abstractmethods__", None):
        cls = type("Concrete", (cls,), dict.fromkeys(cls.__abstractmethods__))
    values = {
        field.alias: f"some {field.name}" for field in attr.fields(cls) if field.default is attr.NOTHING and field.init
    }
    if "curriculum" in values:
        values["curriculum"] = [settings.Lesson(settings.ConstantSettings(), "only")]
    made = cls(**values)
    made.path_to_model = "somewhere"
    assert made.path_to_model == "somewhere"
    for field in attr.fields(cls):
        value = getattr(made, field.name)
        setattr(made, field.name, value)  # not frozen
    assert "__slots__" not in vars(cls)


def test_what_is_hung_on_network_settings_reaches_the_network(make_trainer):
    class Actor(SimpleActor):
        def __init__(self, observation_specs, network_settings, action_spec, **kwargs):
            super().__init__(observation_specs, network_settings, action_spec, **kwargs)
            self.path = network_settings.path_to_model

    class Trainer(PPOTrainer):
        actor_class = Actor

        def create_policy(self, *args):
            self.trainer_settings.network_settings.path_to_model = "somewhere"
            return super().create_policy(*args)

    assert make_trainer(Trainer).policy.actor.path == "somewhere"


def test_a_subclass_without_a_decorator(read):
    made = read("bare", beta=0.25)
    assert (made.beta, made.num_epoch, made.batch_size) == (0.25, 7, 1024)
    assert made.learning_rate_schedule is ScheduleType.LINEAR
    with pytest.raises(TrainerConfigError, match="bta: unknown key"):
        read("bare", bta=0.25)


def test_a_subclass_without_a_decorator_of_one_without(read):
    made = read("above", beta=0.25, gain=2)
    assert (made.beta, made.gain, made.num_epoch) == (0.25, 2.0, 7)
    assert read("above").gain == 1.5


def test_a_decorated_subclass_with_all_that_attrs_offers(read):
    made = read("decorated", steps_per_update=4, target=0.5)
    assert (made.batch_size, made.buffer_size, made.tau, made.target) == (32, 50000, 0.005, 0.5)
    assert made.updates_per_step == 0.25
    made.sizes.append(8)
    assert read("decorated").sizes == [4, 4]


def test_a_decorated_subclass_of_one_without_keeps_what_is_no_field_of_it(read):
    """What its base adds was no field to attrs when its author decorated it; the base becomes an attrs class later."""
    read("bare", beta=0.5)
    made = read("mixed", extra=4)
    assert (made.extra, made.beta, made.batch_size) == (4, 5.0e-3, 1024)
    with pytest.raises(TrainerConfigError, match="beta: unknown key"):
        read("mixed", beta=0.5)


def test_a_class_decorated_after_its_base_was_read_inherits_defaults(read):
    base = type(read("bare"))
    later = attr.s(auto_attribs=True)(type("Later", (base,), {"__annotations__": {"extra": int}, "extra": 3}))
    made = later(extra=4)
    assert (made.extra, made.beta, made.num_epoch, made.batch_size) == (4, 5.0e-3, 7, 1024)


def test_only_a_class_that_is_none_becomes_an_attrs_class(install_plugin):
    install_plugin("old-settings", OLD_SETTINGS)
    import old_settings

    fields = {name: vars(getattr(old_settings, name)).get("__attrs_attrs__") for name in ("Decorated", "Bare")}
    assert fields["Bare"] is None
    register_trainer_plugins()
    assert vars(old_settings.Decorated)["__attrs_attrs__"] is fields["Decorated"]
    assert "beta" in attr.fields_dict(old_settings.Bare)
    # Defaults stay on the class, where subclasses that are decorated later look for them.
    assert old_settings.Bare.beta == 5.0e-3


def test_the_default_hyperparameters_of_a_trainer_type(install_plugin):
    install_plugin("old-settings", OLD_SETTINGS)
    assert TrainerSettings(trainer_type="above").hyperparameters.gain == 1.5


def test_what_a_validator_says_reaches_the_user_as_it_is(read):
    with pytest.raises(TrainerConfigError, match=r"tau is 2.0, which no target network can follow\."):
        read("decorated", tau=2.0)
