"""Evaluations during training: what counts, what is kept, when training ends, and that training notices nothing."""

import json
import signal
import sys

import numpy as np
import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st

from mlagents.trainers.evaluation import EpisodeCount, Evaluator
from mlagents.trainers.settings import EvaluationSettings
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


# What goes wrong

INTERRUPTED_ENV = """
import os, signal
from mlagents_envs.builtin.basic import BasicEnv
class Env(BasicEnv):
    n = 0
    def __init__(self, worker_id, seed):
        super().__init__(seed)
        self.evaluates = worker_id == 1
    def step(self):
        Env.n += self.evaluates
        if Env.n == 60 and os.environ.get("INTERRUPT"):
            Env.n += 1
            signal.raise_signal(signal.SIGINT)
        super().step()
"""


def test_an_evaluation_that_is_stopped_is_made_up_for(learn, basic_config, tmp_path, monkeypatch):
    (tmp_path / "interrupted_env.py").write_text(INTERRUPTED_ENV)
    config = basic_config(max_steps=700, evaluation=EVALUATION)
    run = ["--env", "module:interrupted_env:Env", "--seed", 1, "--run-id"]
    _, whole = learn(config, *run, "whole")
    sys.modules.pop("interrupted_env")
    monkeypatch.setenv("INTERRUPT", "yes")
    out, first = learn(config, *run, "parts")
    assert "Stopping after this step" in out
    monkeypatch.delenv("INTERRUPT")
    _, second = learn(config, *run, "parts", "--resume")
    for name in ("Evaluation/Cumulative Reward", "Evaluation/Episode Length"):
        assert whole[name] == {**first.get(name, {}), **second.get(name, {})}
        assert not first.get(name, {}).keys() & second[name].keys()
    results = tmp_path / "results"
    assert_same(results / "whole" / "Basic" / "best.pt", results / "parts" / "Basic" / "best.pt")


def test_a_bug_in_an_environment_that_evaluates_does_not_end_training(learn, basic_config, tmp_path):
    (tmp_path / "buggy_eval_env.py").write_text(
        "from mlagents_envs.builtin.basic import BasicEnv\n"
        "class Env(BasicEnv):\n"
        "    def __init__(self, worker_id, seed):\n"
        "        super().__init__(seed)\n"
        "        self.evaluates = worker_id == 1\n"
        "    def step(self):\n"
        "        if self.evaluates:\n"
        "            raise ZeroDivisionError('a bug of mine')\n"
        "        super().step()\n"
    )
    out, _ = learn(basic_config(evaluation=EVALUATION), "--env", "module:buggy_eval_env:Env", "--run-id", "a")
    assert "and is trained on: ZeroDivisionError: a bug of mine" in out
    assert (tmp_path / "results" / "a" / "Basic.onnx").is_file()


def test_an_environment_that_cannot_be_made_again_leaves_the_old_run_alone(run_learn, basic_config, tmp_path):
    run_learn(basic_config(), "--env", "Basic", "--run-id", "a")
    before = (tmp_path / "results" / "a" / "Basic" / "checkpoint.pt").read_bytes()
    (tmp_path / "only_env.py").write_text(
        "from mlagents_envs.builtin.basic import BasicEnv\n"
        "from mlagents_envs.exception import UnityEnvironmentException\n"
        "class Env(BasicEnv):\n"
        "    def __init__(self, worker_id, seed):\n"
        "        super().__init__(seed)\n"
        "        if worker_id:\n"
        "            raise UnityEnvironmentException('There is one licence.')\n"
    )
    evaluated = basic_config(evaluation=EVALUATION)
    code, _, error = run_learn(evaluated, "--env", "module:only_env:Env", "--run-id", "a", "--force")
    assert (code, "Traceback" in error) == (1, False)
    assert "There is one licence." in error
    assert (tmp_path / "results" / "a" / "Basic" / "checkpoint.pt").read_bytes() == before


def test_a_target_counts_though_the_best_cannot_be_written(learn, basic_config, tmp_path, monkeypatch):
    def no_room(self, reward):
        raise OSError("No space left on device")

    monkeypatch.setattr("mlagents.trainers.trainer.rl_trainer.RLTrainer.save_best", no_room)
    settings = {**EVALUATION, "target": -100.0}
    out, curves = learn(basic_config(max_steps=5000, evaluation=settings), "--env", "Basic", "--run-id", "a")
    assert "could not be saved: No space left on device" in out
    assert "evaluation.target -100 is reached" in out
    assert len(curves["Evaluation/Cumulative Reward"]) == 1


