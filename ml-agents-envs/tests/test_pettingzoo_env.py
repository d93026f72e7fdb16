"""PettingZoo's environments as ours, replayed by PettingZoo's own loop."""

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from pettingzoo import AECEnv, ParallelEnv
from pettingzoo.classic import connect_four_v3

from mlagents_envs.base_env import ActionTuple
from mlagents_envs.exception import UnityEnvironmentException
from mlagents_envs.external.pettingzoo_env import PettingZooEnv
from mlagents_envs.external.spaces import UnsupportedSpaceException


class Herd(ParallelEnv):
    """Sheep that graze until they die at random, lambs that join late, and a dog with other spaces.

    Of those that go, some terminate, some are truncated, and some vanish without a word.
    """

    metadata = {"name": "herd"}
    possible_agents = ["sheep_0", "sheep_1", "sheep_2", "dog"]

    def __init__(self):
        self.seeds = []

    def observation_space(self, agent):
        return spaces.Box(-np.inf, np.inf, (3,) if agent == "dog" else (2,), np.float64)

    def action_space(self, agent):
        return spaces.Box(-1, 1, (1,)) if agent == "dog" else spaces.Discrete(3)

    def reset(self, seed=None, options=None):
        self.seeds.append(seed)
        self.rng = np.random.default_rng(seed)
        self.age = 0
        self.agents = list(self.possible_agents)
        return {agent: self.observe(agent) for agent in self.agents}, {agent: self.info(agent) for agent in self.agents}

    def step(self, actions):
        assert set(actions) == set(self.agents)
        for agent, action in actions.items():
            assert action in self.action_space(agent)
            assert agent == "dog" or self.info(agent)["action_mask"][action]
        self.age += 1
        ends = {agent: self.rng.choice(["live", "die", "cut", "both", "vanish"], p=[0.8, 0.06, 0.06, 0.04, 0.04])
                for agent in self.agents}  # fmt: skip
        vanished = [agent for agent, end in ends.items() if end == "vanish"]
        told = [agent for agent in self.agents if agent not in vanished]
        observations = {agent: self.observe(agent) for agent in told}
        rewards = {agent: float(np.sum(actions[agent])) + self.rng.normal() for agent in told}
        terminations = {agent: ends[agent] in ("die", "both") for agent in told}
        truncations = {agent: ends[agent] in ("cut", "both") for agent in told}
        self.agents = [agent for agent in told if ends[agent] == "live"]
        if self.age in (3, 5) and self.agents:
            lamb = f"sheep_{self.age + 10}"
            self.agents.append(lamb)
            observations[lamb] = self.observe(lamb)
        return observations, rewards, terminations, truncations, {agent: self.info(agent) for agent in self.agents}

    def observe(self, agent):
        return self.rng.normal(size=self.observation_space(agent).shape)

    def info(self, agent):
        return {} if agent == "dog" else {"action_mask": np.roll([1, 1, 0], self.age).astype(np.int8)}


class Auction(AECEnv):
    """Bidders in turn, each of whom may go broke at any bid, also another's, or before the first of their own."""

    metadata = {"name": "auction"}
    possible_agents = ["bidder_0", "bidder_1", "bidder_2"]
    render_mode = None

    def __init__(self):
        super().__init__()
        self.seeds = []

    def observation_space(self, agent):
        return spaces.Dict(bids=spaces.Box(0, np.inf, (1,)), last=spaces.Discrete(4))

    def action_space(self, agent):
        return spaces.Discrete(4)

    def reset(self, seed=None, options=None):
        self.seeds.append(seed)
        self.rng = np.random.default_rng(seed)
        self.agents = list(self.possible_agents)
        self.rewards = dict.fromkeys(self.agents, 0.0)
        self._cumulative_rewards = dict.fromkeys(self.agents, 0.0)
        self.terminations = dict.fromkeys(self.agents, False)
        self.truncations = dict.fromkeys(self.agents, False)
        self.infos = {agent: {} for agent in self.agents}
        self.bids, self.last_bid = 0, 0
        self.agent_selection = self.agents[0]

    def observe(self, agent):
        return {"bids": np.array([self.bids], np.float32), "last": self.last_bid}

    def step(self, action):
        agent = self.agent_selection
        if self.terminations[agent] or self.truncations[agent]:
            self._was_dead_step(action)
            return
        self._cumulative_rewards[agent] = 0
        self.bids, self.last_bid = self.bids + 1, int(action)
        for bidder in self.agents:
            self.rewards[bidder] = self.rng.normal()
            fate = self.rng.random()
            self.terminations[bidder] = bool(fate < 0.1)
            self.truncations[bidder] = bool(0.06 < fate < 0.15)
        self._accumulate_rewards()
        after = self.agents[self.agents.index(agent) + 1 :] + self.agents
        self.agent_selection = next((bidder for bidder in after if not self.is_gone(bidder)), agent)
        self._deads_step_first()

    def is_gone(self, agent):
        return self.terminations[agent] or self.truncations[agent]


