"""How runs with a trainer in a thread of its own end, pause and begin anew."""

import traceback

import numpy as np
import pytest
import torch

from mlagents.trainers.exception import NotFiniteError
from mlagents.trainers.ppo.trainer import TorchPPOOptimizer

N_AGENTS, EPISODE_LENGTH = 3, 5
TIMEOUT_S = 60
"""For what comes at once, unless the test fails."""


@pytest.mark.parametrize("threaded", [True, False])
def test_an_error_of_an_update_ends_the_run_and_what_was_learned_is_saved(make_session, monkeypatch, threaded):
    def fail_at_the_second_update(optimizer, batch, n_sequences):
        if optimizer.policy.get_current_step() > 42:
            raise ZeroDivisionError("of a plug-in")
        return {}

    monkeypatch.setattr(TorchPPOOptimizer, "update", fail_at_the_second_update)
    session = make_session(threaded)
    with pytest.raises(ZeroDivisionError, match="of a plug-in") as caught:
        session.learn()
    frames = [frame.name for frame in traceback.extract_tb(caught.tb)]
    assert "fail_at_the_second_update" in frames
    assert session.trainer.get_step == 75  # of the second update: 33 steps after the first
    (checkpoint,) = session.trainer.checkpoints.checkpoints
    assert checkpoint.steps == 75
    for thread in session.controller.update_threads.values():
        thread.settle()  # told once


def test_a_loss_that_is_nan_leaves_the_checkpoints_alone(make_session, monkeypatch):
    def give_nan_later(optimizer, batch, n_sequences):
        return {"Losses/Policy Loss": float("nan") if optimizer.policy.get_current_step() > 50 else 0.0}

    monkeypatch.setattr(TorchPPOOptimizer, "update", give_nan_later)
    session = make_session(checkpoint_interval=50)
    good = []

    def remember(n_steps):
        if n_steps == 48:
            good.extend(parameter.detach().clone() for parameter in session.trainer.policy.actor.parameters())

    session.env.on_step = remember
    with pytest.raises(NotFiniteError, match=r"Behavior Cart, step \d+: .*did not get better"):
        session.learn()
    assert session.trainer.setbacks.rollbacks == 2
    now = list(session.trainer.policy.actor.parameters())
    assert all(torch.equal(one, other) for one, other in zip(good, now, strict=True))


def test_an_error_of_the_environment_waits_for_the_update_and_saves(make_session, gate):
    session = make_session()

    def break_during_the_update(n_steps):
        if n_steps == 16:
            assert gate.reached.wait(TIMEOUT_S)
            gate.opened.set()
            raise OSError("environment")

    session.env.on_step = break_during_the_update
    with pytest.raises(OSError, match="environment"):
        session.learn()
    assert session.trainer.optimizer.optimizer.state  # the update was finished
    assert [checkpoint.steps for checkpoint in session.trainer.checkpoints.checkpoints] == [42]


def test_a_stop_is_obeyed_and_all_that_was_collected_counts(make_session, gate):
    session = make_session()

    def stop_during_the_update(n_steps):
        if n_steps == 19:  # the twentieth
            assert gate.reached.wait(TIMEOUT_S)
            session.stop.requested = True
            gate.opened.set()

    session.env.on_step = stop_during_the_update
    session.learn()
    assert session.env.n_steps == 20
    assert session.trainer.get_step == 20 * N_AGENTS
    assert session.trainer.checkpoints.final.steps == 60


def test_saving_in_the_middle_has_all_that_was_collected_and_training_goes_on(make_session):
    session = make_session()
    session.advance(20)
    session.controller.save_checkpoint()
    assert session.trainer.checkpoints.final.steps == 60
    session.learn()
    assert session.trainer.checkpoints.final.steps == 207


def test_a_reset_forgets_the_episodes_under_way(make_session):
    session = make_session()
    session.advance(4)  # a trajectory each, in the middle of the first episode
    session.update_thread.settle()
    assert session.trainer.collected_rewards["environment"]
    session.controller.reset(session.manager)
    assert not session.trainer.collected_rewards["environment"]
    session.advance(EPISODE_LENGTH)
    session.update_thread.settle()
    assert list(session.trainer.reward_buffer) == [EPISODE_LENGTH] * N_AGENTS


def test_a_team_that_appears_later_has_a_copy_of_its_own(make_session):
    session = make_session(two_teams=True)
    session.advance(9)
    assert list(session.manager.policies) == ["Cart?team=0"]
    session.advance(21)
    session.update_thread.settle()
    session.advance()
    one, other = (session.manager.policies[f"Cart?team={team}"] for team in (0, 1))
    assert len({id(policy) for policy in (one, other, session.trainer.policy)}) == 3
    for mine, theirs in zip(one.get_weights(), other.get_weights()):
        np.testing.assert_array_equal(mine, theirs)
    assert session.trainer.optimizer.optimizer.state
