"""Evaluations during training: what counts, what is kept, when training ends, and that training notices nothing."""

import json
import signal

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st

from mlagents.trainers.evaluation import EpisodeCount
from mlagents.trainers.stats import StatsReporter, StatsWriter
from mlagents_envs.base_env import ActionSpec, BehaviorSpec, DecisionSteps, TerminalSteps, vector_observation

SPEC = BehaviorSpec([vector_observation(1, "seen")], ActionSpec.create_discrete((2,)))
EVALUATION = {"interval": 200, "episodes": 6, "max_episode_steps": 40}


class Recorder(StatsWriter):
    """Keeps what is written: name to step to (number of values, mean)."""

    def __init__(self):
        self.curves = {}

    def write_stats(self, category, values, step):
        for name, summary in values.items():
            self.curves.setdefault(name, {})[step] = (summary.num, summary.mean)


def decisions(**rewards):
    """Return the decision steps of agents a1, a2, ... by their rewards."""
    agents, values = _columns(rewards)
    return DecisionSteps([np.zeros((len(agents), 1), np.float32)], values, agents, None, agents, values * 0)


def ends(**rewards):
    """Return the terminal steps of agents a1, a2, ... by their rewards."""
    agents, values = _columns(rewards)
    interrupted = np.zeros(len(agents), dtype=bool)
    return TerminalSteps([np.zeros((len(agents), 1), np.float32)], values, interrupted, agents, agents, values * 0)


def _columns(rewards):
    agents = np.array([int(name.removeprefix("a")) for name in rewards], dtype=np.int32)
    return agents, np.array(list(rewards.values()), dtype=np.float32)


def tensors(path):
    """Return all tensors of a checkpoint, by path."""
    found = {}

    def look(value, place):
        if isinstance(value, torch.Tensor):
            found[place] = value
        elif isinstance(value, (dict, list, tuple)):
            for key, entry in value.items() if isinstance(value, dict) else enumerate(value):
                look(entry, f"{place}/{key}")

    look(torch.load(path, weights_only=True), "")
    return found


def assert_same(one, other):
    one, other = tensors(one), tensors(other)
    assert one.keys() == other.keys()
    assert len(one) > 10
    assert [place for place in one if not torch.equal(one[place], other[place])] == []


@pytest.fixture
def learn(run_learn):
    """Return a function that runs the command to a good end and returns its output and the curves it wrote."""

    def learn(*args):
        recorder = Recorder()
        StatsReporter.add_writer(recorder)
        code, out, error = run_learn(*args)
        assert code == 0, error
        return out, recorder.curves

    return learn


def status(folder):
    return json.loads((folder / "run_logs" / "training_status.json").read_text())


# What counts


def test_the_first_episodes_that_begin_count():
    count = EpisodeCount(n_episodes=3, max_steps=3)
    count.take(decisions(a1=5.0, a2=5.0), ends())  # what comes with the first step is of the time before
    count.take(decisions(a1=1.0), ends(a2=2.0))
    assert (count.returns, count.lengths) == ([2.0], [1])
    count.take(decisions(a1=1.0, a2=7.0, a3=7.0), ends())  # the third that begins is a2's next; a3 is one too many
    count.take(decisions(a3=1.0), ends(a2=0.5, a1=4.0))
    assert count.is_over
    assert sorted(zip(count.returns, count.lengths)) == [(0.5, 1), (2.0, 1), (6.0, 3)]
    assert count.n_cut == 0


def test_an_episode_that_is_too_long_counts_with_what_it_has_got():
    count = EpisodeCount(n_episodes=2, max_steps=2)
    count.take(decisions(a1=0.0), ends())
    count.take(decisions(a1=1.0), ends())
    count.take(decisions(a1=1.0), ends())  # comes after two decisions
    assert (count.returns, count.lengths, count.n_cut) == ([2.0], [2], 1)
    count.take(decisions(a1=10.0), ends())  # the rest of it is no episode
    assert not count.is_over
    count.take(decisions(a1=0.0), ends(a1=20.0))  # now it begins another
    count.take(decisions(), ends(a1=3.0))
    assert (count.returns, count.is_over, count.n_cut) == ([2.0, 3.0], True, 1)