def replay_parallel(env, seeds, actions):
    """What each agent is told by PettingZoo's loop: (agent, observation, reward, "waits", "ended" or "cut")."""
    actions = iter(actions)
    told = []
    for seed in seeds:
        observations, _ = env.reset(seed=seed)
        last = dict(observations)
        told.append([(agent, observations[agent], 0.0, "waits") for agent in env.agents])
        while env.agents:
            acting = list(env.agents)
            its_actions = next(actions, None)
            if its_actions is None:
                return told
            observations, rewards, terminations, truncations, _ = env.step(its_actions)
            this = []
            for agent in acting:
                if terminations.get(agent) or truncations.get(agent):
                    how = "ended" if terminations[agent] else "cut"
                    this.append((agent, observations[agent], rewards[agent], how))
                elif agent not in env.agents:
                    this.append((agent, last[agent], 0.0, "cut"))
            this += [(agent, observations[agent], rewards.get(agent, 0.0), "waits") for agent in env.agents]
            last.update(observations)
            told.append(this)
    return told


def replay_in_turns(env, seeds, actions):
    """The same of a game that is played in turns."""
    actions = iter(actions)
    told = []
    for seed in seeds:
        env.reset(seed=seed)
        has_acted = set()
        for agent in env.agent_iter():
            observation, reward, terminated, truncated, _ = env.last()
            if terminated or truncated:
                if agent in has_acted:
                    told.append((agent, observation, reward, "ended" if terminated else "cut"))
                env.step(None)
                continue
            told.append((agent, observation, reward, "waits"))
            action = next(actions, None)
            if action is None:
                return told
            has_acted.add(agent)
            env.step(action[agent])
    return told


def play(make, n_steps, num_areas):
    """Play with random actions; return the copies and, per copy, what its agents were told and did in each step."""
    copies = []
    env = PettingZooEnv(lambda: copies.append(make()) or copies[-1], "Game", num_areas=num_areas, seed=4)
    rng = np.random.default_rng(0)
    told, done = [[] for _ in copies], [[] for _ in copies]
    env.reset()
    for _ in range(n_steps):
        names = {number: agent for agent, number in env._ids.items()}
        this, acting = [[] for _ in copies], [{} for _ in copies]
        for behavior, spec in env.behavior_specs.items():
            decisions, terminals = env.get_steps(behavior)
            for step in map(terminals.__getitem__, terminals):
                copy, agent = names[step.agent_id]
                this[copy].append((agent, step.obs, step.reward, "cut" if step.interrupted else "ended"))
            actions = spec.action_spec.random_action(len(decisions))
            for row, step in enumerate(map(decisions.__getitem__, decisions)):
                copy, agent = names[step.agent_id]
                this[copy].append((agent, step.obs, step.reward, "waits"))
                if step.action_mask is not None:
                    actions.discrete[row] = [rng.choice(np.flatnonzero(~mask)) for mask in step.action_mask]
                both = actions.continuous[row], actions.discrete[row]
                acting[copy][agent] = both[0] if len(both[0]) else both[1][0]
            env.set_actions(behavior, actions)
        for copy in range(num_areas):
            told[copy].append(this[copy])
            done[copy].append(acting[copy])
        env.step()
    env.close()
    return copies, told, done


def flat(observation):
    parts = observation.values() if isinstance(observation, dict) else [observation]
    return [np.asarray(part, dtype=np.float32).reshape(-1) for part in parts]


