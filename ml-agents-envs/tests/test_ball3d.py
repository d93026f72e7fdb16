"""3DBall against mechanics, against a naive twin of its turns, and against a controller that can balance."""

import copy

import numpy as np
import pytest

from mlagents_envs.base_env import ActionTuple
from mlagents_envs.exception import UnityEnvironmentException
from mlagents_envs.side_channel.environment_parameters_channel import EnvironmentParametersChannel

mujoco = pytest.importorskip("mujoco", reason="3DBall needs MuJoCo")
Ball3DEnv = pytest.importorskip("mlagents_envs.builtin.ball3d").Ball3DEnv

NAME = "3DBall?team=0"
GRAVITY = 9.81
DT = 0.02  # of a physics step; a decision is five of them


def decide(env, actions=None):
    """Act, by default not at all, and return the steps."""
    if actions is not None:
        env.set_actions(NAME, ActionTuple(np.broadcast_to(np.asarray(actions, dtype=np.float32), (env.n_agents, 2))))
    env.step()
    return env.get_steps(NAME)


def make(n_agents=1, **kwargs):
    env = Ball3DEnv(n_agents=n_agents, **kwargs)
    env.reset()
    return env


def setting(**parameters):
    """Return side channels that carry environment parameters."""
    channel = EnvironmentParametersChannel()
    for key, value in parameters.items():
        channel.set_float_parameter(key, value)
    return [channel]


def place(env, ball, cube=(1, 0, 0, 0), velocity=(0, 0, 0), spin=(0, 0, 0)):
    """Put the first agent's ball at a place relative to its cube, and turn the cube."""
    env.data.mocap_quat[0] = cube
    env.data.qpos[:3] = env.data.mocap_pos[0] + ball
    env.data.qpos[3:7] = 1, 0, 0, 0
    env.data.qvel[:3], env.data.qvel[3:6] = velocity, spin


def balance(obs):
    """Tilt towards what rolls a ball back to the middle: a controller written by hand."""
    tilt_z, tilt_x, x, _, z, velocity_x, _, velocity_z = obs.T
    wanted_z, wanted_x = 0.06 * (x + velocity_x), -0.06 * (z + velocity_z)
    return np.clip(10 * np.stack([wanted_z - tilt_z, wanted_x - tilt_x], axis=1), -1, 1).astype(np.float32)


def balanced(env):
    """Return the controller's actions for what the agents see now."""
    return balance(env.get_steps(NAME)[0].obs[0])


# What it offers


def test_spec():
    env = Ball3DEnv()
    (spec,) = env.behavior_specs.values()
    assert list(env.behavior_specs) == [NAME]
    assert [(o.name, o.shape) for o in spec.observation_specs] == [("VectorSensor_size8", (8,))]
    assert (spec.action_spec.continuous_size, spec.action_spec.discrete_branches) == (2, ())


@pytest.mark.parametrize(("kwargs", "n_agents"), [({}, 12), ({"num_areas": 3}, 36), ({"n_agents": 5}, 5)])
def test_number_of_agents(kwargs, n_agents):
    env = Ball3DEnv(**kwargs)
    env.reset()
    assert env.get_steps(NAME)[0].obs[0].shape == (n_agents, 8)


# Start and observation


def test_start():
    env = make(n_agents=2000, seed=1)
    w, i, j, k = env.data.mocap_quat.T
    about_x, about_z = np.degrees(2 * np.arctan2(i, w)), np.degrees(2 * np.arctan2(k, w))
    np.testing.assert_allclose(j * w, -i * k, atol=1e-12)  # turned about x, then about its own z
    ball = env.data.qpos.reshape(-1, 7)[:, :3] - env.data.mocap_pos
    np.testing.assert_allclose(ball[:, 1], 4.0)
    for values, bound in ((about_x, 10.0), (about_z, 10.0), (ball[:, 0], 1.5), (ball[:, 2], 1.5)):
        assert -bound <= values.min() < -0.98 * bound
        assert 0.98 * bound < values.max() <= bound
        assert abs(values.mean()) < 0.06 * bound
    np.testing.assert_array_equal(env.data.qvel, 0)


