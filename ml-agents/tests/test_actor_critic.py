"""An on-policy trainer that supplies only settings, networks and a loss inherits all the rest."""

import attr
import numpy as np
import onnxruntime
import pytest
import torch

from mlagents.plugins import all_trainer_settings, all_trainer_types
from mlagents.trainers.optimizer.actor_critic_optimizer import ActorCriticOptimizer
from mlagents.trainers.settings import ActorCriticSettings
from mlagents.trainers.torch_entities.losses import masked_mean
from mlagents.trainers.torch_entities.networks import SharedActorCritic, SimpleActor, ValueNetwork
from mlagents.trainers.trainer.actor_critic_trainer import ActorCriticTrainer


@attr.s(auto_attribs=True)
class ReinforceSettings(ActorCriticSettings):
    num_epoch: int = 1
    value_weight: float = 0.5


class WideActor(SimpleActor):
    pass


class WideSharedActor(SharedActorCritic):
    pass


class WideCritic(ValueNetwork):
    pass


class ReinforceOptimizer(ActorCriticOptimizer):
    def create_critic(self):
        if self.hyperparameters.shared_critic:
            return super().create_critic()
        return WideCritic(self.stream_names, self.policy.behavior_spec.observation_specs, self.policy.network_settings)

    def create_torch_optimizer(self, parameters):
        return torch.optim.RMSprop(parameters, lr=self.hyperparameters.learning_rate)

    def loss(self, batch):
        policy_loss = -masked_mean(batch.log_probs.sum(dim=1) * batch.advantages, batch.masks)
        errors = [(batch.returns[name] - batch.values[name]).square() for name in self.stream_names]
        value_loss = masked_mean(torch.stack(errors).mean(dim=0), batch.masks)
        loss = policy_loss + self.hyperparameters.value_weight * value_loss
        return loss, {"Losses/Policy Loss": policy_loss, "Losses/Value Loss": value_loss}


class ReinforceTrainer(ActorCriticTrainer):
    settings_class = ReinforceSettings
    optimizer_class = ReinforceOptimizer
    actor_class = WideActor
    shared_actor_class = WideSharedActor

    @staticmethod
    def get_trainer_name():
        return "reinforce"


@pytest.fixture
def registered(monkeypatch):
    monkeypatch.setitem(all_trainer_types, "reinforce", ReinforceTrainer)
    monkeypatch.setitem(all_trainer_settings, "reinforce", ReinforceSettings)


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize("shared_critic", [False, True])
@pytest.mark.parametrize("memory", [None, {"sequence_length": 4, "memory_size": 8}], ids=["", "memory"])
def test_it_trains_exports_and_resumes(run_learn, basic_config, tmp_path, shared_critic, memory):
    config = basic_config(
        trainer_type="reinforce",
        hyperparameters={"shared_critic": shared_critic, "value_weight": 0.25},
        network_settings={"memory": memory},
    )
    code, _, error = run_learn(config, "--env", "Basic", "--run-id", "own", "--seed", 1)
    assert code == 0, error
    session = onnxruntime.InferenceSession(str(tmp_path / "results/own/Basic.onnx"))
    assert ("recurrent_out" in {output.name for output in session.get_outputs()}) == (memory is not None)

    state = torch.load(tmp_path / "results/own/Basic/checkpoint.pt", weights_only=True)
    assert len(state["Optimizer:value_optimizer"]["state"]) > 0
    code, out, error = run_learn(config, "--env", "Basic", "--run-id", "own", "--resume", "--seed", 1)
    assert code == 0, error
    assert "Resuming from step" in out


def test_it_makes_the_networks_it_names(tmp_path):
    from mlagents.trainers.behavior_id_utils import BehaviorIdentifiers
    from mlagents.trainers.settings import TrainerSettings
    from mlagents_envs.base_env import ActionSpec, BehaviorSpec, vector_observation

    identifiers = BehaviorIdentifiers.from_name_behavior_id("A?team=0")
    spec = BehaviorSpec([vector_observation(2, "x")], ActionSpec(1, ()))
    for shared_critic, actor_class, critic_class in (
        (False, WideActor, WideCritic),
        (True, WideSharedActor, WideSharedActor),
    ):
        settings = TrainerSettings(hyperparameters=ReinforceSettings(shared_critic=shared_critic))
        trainer = ReinforceTrainer("A", 1, settings, True, False, 0, str(tmp_path))
        trainer.add_policy(identifiers, trainer.create_policy(identifiers, spec))
        assert type(trainer.policy.actor) is actor_class
        assert type(trainer.optimizer.critic) is critic_class
        assert isinstance(trainer.optimizer.optimizer, torch.optim.RMSprop)
    assert ReinforceTrainer.get_settings_type() is ReinforceSettings


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize("of", ["the loss", "a metric"])
def test_nan_names_what_gave_it_and_keeps_the_checkpoint(run_learn, basic_config, tmp_path, monkeypatch, of):
    config = basic_config(trainer_type="reinforce", max_steps=2000, checkpoint_interval=100)
    loss = ReinforceOptimizer.loss

    def fails_later(self, batch):
        value, metrics = loss(self, batch)
        if self.policy.get_current_step() > 300:
            return (value * np.nan, metrics) if of == "the loss" else (value, {"Losses/Policy Loss": np.nan})
        return value, metrics

    monkeypatch.setattr(ReinforceOptimizer, "loss", fails_later)
    code, _, error = run_learn(config, "--env", "Basic", "--run-id", "nan", "--seed", 1)
    assert code == 1
    assert "Traceback" not in error
    said = {
        "the loss": f"ReinforceOptimizer.loss ({__file__}:{fails_later.__code__.co_firstlineno}) gave NaN",
        "a metric": "gave Losses/Policy Loss = NaN",
    }
    assert said[of] in error
    state = torch.load(tmp_path / "results/nan/Basic/checkpoint.pt", weights_only=True)
    assert all(torch.isfinite(value.float()).all() for value in state["Policy"].values())
    assert (tmp_path / "results/nan/Basic.onnx").is_file()