def test_where_only_cut_episodes_go_on_all_agents_may_begin_anew():
    count = EpisodeCount(n_episodes=3, max_steps=1)
    count.take(decisions(a1=0.0, a2=0.0), ends())
    count.take(decisions(a1=1.0), ends())
    assert not count.waits_for_nobody  # a2's goes on
    count.take(decisions(a1=1.0, a2=2.0), ends())
    assert count.waits_for_nobody
    count.forget_agents()
    count.take(decisions(a1=0.0, a2=0.0), ends())
    assert not count.waits_for_nobody
    count.take(decisions(a1=4.0), ends())
    assert (count.returns, count.is_over, count.waits_for_nobody) == ([1.0, 2.0, 4.0], True, False)


def test_group_rewards_count():
    count = EpisodeCount(n_episodes=1, max_steps=9)
    count.take(decisions(a1=0.0), ends())
    terminal = ends(a1=1.0)
    terminal.group_reward[:] = 0.25
    count.take(decisions(), terminal)
    assert count.returns == [1.25]


episode = st.lists(st.integers(-3, 3), min_size=1, max_size=6)  # the rewards after each decision


@given(
    st.lists(st.lists(episode, min_size=1, max_size=5), min_size=1, max_size=4), st.integers(1, 9), st.integers(1, 5)
)
def test_counting_agrees_with_the_schedule_of_the_episodes(agents, n_episodes, max_steps):
    """Agents play their episodes one after the other, each beginning in the step in which the last one ended."""
    schedule = []  # (when it begins, agent, rewards)
    for agent, episodes in enumerate(agents):
        begin = 0
        for rewards in episodes:
            schedule.append((begin, agent, rewards))
            begin += len(rewards)
    first = sorted(schedule, key=lambda it: it[:2])[:n_episodes]
    expected = sorted((sum(rewards[:max_steps]), min(len(rewards), max_steps)) for _, _, rewards in first)

    count = EpisodeCount(n_episodes, max_steps)
    for now in range(max(begin + len(rewards) for begin, _, rewards in schedule) + 1):
        going, ended = {}, {}
        for begin, agent, rewards in schedule:
            if begin + len(rewards) == now:
                ended[f"a{agent}"] = rewards[-1]
            elif begin <= now < begin + len(rewards):
                going[f"a{agent}"] = rewards[now - begin - 1] if now > begin else 0.0
        count.take(decisions(**going), ends(**ended))
    assert sorted(zip(count.returns, count.lengths)) == expected
    assert count.is_over == (len(schedule) >= n_episodes)
    assert count.n_cut == sum(len(rewards) > max_steps for _, _, rewards in first)


# In a run