def test_observation():
    env = make(n_agents=24, seed=2)
    for _ in range(8):
        decisions, _ = decide(env, balanced(env))
    observed, ball = decisions.obs[0], env.data.qpos.reshape(-1, 7)[:, :3]
    np.testing.assert_allclose(observed[:, 0], env.data.mocap_quat[:, 3], rtol=1e-6)
    np.testing.assert_allclose(observed[:, 1], env.data.mocap_quat[:, 1], rtol=1e-6)
    np.testing.assert_allclose(observed[:, 2:5], ball - env.data.mocap_pos, rtol=1e-6)
    np.testing.assert_allclose(observed[:, 5:8], env.data.qvel.reshape(-1, 6)[:, :3], rtol=1e-6)
    assert len(np.unique(env.data.mocap_pos, axis=0)) == 24


# Mechanics


def test_free_fall():
    env = make()
    place(env, ball=(0, 50, 0), velocity=(0.1, 0, -0.2))
    for decision in range(1, 11):
        observed = decide(env)[0].obs[0][0]
        t = decision * 0.1
        # 0.5 g t^2, and what an integrator that updates the velocity first adds to it: 0.5 g t dt.
        fallen = 0.5 * GRAVITY * t * (t + DT)
        np.testing.assert_allclose(observed[2:5], [0.1 * t, 50 - fallen, -0.2 * t], rtol=1e-5)
        np.testing.assert_allclose(observed[5:8], [0.1, -GRAVITY * t, -0.2], rtol=1e-5)


@pytest.mark.parametrize(("scale", "height"), [(1.0, 3.0), (1.6, 3.3)])
def test_a_ball_rests_on_a_level_cube(scale, height):
    env = make(side_channels=setting(scale=scale))
    place(env, ball=(0.7, height, -0.3))
    for _ in range(100):
        observed = decide(env)[0].obs[0][0]
    np.testing.assert_allclose(observed[2:5], [0.7, height, -0.3], atol=0.01)
    np.testing.assert_allclose(observed[5:8], 0, atol=1e-4)


@pytest.mark.parametrize("degrees", [-12, -3, 3, 12])
@pytest.mark.parametrize("axis", ["x", "z"])
def test_a_ball_rolls_down_a_tilted_cube(axis, degrees):
    """A solid sphere that rolls without slipping accelerates by 5/7 g sin(tilt) along the slope."""
    angle = np.radians(degrees)
    half_cos, half_sin = np.cos(angle / 2), np.sin(angle / 2)
    env = make()
    if axis == "z":  # raises the side of positive x
        cube, normal = (half_cos, 0, 0, half_sin), np.array([-np.sin(angle), np.cos(angle), 0])
        downhill = np.array([-np.cos(angle), -np.sin(angle), 0])
    else:  # lowers the side of positive z
        cube, normal = (half_cos, half_sin, 0, 0), np.array([0, np.cos(angle), np.sin(angle)])
        downhill = np.array([0, -np.sin(angle), np.cos(angle)])
    place(env, ball=2.99 * normal, cube=cube)
    early = decide(env)[0].obs[0][0, 5:8] @ downhill
    for _ in range(4):
        late = decide(env)[0].obs[0][0, 5:8] @ downhill
    assert (late - early) / 0.4 == pytest.approx(5 / 7 * GRAVITY * np.sin(angle), rel=0.03)


@pytest.mark.parametrize("parameters", [{}, {"mass": 3.0, "scale": 2.0}])
def test_angular_drag(parameters):
    env = make(side_channels=setting(**parameters))
    place(env, ball=(0, 80, 0), spin=(3, -5, 7))
    for _ in range(20):
        decide(env)
    np.testing.assert_allclose(env.data.qvel[3:6], np.array([3, -5, 7]) * 0.9998**100, rtol=1e-9)


def test_balls_do_not_meet_other_areas():
    env = make(n_agents=13)
    env.data.mocap_quat[:] = 1, 0, 0, 0
    env.data.qpos.reshape(-1, 7)[:, :3] = env.data.mocap_pos + [0, 2.9, 0]
    mujoco.mj_forward(env.model, env.data)
    assert env.data.ncon == 13


# Turns


def test_an_action_turns_by_two_degrees_in_each_physics_step():
    env = make()
    place(env, ball=(0, 50, 0))
    assert decide(env, [0.5, 0])[0].obs[0][0, 0] == pytest.approx(np.sin(np.radians(5 / 2)))
    place(env, ball=(0, 50, 0))
    assert decide(env, [0, -0.25])[0].obs[0][0, 1] == pytest.approx(np.sin(np.radians(-2.5 / 2)))