def assert_same(ours, theirs, convert):
    """Compare two lists of what agents were told."""
    assert [(agent, how) for agent, _, _, how in ours] == [(agent, how) for agent, _, _, how in theirs]
    for (_, obs, reward, _), (_, observation, raw_reward, _) in zip(ours, theirs):
        assert reward == np.float32(raw_reward)
        for column, expected in zip(obs, convert(observation)):
            np.testing.assert_array_equal(column, expected)


def in_one_order(told):
    return sorted(told, key=lambda entry: (entry[3] == "waits", entry[0]))


def test_agents_that_act_together_die_join_and_vanish():
    copies, told, done = play(Herd, 300, num_areas=3)
    hows = [entry[3] for copy in told for step in copy for entry in step]
    assert min(hows.count(how) for how in ("waits", "ended", "cut")) > 80
    assert any(agent == "sheep_15" for copy in told for step in copy for agent, *_ in step)
    for copy, its_told, its_done in zip(copies, told, done):
        # the twin tells of a new beginning after an end; ours tells of both in the same step
        theirs = []
        for step in replay_parallel(Herd(), copy.seeds, its_done):
            if theirs and all(how != "waits" for *_, how in theirs[-1]):
                theirs[-1] = theirs[-1] + step
            else:
                theirs.append(step)
        assert len(copy.seeds) > 10
        for ours, twin in zip(its_told, theirs, strict=False):
            assert_same(in_one_order(ours), in_one_order(twin), flat)
        assert len(theirs) >= len(its_told)


def bids_and_last(observation):
    return [observation["bids"], np.eye(4, dtype=np.float32)[observation["last"]]]


def board(observation):
    return [np.asarray(observation["observation"], dtype=np.float32).reshape(-1)]


class Recorded(connect_four_v3.raw_env):
    """It remembers its seeds."""

    def __init__(self):
        super().__init__()
        self.seeds = []

    def reset(self, seed=None, options=None):
        self.seeds.append(seed)
        super().reset(seed, options)


@pytest.mark.parametrize(
    ("make", "convert", "n_ends"), [(Auction, bids_and_last, 40), (Recorded, board, 10)], ids=["Auction", "ConnectFour"]
)
def test_agents_that_act_in_turns(make, convert, n_ends):
    copies, told, done = play(make, 200, num_areas=2)
    for copy, its_told, its_done in zip(copies, told, done):
        ours = [entry for step in its_told for entry in step]
        theirs = replay_in_turns(make(), copy.seeds, its_done)
        assert sum(how != "waits" for *_, how in ours) > n_ends
        assert len(theirs) >= len(ours)
        assert_same(ours, theirs[: len(ours)], convert)


class Scribble(ParallelEnv):
    """It writes all that its agents see into one array: a hundred per episode and one per step. They end after two."""

    metadata = {"name": "scribble"}
    possible_agents = ["pen_0", "pen_1"]

    def __init__(self):
        self.paper = np.zeros(1, np.float32)
        self.n_episodes = 0

    def observation_space(self, agent):
        return spaces.Box(0, 1000, (1,))

    def action_space(self, agent):
        return spaces.Discrete(2)

    def reset(self, seed=None, options=None):
        self.n_episodes += 1
        self.paper[0] = 100 * self.n_episodes
        self.agents = list(self.possible_agents)
        return dict.fromkeys(self.agents, self.paper), {agent: {} for agent in self.agents}

    def step(self, actions):
        self.paper += 1
        there = self.agents
        self.agents = [] if self.paper[0] % 100 == 2 else there
        ends = dict.fromkeys(there, not self.agents)
        return dict.fromkeys(there, self.paper), dict.fromkeys(there, 1.0), ends, ends, {agent: {} for agent in there}


class Dictation(Auction):
    """The same in turns; after five bids nobody is there any more, and nothing is said of it."""

    def __init__(self):
        super().__init__()
        self.paper = np.zeros(1, np.float32)

    def observe(self, agent):
        self.paper[0] = 100 * len(self.seeds) + self.bids
        return {"bids": self.paper, "last": self.last_bid}

    def step(self, action):
        self.bids, self.last_bid = self.bids + 1, int(action)
        self._cumulative_rewards[self.agent_selection] = 0.0
        self.rewards = dict.fromkeys(self.agents, 0.5)
        self._accumulate_rewards()
        self.agent_selection = self.agents[self.bids % 3]
        if self.bids == 5:
            self.agents = []


