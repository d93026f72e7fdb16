"""An environment of one agent through Gymnasium's interface."""

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env

from mlagents_envs.base_env import ActionSpec, BehaviorSpec, image_observation, vector_observation
from mlagents_envs.envs.unity_gym_env import ActionFlattener, UnityGymException, UnityToGymWrapper
from mlagents_envs.registry import default_registry
from mlagents_envs.vector_env import VectorEnv


class Studio(VectorEnv):
    """Agents with a camera and two sensors, whose picture and reward say what they did last.

    Every third step of an episode is its last, an end or, two episodes later, a cut. `acts` keeps all actions.
    """

    def __init__(self, n_agents=1, spec=None, seed=0):
        spec = spec or ActionSpec.create_hybrid(2, (3, 2))
        observations = [
            vector_observation(2, "near"),
            image_observation(3, 6, 7, "camera"),
            vector_observation(1, "far"),
        ]
        super().__init__("Studio", BehaviorSpec(observations, spec), n_agents, seed=seed)
        self.age = np.zeros(n_agents, dtype=int)
        self.n_episodes = 0
        self.acts = []

    def reset_agents(self, indices):
        self.age[indices] = 0
        self.n_episodes += 1
        return [part[indices] for part in self.see()]

    def step_agents(self, actions):
        self.acts.append((actions.continuous.tolist(), actions.discrete.tolist()))
        self.age += 1
        reward = actions.continuous.sum(axis=1) + actions.discrete.sum(axis=1)
        over = self.age == 3
        return self.see(), reward, over & (self.n_episodes // 2 % 2 == 0), over & (self.n_episodes // 2 % 2 == 1)

    def see(self):
        n_agents = self.n_agents
        noise = self.rng.uniform(0, 1, (n_agents, 1))
        image = np.broadcast_to((self.age / 10)[:, None, None, None], (n_agents, 3, 6, 7))
        return [np.stack([self.age, 2 * self.age], axis=1), image, noise]

    def action_masks(self):
        sizes = self._spec.action_spec.discrete_branches
        return [np.arange(size) == size - 1 + 0 * self.age[:, None] for size in sizes] if sizes else None


CONTINUOUS = ActionSpec.create_continuous(3)
BRANCHED = ActionSpec.create_discrete((3, 2))


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("options", [{}, {"uint8_visual": True}, {"allow_multiple_obs": True}], ids=str)
@pytest.mark.parametrize("spec", [CONTINUOUS, BRANCHED, ActionSpec.create_hybrid(2, (3, 2))], ids=str)
def test_gymnasiums_own_check_passes(options, spec):
    check_env(UnityToGymWrapper(Studio(spec=spec), **options))


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_gymnasiums_own_check_passes_on_a_built_in_environment():
    check_env(UnityToGymWrapper(default_registry["Basic"].make()))


def test_an_episode_ends_or_is_cut_and_must_be_reset():
    env = UnityToGymWrapper(Studio(spec=CONTINUOUS))
    seen = []
    for _ in range(2):
        env.reset()
        steps = [env.step(np.array([0.5, 0.25, -1.0], np.float32)) for _ in range(3)]
        assert [step[1] for step in steps] == [-0.25] * 3
        seen.append([step[2:4] for step in steps])
        with pytest.raises(UnityGymException, match=r"call reset\(\) before step"):
            env.step(env.action_space.sample())
    going, cut, ended = (False, False), (False, True), (True, False)
    assert sorted(seen) == sorted([[going, going, cut], [going, going, ended]])


def test_every_continuous_action_reaches_the_agent():
    unity = Studio(spec=CONTINUOUS)
    env = UnityToGymWrapper(unity)
    env.reset()
    env.step(np.array([0.5, 0.25, -1.0], np.float32))
    assert unity.acts[-1] == ([[0.5, 0.25, -1.0]], [[]])


@pytest.mark.parametrize("n_agents", [2, 5])
def test_several_agents_are_sent_to_the_vector_environment(n_agents):
    with pytest.raises(UnityGymException, match=rf"this one has {n_agents}\. .*UnityVectorEnv"):
        UnityToGymWrapper(Studio(n_agents))


def sample(env, seed):
    env.reset(seed=seed)
    return [env.action_space.sample() for _ in range(20)]


def test_the_spaces_are_seeded():
    env = UnityToGymWrapper(Studio(spec=BRANCHED), action_space_seed=3)
    first = [env.action_space.sample().tolist() for _ in range(20)]
    again = UnityToGymWrapper(Studio(spec=BRANCHED), action_space_seed=3)
    assert [again.action_space.sample().tolist() for _ in range(20)] == first
    np.testing.assert_array_equal(sample(env, 7), sample(again, 7))
    assert not np.array_equal(sample(env, 7), sample(env, 8))


def test_a_seeded_reset_repeats_the_environment():
    env = UnityToGymWrapper(Studio(), allow_multiple_obs=True)
    first, _ = env.reset(seed=5)
    second, _ = env.reset()
    third, _ = env.reset(seed=5)
    assert first[1][2] == third[1][2] != second[1][2]


def test_the_first_image_is_the_observation_unless_all_are_asked_for(caplog):
    image, _ = UnityToGymWrapper(Studio()).reset()
    assert "allow_multiple_obs=True" in caplog.text
    assert image.shape == (3, 6, 7)
    both = UnityToGymWrapper(Studio(), allow_multiple_obs=True)
    image, vector = both.reset()[0]
    assert (image.shape, vector.shape) == ((3, 6, 7), (3,))
    assert both.observation_space.contains((image, vector))


def test_images_as_bytes_and_as_a_picture():
    env = UnityToGymWrapper(Studio(spec=CONTINUOUS), uint8_visual=True)
    env.reset()
    image, *_ = env.step(np.zeros(3, np.float32))
    assert image.dtype == np.uint8
    assert set(image.ravel()) == {26}  # 0.1 * 255 = 25.5, to the even neighbour
    picture = env.render()
    assert picture.shape == (6, 7, 3)
    assert set(picture.ravel()) == {26}


def test_masks_are_what_the_action_space_samples_by():
    env = UnityToGymWrapper(Studio(spec=BRANCHED))
    _, info = env.reset()
    assert [mask.tolist() for mask in info["action_mask"]] == [[1, 1, 0], [1, 0]]
    samples = {tuple(env.action_space.sample(info["action_mask"]).tolist()) for _ in range(50)}
    assert samples == {(0, 0), (1, 0)}


def test_branches_are_flattened_to_one():
    unity = Studio(spec=BRANCHED)
    env = UnityToGymWrapper(unity, flatten_branched=True)
    assert env.action_space == spaces.Discrete(6)
    _, info = env.reset()
    assert info["action_mask"].tolist() == [1, 0, 1, 0, 0, 0]  # choices (0, 0), (0, 1), (1, 0), ...
    env.step(3)
    assert unity.acts[-1] == ([[]], [[1, 1]])
    assert ActionFlattener((3, 2)).lookup_action(5) == [2, 1]


def test_it_trains_under_gymnasiums_own_wrappers():
    env = gymnasium.wrappers.RecordEpisodeStatistics(UnityToGymWrapper(Studio(spec=CONTINUOUS)))
    env.reset()
    for _ in range(3):
        *_, info = env.step(np.array([1, 0, 0], np.float32))
    assert info["episode"]["r"] == 3
    env.close()