def test_actions_are_clipped():
    env = make(n_agents=2)
    env.data.mocap_quat[:] = 1, 0, 0, 0
    decide(env, [[1, -1], [7, -3]])
    np.testing.assert_array_equal(env.data.mocap_quat[0], env.data.mocap_quat[1])


@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize("axis", [0, 1])
def test_a_turn_stops_beyond_the_limit(axis, sign):
    """Half-angles grow by one degree a step; 14 degrees are still within 0.25, 15 are not."""
    env = make()
    place(env, ball=(0, 200, 0))
    action = np.zeros(2)
    action[axis] = sign
    seen = [decide(env, action)[0].obs[0][0, axis] for _ in range(5)]
    np.testing.assert_allclose(seen, sign * np.sin(np.radians([5, 10, 15, 15, 15])), rtol=1e-6)
    assert decide(env, -action)[0].obs[0][0, axis] == pytest.approx(sign * np.sin(np.radians(10)))


def quaternion_product(p, q):
    """Hamilton's, (w, x, y, z)."""
    a, b, c, d = p
    return np.array([[a, -b, -c, -d], [b, a, -d, c], [c, d, a, -b], [d, -c, b, a]]) @ q


def turned_step_by_step(rotation, action):
    """One cube's orientation after a decision, by the rule as it is told."""
    for _ in range(5):
        for component, value in ((3, action[0]), (1, action[1])):
            angle = np.radians(2 * float(np.clip(value, -1, 1)))
            if (angle > 0 and rotation[component] < 0.25) or (angle < 0 and rotation[component] > -0.25):
                turn = np.zeros(4)
                turn[0], turn[component] = np.cos(angle / 2), np.sin(angle / 2)
                rotation = quaternion_product(rotation, turn)
    return rotation


@pytest.mark.parametrize("spread", [0.2, 2.0], ids=["away from the limits", "at the limits"])
def test_turns_equal_their_naive_twin(spread):
    env = make(n_agents=24, seed=3)
    rng = np.random.default_rng(4)
    compared = at_limit = 0
    for _ in range(40):
        before = env.data.mocap_quat.copy()
        actions = rng.normal(0, spread, (24, 2)).astype(np.float32)
        _, terminals = decide(env, actions)
        for agent in set(range(24)) - set(terminals):
            expected = turned_step_by_step(before[agent], actions[agent])
            np.testing.assert_allclose(env.data.mocap_quat[agent], expected, rtol=0, atol=1e-12)
            compared += 1
            at_limit += np.abs(expected[[1, 3]]).max() >= 0.25
    assert compared > 500
    assert (at_limit > 50) == (spread > 1)


# Episodes


def ends_after_a_free_fall_from(ball):
    """Let the ball fall for a decision, as if the cube were air; check the steps and return whether that ended it."""
    env = make()
    env.model.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_CONTACT
    place(env, ball)
    decisions, terminals = decide(env)
    if not terminals:
        assert decisions.reward[0] == pytest.approx(0.1)
        return False
    assert (terminals.reward[0], terminals.interrupted[0]) == (-1.0, False)
    np.testing.assert_allclose(terminals.obs[0][0, 2:5], np.subtract(ball, (0, 15 * GRAVITY * DT**2, 0)), rtol=1e-6)
    assert (decisions.reward[0], decisions.obs[0][0, 3]) == (0.0, 4.0)
    return True


@pytest.mark.parametrize("sign", [-1, 1])
@pytest.mark.parametrize("axis", [0, 2], ids="xz")
@pytest.mark.parametrize(("offset", "falls"), [(2.99, False), (3.01, True)])
def test_an_episode_ends_with_the_ball_beside_the_cube(axis, sign, offset, falls):
    ball = np.array([0.0, 9.0, 0.0])
    ball[axis] = sign * offset
    assert ends_after_a_free_fall_from(ball) == falls


@pytest.mark.parametrize(("height", "falls"), [(-1.93, False), (-1.95, True)])
def test_an_episode_ends_with_the_ball_below_the_cube(height, falls):
    """Within a decision a free ball falls by 15 g dt^2 = 0.059: from -1.93 to -1.989, from -1.95 to -2.009."""
    assert ends_after_a_free_fall_from((0, height, 0)) == falls