def test_a_failing_export_leaves_no_older_model_under_the_name_of_the_best(learn, basic_config, tmp_path, monkeypatch):
    from mlagents.trainers.torch_entities.model_serialization import ModelSerializer

    export = ModelSerializer.export_policy_model
    n_exported = []

    def export_once(self, path):
        if str(path).endswith("best"):
            n_exported.append(path)
            if len(n_exported) > 1:
                raise RuntimeError("no room")
        export(self, path)

    monkeypatch.setattr(ModelSerializer, "export_policy_model", export_once)
    config = basic_config(max_steps=1000, evaluation=EVALUATION)
    out, _ = learn(config, "--env", "Basic", "--run-id", "a", "--seed", 1)
    assert len(n_exported) >= 2
    folder = tmp_path / "results" / "a" / "Basic"
    assert not (folder / "best.onnx").exists()
    assert "saved as results/a/Basic/best.pt" in out
    assert status(folder.parent)["Basic"]["best_checkpoint"]["file_path"] == "results/a/Basic/best.pt"


VANISHING_ENV = """
import numpy as np
from mlagents_envs.base_env import ActionSpec, BehaviorSpec, DecisionSteps, TerminalSteps, vector_observation
from mlagents_envs.local_env import LocalEnv
SPEC = BehaviorSpec([vector_observation(1, "seen")], ActionSpec.create_discrete((2,)))
class Env(LocalEnv):
    n = -1
    def __init__(self, worker_id, seed):
        super().__init__({"Basic?team=0": SPEC}, seed=seed)
        self.evaluates, self.first = worker_id == 1, 0
    def _publish_now(self):
        if self.evaluates and self.n and self.n % 3 == 0 and MODE == "vanish":
            self.first += 2  # others take the places of those that are gone without an end
        rests = self.evaluates and self.n % 5 and MODE == "rarely"
        agents = np.arange(self.first, self.first + 2, dtype=np.int32)[: 0 if rests else None]
        zeros, seen = np.zeros(len(agents), np.float32), np.zeros((len(agents), 1), np.float32)
        ends = self.n and self.n % (10 if MODE == "rarely" or not self.evaluates else 10**9) == 0
        ended = TerminalSteps([seen], zeros + 1, zeros > 0, agents, agents, zeros) if ends and len(agents) else None
        self._publish("Basic?team=0", DecisionSteps([seen], zeros, agents, None, agents, zeros), ended)
    def _begin_episodes(self):
        self.n = 0
        self._publish_now()
    def _simulate(self):
        self.n += 1
        self._publish_now()
"""


@pytest.mark.parametrize("mode", ["vanish", "rarely"])
def test_agents_that_vanish_or_decide_rarely(learn, basic_config, tmp_path, mode):
    name = f"{mode}_env"
    (tmp_path / f"{name}.py").write_text(f"MODE = {mode!r}\n{VANISHING_ENV}")
    out, curves = learn(basic_config(evaluation=EVALUATION), "--env", f"module:{name}:Env", "--run-id", "a")
    if mode == "vanish":
        assert "Of 6 episodes of the evaluation of behavior Basic at step 2" in out
        assert "only 0 came to an end: agents vanished, or did not come." in out
        assert "Evaluation/Cumulative Reward" not in curves
    else:
        assert "came to an end" not in out
        ((n_episodes, reward),) = curves["Evaluation/Cumulative Reward"].values()
        assert (n_episodes, reward) == (6, 1.0)


def test_what_is_not_trained_on_is_not_evaluated_again():
    class Settings:
        evaluation = EvaluationSettings(interval=100)

    class Done:
        trainer_settings = Settings()
        get_step, should_still_train, best_evaluated = 250, False, (None, 0)

    evaluator = Evaluator(None, {}, 0, lambda: False)
    evaluator.load_state_dict({"Basic": {"step": 99, "is_final": False}})
    assert evaluator.due({"Basic": Done()}) == ["Basic"]  # the last of its policies
    evaluator.load_state_dict({"Basic": {"step": 99, "is_final": True}})
    assert evaluator.due({"Basic": Done()}) == []
    Done.should_still_train = True  # with other settings
    assert evaluator.due({"Basic": Done()}) == ["Basic"]