def test_the_best_policy_is_kept(learn, basic_config, tmp_path):
    config = basic_config(max_steps=1000, checkpoint_interval=200, keep_checkpoints=9, evaluation=EVALUATION)
    out, curves = learn(config, "--env", "Basic", "--run-id", "a", "--seed", 1)
    rewards = {step: mean for step, (_, mean) in curves["Evaluation/Cumulative Reward"].items()}
    assert [step // 200 for step in rewards] == [1, 2, 3, 4, 5]
    assert {num for num, _ in curves["Evaluation/Cumulative Reward"].values()} == {6}
    assert curves["Evaluation/Episode Length"].keys() == rewards.keys()
    assert 0 < max(mean for _, mean in curves["Evaluation/Episode Length"].values()) <= 40

    step = max(rewards, key=rewards.get)  # of several, the first
    folder = tmp_path / "results" / "a"
    best = torch.load(folder / "Basic" / "best.pt", weights_only=True)
    assert (best["about"]["step"], best["about"]["evaluated_reward"]) == (step, rewards[step])
    noted = status(folder)["Basic"]["best_checkpoint"]
    assert (noted["steps"], noted["reward"]) == (step, rewards[step])
    assert noted["file_path"].endswith("best.onnx")
    assert (folder / "Basic" / "best.onnx").is_file()
    at_that_step = folder / "Basic" / f"Basic-{step}.pt"  # both intervals are the same
    assert_same(folder / "Basic" / "best.pt", at_that_step)
    assert "Evaluation of 6 episodes. Mean Reward:" in out
    assert f"The best one is in       {(folder / 'Basic' / 'best.onnx').relative_to(tmp_path)}" in out


def test_without_being_asked_for_nothing_is_evaluated(learn, basic_config, tmp_path):
    out, curves = learn(basic_config(), "--env", "Basic", "--run-id", "a", "--seed", 1)
    assert not [name for name in curves if name.startswith("Evaluation")]
    assert not list(tmp_path.glob("results/a/*/best.*"))
    assert "best" not in out


MEMORY = {"memory": {"memory_size": 8, "sequence_length": 4}}


@pytest.mark.parametrize(
    "trainer",
    [
        {"trainer_type": "ppo", "network_settings": {"hidden_units": 8, **MEMORY}},
        {"trainer_type": "ppo", "threaded": True},
        {"trainer_type": "sac", "hyperparameters": {"batch_size": 16, "buffer_init_steps": 100, "steps_per_update": 8}},
        {"trainer_type": "dqn", "hyperparameters": {"batch_size": 16, "steps_per_update": 8}},
    ],
    ids=["ppo, memory", "ppo, threaded", "sac", "dqn"],
)
@pytest.mark.parametrize("deterministic", [True, False])
def test_training_notices_nothing(learn, basic_config, tmp_path, trainer, deterministic):
    if trainer["trainer_type"] in ("sac", "dqn"):
        config = basic_config()
        settings = yaml.safe_load(config.read_text())
        settings["behaviors"]["Basic"].update(trainer)
        config.write_text(yaml.safe_dump(settings))
    else:
        config = basic_config(**trainer)
    run = ["--env", "Basic", "--seed", 1, "--run-id"]
    _, without = learn(config, *run, "without")
    settings = yaml.safe_load(config.read_text())
    settings["behaviors"]["Basic"]["evaluation"] = {**EVALUATION, "interval": 50, "deterministic": deterministic}
    config.write_text(yaml.safe_dump(settings))
    _, curves = learn(config, *run, "with")
    evaluated = {name: curves.pop(name) for name in list(curves) if name.startswith("Evaluation")}
    assert len(evaluated["Evaluation/Cumulative Reward"]) >= 5
    if not trainer.get("threaded"):  # whose updates come as the processors have it
        assert curves == without
        checkpoint = tmp_path / "results" / "without" / "Basic" / "checkpoint.pt"
        assert_same(checkpoint, tmp_path / "results" / "with" / "Basic" / "checkpoint.pt")


def test_every_evaluation_begins_with_the_same_seeds(learn, basic_config):
    lengths = []
    for seed in (7, 8):
        settings = {**EVALUATION, "interval": 50, "deterministic": False, "seed": seed}
        still = basic_config(hyperparameters={"learning_rate": 1e-12}, evaluation=settings)
        _, curves = learn(still, "--env", "Basic", "--run-id", f"with {seed}", "--seed", 1)
        assert len(curves["Evaluation/Episode Length"]) >= 5
        lengths.append({mean for _, mean in curves["Evaluation/Episode Length"].values()})
    assert [len(means) for means in lengths] == [1, 1]
    assert lengths[0] != lengths[1]


def test_training_ends_at_the_target_and_goes_on_when_it_is_raised(learn, basic_config, tmp_path):
    run = ["--env", "Basic", "--run-id", "a", "--seed", 1]
    _, curves = learn(basic_config(max_steps=100_000, evaluation={**EVALUATION, "target": -100.0}), *run)
    ((step, _),) = curves["Evaluation/Cumulative Reward"].items()
    state = torch.load(tmp_path / "results" / "a" / "Basic" / "checkpoint.pt", weights_only=True)
    assert int(state["global_step"]["_GlobalSteps__global_step"]) == step
    assert status(tmp_path / "results" / "a")["metadata"]["run_status"] == "finished"
    assert (tmp_path / "results" / "a" / "Basic.onnx").is_file()

    out, curves = learn(basic_config(max_steps=100_000, evaluation={**EVALUATION, "target": -100.0}), *run, "--resume")
    assert "Behavior Basic is not trained on: evaluation.target -100 is reached" in out
    assert "Evaluation/Cumulative Reward" not in curves
    _, curves = learn(basic_config(max_steps=700, evaluation={**EVALUATION, "target": 100.0}), *run, "--resume")
    assert [step // 200 for step in curves["Evaluation/Cumulative Reward"]] == [2, 3]


def test_training_ends_without_improvement(learn, basic_config):
    still = basic_config(
        max_steps=100_000, hyperparameters={"learning_rate": 1e-12}, evaluation={**EVALUATION, "patience": 2}
    )
    out, curves = learn(still, "--env", "Basic", "--run-id", "a", "--seed", 1)
    assert len(curves["Evaluation/Cumulative Reward"]) == 3
    assert "evaluation.patience is at its end: 2 evaluations in a row were not better" in out


def test_a_resumed_run_evaluates_as_if_it_had_never_stopped(learn, basic_config, tmp_path):
    class Interrupter(StatsWriter):
        def write_stats(self, category, values, step):
            if step == 500:
                signal.raise_signal(signal.SIGTERM)

    config = basic_config(max_steps=1000, evaluation={**EVALUATION, "patience": 4})
    run = ["--env", "Basic", "--seed", 1, "--run-id"]
    _, whole = learn(config, *run, "whole")
    StatsReporter.add_writer(Interrupter())
    _, first = learn(config, *run, "parts")
    _, second = learn(config, *run, "parts", "--resume")
    for name, points in whole.items():
        assert points == {**first.get(name, {}), **second.get(name, {})}
    rewards = whole["Evaluation/Cumulative Reward"]
    assert (len(rewards), len(first["Evaluation/Cumulative Reward"])) == (5, 2)
    folder = tmp_path / "results"
    assert_same(folder / "whole" / "Basic" / "best.pt", folder / "parts" / "Basic" / "best.pt")
    records = [torch.load(folder / run_id / "run_state.pt", weights_only=True) for run_id in ("whole", "parts")]
    assert records[0]["state"]["evaluation"] == records[1]["state"]["evaluation"]


def test_the_best_of_an_earlier_session_is_not_forgotten(learn, basic_config, tmp_path):
    """Even where the run's own records are gone."""
    run = ["--env", "Basic", "--run-id", "a", "--seed", 1]
    learn(basic_config(max_steps=250, evaluation=EVALUATION), *run)
    folder = tmp_path / "results" / "a"
    best = folder / "Basic" / "best.pt"
    state = torch.load(best, weights_only=True)
    state["about"]["evaluated_reward"] = 1000.0
    torch.save(state, best)
    for path in folder.glob("run_state*.pt"):
        path.unlink()
    before = best.read_bytes()
    _, curves = learn(basic_config(max_steps=450, evaluation=EVALUATION), *run, "--resume")
    assert [step // 200 for step in curves["Evaluation/Cumulative Reward"]] == [2]
    assert best.read_bytes() == before
    assert status(folder)["Basic"]["best_checkpoint"]["steps"] < 250


def test_an_evaluation_that_fails_is_a_warning_and_training_goes_on(learn, basic_config, tmp_path):
    (tmp_path / "failing_env.py").write_text(
        "from mlagents_envs.builtin.basic import BasicEnv\n"
        "from mlagents_envs.exception import UnityEnvironmentException\n"
        "class Env(BasicEnv):\n"
        "    n_evaluating = 0\n"
        "    def __init__(self, worker_id, seed):\n"
        "        super().__init__(seed)\n"
        "        self.evaluates = worker_id == 1\n"
        "        Env.n_evaluating += self.evaluates\n"
        "    def step(self):\n"
        "        if self.evaluates and Env.n_evaluating == 1:\n"
        "            raise UnityEnvironmentException('It broke.')\n"
        "        super().step()\n"
    )
    out, curves = learn(
        basic_config(max_steps=500, evaluation=EVALUATION), "--env", "module:failing_env:Env", "--run-id", "a"
    )
    assert "Behavior Basic could not be evaluated at step 2" in out
    assert "is trained on: It broke." in out
    assert [step // 200 for step in curves["Evaluation/Cumulative Reward"]] == [2]  # by another environment


def test_rewards_that_are_not_finite_are_no_best(learn, basic_config, tmp_path):
    (tmp_path / "unreal_env.py").write_text(
        "import numpy as np\n"
        "from mlagents_envs.builtin.basic import BasicEnv\n"
        "class Env(BasicEnv):\n"
        "    def __init__(self, worker_id, seed):\n"
        "        super().__init__(seed)\n"
        "        self.evaluates = worker_id == 1\n"
        "    def get_steps(self, name):\n"
        "        decisions, terminals = super().get_steps(name)\n"
        "        if self.evaluates:\n"
        "            decisions.reward[:] = terminals.reward[:] = np.inf\n"
        "        return decisions, terminals\n"
    )
    out, curves = learn(basic_config(evaluation=EVALUATION), "--env", "module:unreal_env:Env", "--run-id", "a")
    assert "could not be evaluated" in out
    assert "An agent of behavior Basic got a reward that is not finite." in out
    assert "Evaluation/Cumulative Reward" not in curves
    assert not list(tmp_path.glob("results/a/*/best.*"))


def test_an_episode_that_does_not_end_is_told_of(learn, basic_config):
    short = {**EVALUATION, "max_episode_steps": 2}
    out, curves = learn(basic_config(evaluation=short), "--env", "Basic", "--run-id", "a", "--seed", 1)
    assert "6 of 6 episodes of the evaluation of behavior Basic had not ended after 2 decisions" in out
    assert {mean for _, mean in curves["Evaluation/Episode Length"].values()} == {2.0}


def test_a_best_policy_that_cannot_be_written_is_a_warning(learn, basic_config, tmp_path):
    class InTheWay(StatsWriter):
        def write_stats(self, category, values, step):
            (tmp_path / "results" / "a" / "Basic" / "best.pt" / "in the way").mkdir(parents=True, exist_ok=True)

    StatsReporter.add_writer(InTheWay())
    out, _ = learn(basic_config(evaluation=EVALUATION), "--env", "Basic", "--run-id", "a", "--seed", 1)
    assert "The best policy so far of behavior Basic could not be saved" in out
    assert (tmp_path / "results" / "a" / "Basic.onnx").is_file()


def test_workers_train_while_one_more_environment_evaluates(learn, basic_config):
    config = basic_config(evaluation=EVALUATION)
    _, curves = learn(config, "--env", "Basic", "--run-id", "a", "--seed", 1, "--num-envs", 2)
    assert len(curves["Evaluation/Cumulative Reward"]) == 1


def test_the_editor_cannot_evaluate_beside_training(run_learn, basic_config):
    code, _, error = run_learn(basic_config(evaluation=EVALUATION), "--run-id", "a")
    assert (code, "Traceback" in error) == (1, False)
    assert "evaluation needs --env: there is one Unity Editor" in error
