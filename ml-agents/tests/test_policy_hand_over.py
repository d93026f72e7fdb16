"""`PolicyHandOver`: from the policy that is trained in one thread to the copy that acts in another."""

import threading

import numpy as np
import pytest
import torch

from mlagents.plugins.trainer_type import register_trainer_plugins
from mlagents.trainers.behavior_id_utils import BehaviorIdentifiers
from mlagents.trainers.exception import TrainerConfigError
from mlagents.trainers.ppo.trainer import PPOSettings
from mlagents.trainers.settings import NetworkSettings, TrainerSettings
from mlagents.trainers.trainer import TrainerFactory
from mlagents.trainers.trainer.policy_hand_over import PolicyHandOver
from mlagents_envs.base_env import ActionSpec, BehaviorSpec, DecisionSteps, vector_observation

BEHAVIOR_ID = "Cart?team=0"
SPEC = BehaviorSpec([vector_observation(2, "place")], ActionSpec(1, ()))
TIMEOUT_S = 60


@pytest.fixture
def make_trainer(tmp_path):
    """Return a function that makes a trainer with a policy."""
    register_trainer_plugins()
    torch.manual_seed(0)

    def make(memory=None):
        network = NetworkSettings(hidden_units=4, num_layers=1, normalize=True, memory=memory, deterministic=True)
        settings = TrainerSettings(hyperparameters=PPOSettings(), network_settings=network)
        config = TrainerSettings.DefaultTrainerDict({"Cart": settings})
        trainer = TrainerFactory(config, str(tmp_path), True, False, 1, {}).generate("Cart")
        identifiers = BehaviorIdentifiers.from_name_behavior_id(BEHAVIOR_ID)
        trainer.add_policy(identifiers, trainer.create_policy(identifiers, SPEC))
        return trainer

    return make


def decisions(n_agents=3):
    return DecisionSteps(
        obs=[np.arange(2 * n_agents, dtype=np.float32).reshape(n_agents, 2)],
        reward=np.zeros(n_agents, dtype=np.float32),
        agent_id=np.arange(n_agents, dtype=np.int32),
        action_mask=None,
        group_id=np.zeros(n_agents, dtype=np.int32),
        group_reward=np.zeros(n_agents, dtype=np.float32),
    )


@torch.no_grad()
def change(policy):
    """Change all that an update may change."""
    for parameter in policy.actor.parameters():
        parameter.add_(0.5)
    for processor in policy.actor.network_body.observation_encoder.processors:
        processor.normalizer.update(torch.tensor([[30.0, 40.0], [50.0, 0.0]]))
    policy.increment_step(7)


def actions_of(policy):
    return policy.get_action(decisions()).action.continuous


@pytest.mark.parametrize("memory", [None, NetworkSettings.MemorySettings(sequence_length=2, memory_size=4)])
def test_the_copy_acts_as_the_original_did_when_it_was_put_in(make_trainer, memory):
    """Weights, the statistics of normalised observations, and the step counter."""
    trainer = make_trainer(memory)
    trained = trainer.policy
    hand_over = PolicyHandOver(BEHAVIOR_ID, trainer)
    at_first = actions_of(hand_over.acting)
    assert hand_over.empty()
    change(trained)
    hand_over.put(trained)
    expected = actions_of(trained)
    change(trained)
    assert hand_over.qsize() == 1
    hand_over.acting.end_all_episodes()
    np.testing.assert_array_equal(actions_of(hand_over.acting), at_first)
    acting = hand_over.get_nowait()
    assert acting is hand_over.acting
    acting.end_all_episodes()
    np.testing.assert_array_equal(actions_of(acting), expected)
    assert np.all(expected != at_first)
    assert acting.get_current_step() == 7
    with pytest.raises(PolicyHandOver.Empty):
        hand_over.get_nowait()


def test_only_the_newest_is_handed_over(make_trainer):
    trainer = make_trainer()
    hand_over = PolicyHandOver(BEHAVIOR_ID, trainer)
    for _ in range(3):
        change(trainer.policy)
        hand_over.put(trainer.policy)
    assert hand_over.qsize() == 1
    np.testing.assert_array_equal(actions_of(hand_over.get_nowait()), actions_of(trainer.policy))


def test_what_agents_remember_is_the_copys_own(make_trainer):
    trainer = make_trainer(NetworkSettings.MemorySettings(sequence_length=2, memory_size=4))
    hand_over = PolicyHandOver(BEHAVIOR_ID, trainer)
    remembered = hand_over.acting.get_action(decisions()).outputs["memory_out"]
    hand_over.put(trainer.policy)
    outputs = hand_over.get_nowait().get_action(decisions()).outputs
    np.testing.assert_array_equal(outputs["memory_in"], remembered)
    assert np.any(remembered != 0)
    assert np.all(trainer.policy.get_action(decisions()).outputs["memory_in"] == 0)


def test_weights_stay_whole_under_constant_updates(make_trainer):
    """One thread fills all parameters with one number after the other, while another takes them over."""
    trainer = make_trainer()
    hand_over = PolicyHandOver(BEHAVIOR_ID, trainer)
    done = threading.Event()

    def update_all_the_time():
        with torch.no_grad():
            for number in range(1, 501):
                for parameter in trainer.policy.actor.parameters():
                    parameter.fill_(number)
                trainer.policy.set_step(number)
                hand_over.put(trainer.policy)
        done.set()

    updating = threading.Thread(target=update_all_the_time, daemon=True)
    updating.start()
    last = 0.0
    while not (done.is_set() and hand_over.empty()):
        if hand_over.empty():
            continue
        acting = hand_over.get_nowait()
        (number,) = {number for parameter in acting.actor.parameters() for number in parameter.flatten().tolist()}
        assert number == acting.get_current_step() > last
        last = number
    updating.join(TIMEOUT_S)
    assert last == 500


def test_a_network_may_know_its_trainer(make_trainer):
    trainer = make_trainer()
    trainer.policy.actor.best_trainer = trainer
    assert PolicyHandOver(BEHAVIOR_ID, trainer).acting.actor.best_trainer is trainer


def test_a_policy_that_cannot_be_copied_is_one_clear_message(make_trainer):
    trainer = make_trainer()
    trainer.policy.actor.lock = threading.Lock()
    with pytest.raises(
        TrainerConfigError, match=r"threaded: true .*behavior Cart.*cannot be copied: .*threaded: false"
    ):
        PolicyHandOver(BEHAVIOR_ID, trainer)
