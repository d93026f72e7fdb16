"""A trainer in a thread of its own: what it does beside collection comes to the same as without the thread."""

import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from mlagents.plugins.trainer_type import register_trainer_plugins
from mlagents.testing.runs import Run, Subject
from mlagents.testing.tasks import TASKS
from mlagents.trainers.ppo.trainer import TorchPPOOptimizer
from mlagents.trainers.settings import SerializationSettings
from mlagents.trainers.stats import StatsReporter, StatsWriter
from mlagents.trainers.trainer import update_thread
from mlagents_envs import timers

N_AGENTS, EPISODE_LENGTH = 3, 5
TIMEOUT_S = 60
"""For what comes at once, unless the test fails."""


def in_thread(function):
    thread = threading.Thread(target=function, daemon=True)
    thread.start()
    return thread


# Of five steps, the fourth completes trajectories of 3 * 4 steps, and the fifth ends the episodes with 3 * 1 more. The
# first update is of 42 steps, the first number above 32, after environment step 14. Up to step 24 then 30 steps wait,
# and with the 33 of step 25 it is more than the buffer's 32.
STEPS_UNTIL_FULL = 25


def test_collection_goes_on_during_an_update_until_a_buffers_worth_waits(make_session, gate):
    session = make_session()
    steps_made = threading.Semaphore(0)
    session.env.on_step = lambda n_steps: steps_made.release()
    learning = in_thread(session.learn)
    for _ in range(STEPS_UNTIL_FULL):
        assert steps_made.acquire(timeout=TIMEOUT_S)
    assert gate.reached.wait(TIMEOUT_S)
    assert not steps_made.acquire(timeout=0.2)
    assert session.trainer.get_step == 42
    gate.opened.set()
    learning.join(TIMEOUT_S)
    assert session.trainer.get_step == 207  # where trajectories end for the first time after 200


@pytest.mark.parametrize("max_steps", [42, 200])
def test_counts_updates_and_files_are_those_of_a_run_without_threads(make_session, monkeypatch, max_steps):
    def run(threaded):
        updates, summaries = [], []
        session = make_session(threaded, max_steps=max_steps, summary_freq=40, checkpoint_interval=70)
        trainer, update_policy = session.trainer, session.trainer._update_policy

        def note_and_update():
            updates.append((trainer.get_step, trainer.update_buffer.num_experiences))
            return update_policy()

        class Notes(StatsWriter):
            def write_stats(self, category, values, step):
                counts = {name: values[name].num for name in values if name.startswith(("Losses", "Environment/Cum"))}
                summaries.append((category, step, counts))

        monkeypatch.setattr(trainer, "_update_policy", note_and_update)
        StatsReporter.add_writer(Notes())
        session.learn()
        StatsReporter.close_writers()
        files = sorted(path.name for path in Path(trainer.artifact_path).iterdir())
        steps = trainer.get_step, trainer.policy.get_current_step(), list(trainer.reward_buffer)
        return updates, summaries, files, steps

    with_thread = run(True)
    assert with_thread == run(False)
    updates, _, files, (step, _, _) = with_thread
    assert updates[:1] == ([(42, 42)] if max_steps > 42 else [])
    assert f"Cart-{step}.pt" in files


def test_each_trainer_acts_with_a_copy_and_learns_the_original(make_session):
    session = make_session(max_steps=60)
    acting, trained = session.acting, session.trainer.policy
    assert acting is not trained
    before = acting.get_weights()
    session.learn()
    session.advance()  # takes over what the last update left
    session.controller._settle()
    after = trained.get_weights()
    assert any(np.any(old != new) for old, new in zip(before, after))
    unthreaded = make_session(threaded=False)
    assert unthreaded.acting is unthreaded.trainer.policy
    assert unthreaded.controller.update_threads == {}