def test_a_good_controller_earns_100_in_1000_decisions():
    env = make(n_agents=12, seed=7)
    earned, perfect = np.zeros(12), 0
    for decision in range(1, 1001):
        decisions, terminals = decide(env, balanced(env))
        earned += decisions.reward
        for agent, step in terminals.items():
            earned[agent] += step.reward
            if step.interrupted:
                assert decision == 1000
                assert earned[agent] == pytest.approx(100.0)
                perfect += 1
            earned[agent] = 0.0
    assert perfect >= 10


def test_doing_nothing_loses_the_ball():
    env = make(n_agents=12, seed=8)
    lost = set()
    for _ in range(100):
        _, terminals = decide(env)
        assert all(reward == -1.0 for reward in terminals.reward)
        lost |= set(terminals)
    assert lost == set(range(12))


def trajectory(n_agents, seed, n_decisions=60):
    """Observations (T, N, 8) under rather noisy control, the same for agents of the same number."""
    env = make(n_agents=n_agents, seed=seed)
    rng = np.random.default_rng(0)
    observed = []
    for _ in range(n_decisions):
        noise = rng.normal(0, 0.3, (24, 2))[:n_agents]
        observed.append(decide(env, balanced(env) + noise)[0].obs[0])
    return np.array(observed)


def test_the_seed_decides_the_trajectory():
    first, again, other = (trajectory(12, seed) for seed in (5, 5, 6))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first[0] - other[0]).max() > 0.1


def test_agents_do_not_depend_on_how_many_there_are():
    np.testing.assert_allclose(trajectory(12, seed=5), trajectory(24, seed=5)[:, :12], atol=1e-4)


# Environment parameters


def test_parameters_are_drawn_for_each_episode_as_it_begins():
    channel = EnvironmentParametersChannel()
    env = make(n_agents=12, side_channels=[channel])
    balls = slice(2, None, 2)
    np.testing.assert_array_equal(env.model.body_mass[balls], 1.0)
    channel.set_uniform_sampler_parameters("mass", 2.0, 4.0, seed=1)
    place(env, ball=(5, 0, 0))
    _, terminals = decide(env)
    assert list(terminals) == [0]
    assert 2.0 <= env.model.body_mass[balls][0] < 4.0
    np.testing.assert_array_equal(env.model.body_mass[balls][1:], 1.0)
    env.reset()
    masses = env.model.body_mass[balls]
    assert len(np.unique(masses)) == 12
    assert 2.0 <= masses.min() <= masses.max() < 4.0


def test_what_mujoco_derives_from_mass_and_size_is_kept_up():
    channel = EnvironmentParametersChannel()
    channel.set_uniform_sampler_parameters("mass", 0.5, 4.0, seed=1)
    channel.set_uniform_sampler_parameters("scale", 0.5, 2.0, seed=2)
    env = make(n_agents=7, side_channels=[channel])
    derived = copy.deepcopy(env.model)
    mujoco.mj_setConst(derived, mujoco.MjData(derived))
    for name in ("body_subtreemass", "body_invweight0", "dof_M0", "dof_invweight0"):
        np.testing.assert_allclose(getattr(env.model, name), getattr(derived, name), rtol=1e-9, err_msg=name)
    assert env.model.stat.meaninertia == pytest.approx(derived.stat.meaninertia)
    radius = env.model.geom_size[1::2, 0]
    np.testing.assert_allclose(env.model.geom_rbound[1::2], radius)
    inertia = 2 / 5 * env.model.body_mass[2::2] * radius**2
    np.testing.assert_allclose(env.model.body_inertia[2::2], np.tile(inertia[:, None], 3))
    assert len(np.unique(radius)) == 7


@pytest.mark.parametrize(("key", "value"), [("mass", 0.0), ("mass", -1.0), ("scale", float("nan"))])
def test_parameters_that_no_ball_can_have_are_refused(key, value):
    env = Ball3DEnv(side_channels=setting(**{key: value}))
    with pytest.raises(
        UnityEnvironmentException, match=f"'{key}' of 3DBall must be a positive number but was {value:g}"
    ):
        env.reset()


def test_unstable_physics_are_an_error(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # MuJoCo writes a log where it is run
    env = make()
    env.data.qvel[0] = np.nan
    with pytest.raises(UnityEnvironmentException, match=r"unstable.*BADQVEL"):
        env.step()
