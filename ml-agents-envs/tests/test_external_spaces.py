"""Gymnasium's spaces as specifications, and batches of them as columns and back."""

import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.spaces.utils import flatten
from gymnasium.vector.utils import batch_space, concatenate, create_empty_array
from hypothesis import given, settings
from hypothesis import strategies as st

from mlagents_envs.base_env import ActionSpec, ActionTuple
from mlagents_envs.exception import UnityObservationException
from mlagents_envs.external.spaces import ActionLayout, ObservationLayout, UnsupportedSpaceException


def batch_of(space, samples):
    return concatenate(space, samples, create_empty_array(space, len(samples)))


def columns_of(space, samples):
    return ObservationLayout(space, "Env").columns(batch_of(space, samples))


vectors = st.builds(
    lambda shape, low: spaces.Box(low, low + 2.5, tuple(shape), np.float32),
    st.lists(st.integers(1, 3), max_size=3),
    st.integers(-3, 3).filter(bool),
)
discretes = st.builds(lambda n, start: spaces.Discrete(n, start=start), st.integers(1, 5), st.integers(-3, 3))
multi_discretes = st.builds(spaces.MultiDiscrete, st.lists(st.integers(1, 4), min_size=1, max_size=3))
multi_binaries = st.builds(spaces.MultiBinary, st.one_of(st.integers(1, 4), st.just((2, 3))))
fundamental = st.one_of(vectors, discretes, multi_discretes, multi_binaries)
nested = st.recursive(
    fundamental,
    lambda inner: st.one_of(
        st.builds(spaces.Dict, st.dictionaries(st.sampled_from("abcd"), inner, min_size=1, max_size=3)),
        st.builds(spaces.Tuple, st.lists(inner, min_size=1, max_size=3)),
    ),
    max_leaves=5,
)


@settings(deadline=None, max_examples=150)
@given(space=nested, seed=st.integers(0, 1000), n_agents=st.integers(1, 4))
def test_observations_side_by_side_are_gymnasiums_flattened_ones(space, seed, n_agents):
    space.seed(seed)
    samples = [space.sample() for _ in range(n_agents)]
    columns = columns_of(space, samples)
    assert all(column.dtype == np.float32 and column.flags.c_contiguous for column in columns)
    for agent, sample in enumerate(samples):
        np.testing.assert_array_equal(
            np.concatenate([column[agent] for column in columns]), np.asarray(flatten(space, sample), np.float32)
        )


@settings(deadline=None, max_examples=150)
@given(space=nested, seed=st.integers(0, 1000), n_agents=st.integers(1, 4), size=st.floats(0.1, 3))
def test_actions_of_any_size_are_actions_of_the_space(space, seed, n_agents, size):
    layout = ActionLayout(space, "Env")
    rng = np.random.default_rng(seed)
    actions = ActionTuple(
        rng.normal(0, size, (n_agents, layout.spec.continuous_size)).astype(np.float32),
        rng.integers(0, layout.spec.discrete_branches or (), (n_agents, layout.spec.discrete_size), dtype=np.int32),
    )
    assert layout.batch(actions) in batch_space(space, n_agents)


def picture(height, width, channels):
    return np.random.default_rng(3).integers(0, 256, (height, width, channels), dtype=np.uint8)