def test_while_weights_are_half_updated_agents_act_with_whole_ones(make_session, monkeypatch):
    halfway, go_on = threading.Event(), threading.Event()

    @torch.no_grad()
    def set_all_to_one(optimizer, batch, n_sequences):
        first, *others = optimizer.policy.actor.parameters()
        first.fill_(1.0)
        halfway.set()
        assert go_on.wait(TIMEOUT_S)
        for parameter in others:
            parameter.fill_(1.0)
        return {}

    def numbers(policy):
        return {number for parameter in policy.actor.parameters() for number in parameter.flatten().tolist()}

    monkeypatch.setattr(TorchPPOOptimizer, "update", set_all_to_one)
    session = make_session()
    for policy in (session.acting, session.trainer.policy):
        for parameter in policy.actor.parameters():
            parameter.data.fill_(0.0)
    session.advance(15)
    assert halfway.wait(TIMEOUT_S)
    assert numbers(session.trainer.policy) == {0.0, 1.0}
    session.advance(3)
    assert numbers(session.acting) == {0.0}
    go_on.set()
    session.update_thread.settle()
    session.advance()
    assert numbers(session.acting) == {1.0}


@pytest.mark.parametrize(("min_waiting_share", "beside"), [(-1.0, True), (2.0, False)])
def test_where_collection_does_not_wait_updates_run_in_its_thread(make_session, monkeypatch, min_waiting_share, beside):
    threads = set()
    update = TorchPPOOptimizer.update

    def note_thread(optimizer, batch, n_sequences):
        threads.add(threading.current_thread())
        return update(optimizer, batch, n_sequences)

    monkeypatch.setattr(update_thread, "MIN_WAITING_SHARE", min_waiting_share)
    monkeypatch.setattr(TorchPPOOptimizer, "update", note_thread)
    session = make_session()
    before = session.acting.get_weights()
    session.learn()
    assert session.trainer.get_step == 207
    (thread,) = threads
    assert (thread is not threading.current_thread()) is beside
    assert any(np.any(old != new) for old, new in zip(before, session.acting.get_weights()))


def test_the_share_of_waiting_is_that_of_the_last_phases(monkeypatch):
    # Total and computing seconds: a phase of 1 and 0.25, one that is not measured, and one of 1 and 1.
    moments = iter([(0.0, 0.0), (1.0, 0.25), (7.0, 2.0), (8.0, 3.0)])
    monkeypatch.setattr(update_thread, "_now", lambda: next(moments))
    share = update_thread._WaitingShare()
    share.stop()
    assert share.waiting_share == 1.0
    share.start()
    share.stop()
    assert share.waiting_share == 0.75
    share.start()
    share.stop()
    share.stop()
    assert share.waiting_share == pytest.approx(1 - (0.98 * 0.25 + 1) / (0.98 + 1))


def test_the_thread_computes_as_the_run_does(make_session, monkeypatch):
    """Torch's default device, gradients and number of threads; they are settings of each thread."""
    seen = []
    session = make_session()

    def look():
        seen.append((torch.get_default_device(), torch.is_grad_enabled(), torch.get_num_threads()))

    monkeypatch.setattr(session.trainer, "advance", look)
    torch.set_default_device("meta")
    try:
        with torch.no_grad():
            session.manager.process_steps(session.manager.first_step_infos)
            session.update_thread._hand_on(update_thread._Batch([]))
            session.update_thread.settle()
    finally:
        torch.set_default_device(None)
    assert seen == [(torch.device("meta"), True, torch.get_num_threads())]


def test_the_threads_times_are_told_beside_those_of_the_run(make_session):
    timers.reset_timers()
    make_session().learn()
    loop = timers.get_timer_tree()["children"]["TrainerController.start_learning"]["children"]
    assert "_update_policy" not in loop["TrainerController.advance"]["children"]["trainer_advance"].get("children", {})
    beside = loop["update_thread"]
    assert beside["is_parallel"]
    update = beside["children"]["trainer_advance"]["children"]["_update_policy"]
    assert update["count"] == 5  # after 42, 75, 117, 150 and 192 steps
    assert 0 < update["total"] < beside["total"]


def test_a_threaded_run_learns(monkeypatch, tmp_path):
    monkeypatch.setattr(SerializationSettings, "convert_to_onnx", False)
    monkeypatch.setattr(update_thread, "MIN_WAITING_SHARE", -1.0)
    register_trainer_plugins()
    task = TASKS["branches"]
    options = Subject("ppo", {}, {}, seed=1, max_steps=None, folder=tmp_path).options(task)
    options.behaviors.default_settings.threaded = True
    run = Run(task, options, seed=1)
    assert run.go()
    assert np.mean(run.returns[-200:]) >= task.threshold