def test_last_observations_are_those_of_the_episode_that_ended():
    env = PettingZooEnv(Scribble, "Scribble")
    env.reset()
    env.step()
    env.step()
    decisions, terminals = env.get_steps("pen?team=0")
    assert terminals.obs[0].ravel().tolist() == [102, 102]
    assert decisions.obs[0].ravel().tolist() == [200, 200]


def test_who_vanishes_from_a_game_in_turns_is_cut_with_what_it_saw_last():
    env = PettingZooEnv(Dictation, "Dictation")
    env.reset()
    for _ in range(5):
        env.step()
    decisions, terminals = env.get_steps("bidder?team=0")
    assert terminals.interrupted.tolist() == [True] * 3
    # the bidders decided last at their bids 4, 5 and 3, and earned 0.5 for each bid since
    assert {agent: (float(terminals[agent].obs[0][0]), float(terminals[agent].reward)) for agent in terminals} == {
        0: (103, 1.0),
        1: (104, 0.5),
        2: (102, 1.5),
    }
    assert decisions.obs[0].tolist() == [[200]]


def test_agents_of_a_kind_are_one_behavior():
    env = PettingZooEnv(Herd, "Herd")
    assert {name: spec.observation_specs[0].shape for name, spec in env.behavior_specs.items()} == {
        "sheep?team=0": (2,),
        "dog?team=0": (3,),
    }


class Mixed(Herd):
    """Two agents of one stem that see different things."""

    possible_agents = ["eye_1", "eye_2"]

    def observation_space(self, agent):
        return spaces.Box(0, 1, (int(agent[-1]),))


def test_agents_of_one_stem_with_other_spaces_are_behaviors_of_their_own():
    assert list(PettingZooEnv(Mixed, "Mixed").behavior_specs) == ["eye_1?team=0", "eye_2?team=0"]


class Unknown(Herd):
    """It does not say beforehand who may come."""

    def __init__(self):
        super().__init__()
        self.coming, self.possible_agents = self.possible_agents, []

    def reset(self, seed=None, options=None):
        self.possible_agents = self.coming
        return super().reset(seed, options)


def test_behaviors_may_appear_with_the_first_episode():
    env = PettingZooEnv(Unknown, "Unknown")
    assert list(env.behavior_specs) == []
    env.reset()
    assert list(env.behavior_specs) == ["sheep?team=0", "dog?team=0"]
    assert [len(env.get_steps(name)[0]) for name in env.behavior_specs] == [3, 1]


def rewards(env):
    env.reset()
    total = []
    for _ in range(50):
        for name in env.behavior_specs:
            decisions, terminals = env.get_steps(name)
            total += [*decisions.reward, *terminals.reward]
            if decisions.action_mask is not None:
                env.set_actions(name, ActionTuple(discrete=np.argmin(decisions.action_mask[0], axis=1)[:, None]))
        env.step()
    return total


def test_equal_seeds_give_equal_episodes_also_when_seeded_again():
    make = lambda seed: PettingZooEnv(Herd, "Herd", num_areas=2, seed=seed)  # noqa: E731
    env = make(1)
    first = rewards(env)
    assert rewards(make(1)) == first
    assert rewards(make(2)) != first
    assert rewards(env) != first
    env.seed(1)
    assert rewards(env) == first


def test_a_game_that_is_over_at_once_is_named():
    class Over(Herd):
        possible_agents = []

    with pytest.raises(UnityEnvironmentException, match="Over: its episode was over before any agent could act"):
        PettingZooEnv(Over, "Over").reset()


def test_what_is_no_environment_of_pettingzoos_is_named():
    with pytest.raises(UnityEnvironmentException, match=r"Env: it made .*CartPoleEnv, which is neither a ParallelEnv"):
        PettingZooEnv(lambda: gymnasium.make("CartPole-v1").unwrapped, "Env")


def test_a_space_that_cannot_be_is_named_with_its_kind():
    class Talk(Herd):
        def action_space(self, agent):
            return spaces.Text(3)

    with pytest.raises(UnsupportedSpaceException, match="Talk, sheep: no policy acts in the space Text"):
        PettingZooEnv(Talk, "Talk")


def test_closing_closes_every_copy():
    closed = []

    class Closing(Herd):
        def close(self):
            closed.append(self)

    env = PettingZooEnv(Closing, "Closing", num_areas=2)
    env.close()
    env.close()
    assert len(closed) == 2