@pytest.mark.parametrize(
    ("observed", "shape", "pixel"),
    [  # the observation of a 6 x 8 picture p, the shape of its column, and what its entry (c, y, x) is
        (lambda p: p, (3, 6, 8), lambda p, c, y, x: p[y, x, c]),
        (lambda p: p.transpose(2, 0, 1), (3, 6, 8), lambda p, c, y, x: p[y, x, c]),
        (lambda p: p[..., 0], (1, 6, 8), lambda p, c, y, x: p[y, x, 0]),
        (lambda p: p[..., :1], (1, 6, 8), lambda p, c, y, x: p[y, x, 0]),
        (lambda p: np.stack([p[..., 0], p[..., 1]]), (2, 6, 8), lambda p, c, y, x: p[y, x, c]),
        (lambda p: np.stack([p, p + 1]), (6, 6, 8), lambda p, c, y, x: p[y, x, c % 3] + np.uint8(c // 3)),
    ],
    ids=["HWC", "CHW", "grey", "grey with an axis", "stack of grey", "stack of colour"],
)
def test_images_are_channel_first_and_between_0_and_1(observed, shape, pixel):
    original = picture(6, 8, 3)
    observation = observed(original)
    space = spaces.Box(0, 255, observation.shape, np.uint8)
    assert ObservationLayout(space, "Env").specs[0].shape == shape
    (column,) = columns_of(space, [np.zeros_like(observation), observation])
    assert column.shape == (2, *shape)
    assert column.flags.c_contiguous
    for place in [(0, 0, 0), (shape[0] - 1, 2, 7), (shape[0] // 2, 5, 1)]:
        assert column[1][place] == pytest.approx(int(pixel(original, *place)) / 255)


def test_floats_between_0_and_1_are_an_image_as_they_are():
    values = picture(5, 9, 3) / np.float32(255)
    (column,) = columns_of(spaces.Box(0, 1, (5, 9, 3)), [values])
    np.testing.assert_array_equal(column[0], values.transpose(2, 0, 1))


@pytest.mark.parametrize(
    "space",
    [
        spaces.Box(0, 255, (128,), np.uint8),  # an Atari's memory
        spaces.Box(-1, 1, (8, 8, 3)),
        spaces.Box(0, 1, (8, 8)),
        spaces.Box(0, 1, (6, 7, 2), np.int8),  # a board
        spaces.Box(0, 255, (3, 3, 3), np.uint8),
        spaces.Box(0, 255, (9, 9, 9), np.uint8),
    ],
    ids=str,
)
def test_what_is_no_image_is_a_vector_with_its_own_values(space):
    space.seed(1)
    sample = space.sample()
    (column,) = columns_of(space, [sample])
    np.testing.assert_array_equal(column, sample.reshape(1, -1).astype(np.float32))


def test_columns_are_copies():
    batch = np.zeros((2, 3), np.float32)
    (column,) = ObservationLayout(spaces.Box(-1, 1, (3,)), "Env").columns(batch)
    batch += 7
    assert not column.any()


def test_the_mask_in_an_observation_is_none_of_the_observations():
    space = spaces.Dict(observation=spaces.Box(-1, 1, (2,)), action_mask=spaces.MultiBinary(3))
    layout = ObservationLayout(space, "Env")
    assert [spec.name for spec in layout.specs] == ["observation"]
    batch = batch_of(space, [{"observation": np.zeros(2, np.float32), "action_mask": np.array([1, 0, 1], np.int8)}])
    assert layout.has_masks
    (forbidden,) = ActionLayout(spaces.Discrete(3), "Env").forbidden(layout.masks(batch), 1)
    assert forbidden.tolist() == [[False, True, False]]


@pytest.mark.parametrize(
    "allowed",
    [
        np.array([[1, 0, 0, 1, 1], [1, 1, 1, 0, 1]]),
        (np.array([[1, 0], [1, 1]]), np.array([[0, 1, 1], [1, 0, 1]])),
    ],
    ids=["one array", "an array per branch"],
)
def test_masks_of_several_branches(allowed):
    first, second = ActionLayout(spaces.MultiDiscrete([2, 3]), "Env").forbidden(allowed, 2)
    assert first.tolist() == [[False, True], [False, False]]
    assert second.tolist() == [[True, False, False], [False, True, False]]


def test_masks_of_some_agents_only_forbid_nothing_to_the_others():
    rows = np.empty(3, dtype=object)
    rows[0], rows[2] = [1, 0, 0, 1, 1], (np.array([0, 1]), np.array([1, 1, 0]))
    first, second = ActionLayout(spaces.MultiDiscrete([2, 3]), "Env").forbidden(rows, 3)
    assert first.tolist() == [[False, True], [False, False], [True, False]]
    assert second.tolist() == [[True, False, False], [False] * 3, [False, False, True]]


def test_a_mask_of_another_size_is_refused():
    with pytest.raises(UnsupportedSpaceException, match=r"Env: action_mask .* each of the 4 choices .* \(3,\)"):
        ActionLayout(spaces.Discrete(4), "Env").forbidden(np.ones((1, 3)), 1)


def test_a_box_is_stretched_to_its_bounds_and_clipped():
    space = spaces.Box(np.array([0, -2, -np.inf], np.float32), np.array([10, 2, np.inf], np.float32))
    actions = ActionTuple(continuous=np.array([[-1, -1, -1], [0, 0.5, 3], [1, 2, 0.25]], np.float32))
    np.testing.assert_array_equal(
        ActionLayout(space, "Env").batch(actions), np.array([[0, -2, -1], [5, 1, 3], [10, 2, 0.25]], np.float32)
    )


def test_a_box_of_whole_numbers_gets_the_nearest_ones():
    actions = ActionTuple(continuous=np.array([[-1], [0.1], [0.3], [1]], np.float32))
    stretched = ActionLayout(spaces.Box(0, 4, (1,), np.int64), "Env").batch(actions)
    assert stretched.tolist() == [[0], [2], [3], [4]]


@pytest.mark.parametrize(("dtype", "low", "high"), [(np.uint8, 0, 255), (np.int8, -128, 127), (np.float32, -0.1, 0.3)])
def test_actions_beyond_the_bounds_are_clipped_whatever_the_type(dtype, low, high):
    space = spaces.Box(low, high, (1,), dtype)
    batch = ActionLayout(space, "Env").batch(ActionTuple(continuous=np.array([[-3], [3]], np.float32)))
    assert batch.ravel().tolist() == [space.low[0], space.high[0]]


def test_bytes_that_are_no_more_than_one_are_a_picture_as_they_are():
    (column,) = columns_of(spaces.Box(0, 1, (8, 8, 3), np.uint8), [np.ones((8, 8, 3), np.uint8)])
    assert column.max() == 1


def test_hybrid_actions_come_in_the_order_of_the_space():
    space = spaces.Dict(
        aim=spaces.Box(0, 2, (2,)),
        gear=spaces.Discrete(3, start=-1),
        keys=spaces.MultiBinary(2),
        push=spaces.Box(-1, 1),
    )
    layout = ActionLayout(space, "Env")
    assert layout.spec == ActionSpec(3, (3, 2, 2))
    batch = layout.batch(ActionTuple(np.array([[-1, 1, 0.5]], np.float32), np.array([[2, 0, 1]], np.int32)))
    assert batch["aim"].tolist() == [[0, 2]]
    assert batch["gear"].tolist() == [1]
    assert batch["keys"].tolist() == [[0, 1]]
    assert batch["push"].tolist() == [[0.5]]


@pytest.mark.parametrize(
    ("space", "name"),
    [
        (spaces.Graph(spaces.Box(-1, 1, (2,)), None), "Graph"),
        (spaces.Dict(all=spaces.Sequence(spaces.Discrete(2))), "observation all is of the space Sequence"),
        (spaces.OneOf([spaces.Discrete(2), spaces.Box(0, 1)]), "OneOf"),
        (spaces.Text(5), "Text"),
        (spaces.Dict(action_mask=spaces.MultiBinary(3)), "action_mask"),
    ],
    ids=str,
)
def test_observation_spaces_that_no_network_reads_are_named(space, name):
    with pytest.raises(UnsupportedSpaceException, match=rf"Game: .*{name}"):
        ObservationLayout(space, "Game")


@pytest.mark.parametrize(
    ("space", "name"),
    [
        (spaces.Dict(talk=spaces.Text(5), move=spaces.Discrete(2)), r"Text\(.* of talk"),
        (spaces.Tuple([]), "nothing to choose"),
    ],
    ids=str,
)
def test_action_spaces_that_no_policy_acts_in_are_named(space, name):
    with pytest.raises(UnsupportedSpaceException, match=rf"Game: .*{name}"):
        ActionLayout(space, "Game")


def test_text_beside_numbers_is_left_out_with_a_word(caplog):
    space = spaces.Dict(mission=spaces.Text(5), view=spaces.Box(-1, 1, (2,)))
    assert [spec.name for spec in ObservationLayout(space, "Game").specs] == ["view"]
    assert "Game: the observation mission is text" in caplog.text


@pytest.mark.parametrize(
    ("space", "batch"),
    [(spaces.Box(-1, 1, (3,)), np.zeros((2, 4))), (spaces.Discrete(3), np.array([1, 3]))],
    ids=["another shape", "another choice"],
)
def test_observations_that_are_not_of_their_space_are_named(space, batch):
    with pytest.raises(UnityObservationException, match="Game: the observation observation is not one of"):
        ObservationLayout(space, "Game").columns(batch)
