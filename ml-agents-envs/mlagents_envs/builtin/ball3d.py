"""3DBall on MuJoCo: tilt a cube to keep a ball on it. The scene has the numbers of Unity's 3DBall.

All areas are one MuJoCo model, and one decision of all agents is five `mj_step` and a few array operations.

Axes are Unity's: x and z across, y up. Unity's world is left-handed and MuJoCo's is right-handed, which mirrors the
scene and changes no number in it, so that a policy trained in either balances in the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import mujoco
import numpy as np
from numpy.typing import NDArray

from mlagents_envs.base_env import ActionSpec, ActionTuple, BehaviorSpec, vector_observation
from mlagents_envs.exception import UnityEnvironmentException
from mlagents_envs.side_channel.side_channel import SideChannel
from mlagents_envs.vector_env import VectorEnv

AGENTS_PER_AREA = 12
TIMESTEP_S = 0.02
PHYSICS_STEPS_PER_DECISION = 5
MAX_PHYSICS_STEPS = 5000

DEGREES_PER_ACTION = 2.0
"""How far an action of 1 turns the cube in one physics step."""
TILT_LIMIT = 0.25
"""The component of the cube's quaternion beyond which it turns no further, about 29 degrees."""
ANGULAR_DRAG_PER_S = 0.01

REWARD_PER_DECISION = 0.1
REWARD_FOR_FALLING = -1.0
MIN_OFFSET, MAX_OFFSET = np.array([-3.0, -2.0, -3.0]), np.array([3.0, np.inf, 3.0])
"""Where the ball must be for the episode to go on, relative to the cube's centre (x, y, z)."""

START_TILT_DEGREES = 10.0
START_OFFSET = 1.5
START_HEIGHT = 4.0
BALL_RADIUS = 0.5
BALL_MASS = 1.0

AREA_SPACING = 12.0


class Ball3DEnv(VectorEnv):
    """Agents that each keep a ball on a cube by tilting the cube.

    Observation (8): the cube's rotation, as the z and the x of its quaternion; the ball's position relative to the
    cube's (x, y, z); the ball's velocity. Action (2), clipped to [-1, 1]: in each of the decision's 5 physics steps the
    cube turns by 2 degrees times the first about its own z axis, then by 2 degrees times the second about its own x
    axis, each only while it is tilted less than about 29 degrees that way. Reward: 0.1 per decision; -1, and the end,
    once the ball has left the cube. An episode is cut after 1000 decisions, so 100 is perfect.

    Environment parameters, drawn for each episode: `mass` of the ball (default 1) and `scale` of its size (default 1).

    `model` and `data` are MuJoCo's, for viewers and experiments.

    :param seed: of the random starts.
    :param num_areas: number of areas, of 12 agents each.
    :param side_channels: the trainer's ends of the side channels.
    :param n_agents: the number of agents, where it is not to be 12 per area.
    """

    def __init__(
        self,
        seed: int = 0,
        num_areas: int = 1,
        side_channels: Sequence[SideChannel] | None = None,
        *,
        n_agents: int | None = None,
    ):
        spec = BehaviorSpec([vector_observation(8, "VectorSensor_size8")], ActionSpec.create_continuous(2))
        if n_agents is None:
            n_agents = AGENTS_PER_AREA * num_areas
        super().__init__("3DBall", spec, n_agents, seed=seed, side_channels=side_channels)
        self.model = mujoco.MjModel.from_xml_string(_scene(self.n_agents))
        self.data = mujoco.MjData(self.model)
        # Views into MuJoCo's own memory, one row per agent.
        self._cube_position = self.data.mocap_pos
        self._cube_rotation = self.data.mocap_quat
        ball_pose = self.data.qpos.reshape(self.n_agents, 7)
        self._ball_position, self._ball_rotation = ball_pose[:, :3], ball_pose[:, 3:]
        self._ball_velocity = self.data.qvel.reshape(self.n_agents, 6)  # linear, then angular
        self._ball_mass, self._ball_scale = np.zeros((2, self.n_agents))  # not any ball's: the first reset sets them
        self._physics_steps = np.zeros(self.n_agents, dtype=np.int64)
        self._warnings = self.data.warning.number

    def reset_agents(self, indices: NDArray[np.intp]) -> list[NDArray[np.float64]]:
        """Tilt the cubes a little and drop the balls on them.

        :raises UnityEnvironmentException: the parameter `mass` or `scale` is not a positive number.
        """
        self._set_balls(indices)
        draws = self.rng.uniform(-1.0, 1.0, (len(indices), 4))  # a row per agent
        turn_z, turn_x = _turns(np.deg2rad(START_TILT_DEGREES) * draws[:, :2])
        self._cube_rotation[indices] = (_LEVEL @ turn_x @ turn_z)[:, 0]
        start = np.full((len(indices), 3), START_HEIGHT)
        start[:, ::2] = START_OFFSET * draws[:, 2:]
        self._ball_position[indices] = self._cube_position[indices] + start
        self._ball_rotation[indices] = _LEVEL
        self._ball_velocity[indices] = 0.0
        self._physics_steps[indices] = 0
        return [self._observation()[indices]]

    def step_agents(
        self, actions: ActionTuple
    ) -> tuple[list[NDArray[np.float64]], NDArray[np.float64], NDArray[np.bool_], NDArray[np.bool_]]:
        """Turn the cubes and simulate, five times.

        :raises UnityEnvironmentException: the physics became unstable.
        """
        angles = np.deg2rad(DEGREES_PER_ACTION) * np.clip(actions.continuous, -1.0, 1.0).astype(np.float64)
        for orientation in _orientations(self._cube_rotation, angles):
            self._cube_rotation[:] = orientation
            mujoco.mj_step(self.model, self.data)
        self._check_physics()
        self._physics_steps += PHYSICS_STEPS_PER_DECISION
        observation = self._observation()
        offset = observation[:, 2:5]
        fallen = np.logical_or.reduce((offset < MIN_OFFSET) | (offset > MAX_OFFSET), axis=1)
        reward = np.where(fallen, REWARD_FOR_FALLING, REWARD_PER_DECISION)
        return [observation], reward, fallen, self._physics_steps >= MAX_PHYSICS_STEPS

    def _observation(self) -> NDArray[np.float64]:
        """Return what every agent sees: (N, 8)."""
        observation = np.empty((self.n_agents, 8))
        observation[:, 0] = self._cube_rotation[:, 3]
        observation[:, 1] = self._cube_rotation[:, 1]
        np.subtract(self._ball_position, self._cube_position, out=observation[:, 2:5])
        observation[:, 5:] = self._ball_velocity[:, :3]
        return observation

    def _set_balls(self, indices: NDArray[np.intp]) -> None:
        """Give balls the mass and the size that the environment parameters ask for."""
        mass = self.parameters.sample("mass", BALL_MASS, len(indices)).astype(np.float64)
        scale = self.parameters.sample("scale", 1.0, len(indices)).astype(np.float64)
        if (mass == self._ball_mass[indices]).all() and (scale == self._ball_scale[indices]).all():
            return
        _check_positive("mass", mass)
        _check_positive("scale", scale)
        self._ball_mass[indices], self._ball_scale[indices] = mass, scale
        radius = BALL_RADIUS * scale
        model, bodies, geoms = self.model, 2 + 2 * indices, 1 + 2 * indices  # as `_scene` orders them
        inertia = (0.4 * mass * radius**2)[:, None]  # a solid sphere's
        model.body_mass[bodies], model.body_inertia[bodies] = mass, inertia
        model.geom_size[geoms, 0] = model.geom_rbound[geoms] = radius
        model.dof_damping.reshape(self.n_agents, 6)[indices, 3:] = ANGULAR_DRAG_PER_S * inertia
        # MuJoCo keeps figures derived from these; it computes them in a state of its own making, so not in `data`.
        mujoco.mj_setConst(model, mujoco.MjData(model))

    def _check_physics(self) -> None:
        """Raise if MuJoCo met a state it cannot simulate; it would have gone on from a default one."""
        if np.count_nonzero(self._warnings):
            found = [mujoco.mjtWarning(kind).name for kind in np.flatnonzero(self._warnings)]
            raise UnityEnvironmentException(
                f"The physics of 3DBall became unstable (MuJoCo reports {', '.join(found)}). "
                "Bring the environment parameters 'mass' and 'scale' closer to 1."
            )


_LEVEL = np.array([[1.0, 0.0, 0.0, 0.0]])
"""The quaternion (w, x, y, z) of no rotation, as a row."""

_TIMES_UNIT = np.array(
    [
        [[0, 0, 0, 1], [0, 0, -1, 0], [0, 1, 0, 0], [-1, 0, 0, 0]],
        [[0, 1, 0, 0], [-1, 0, 0, 0], [0, 0, 0, -1], [0, 0, 1, 0]],
    ],
    dtype=np.float64,
)[:, None]
"""(2, 1, 4, 4): ``q @ matrix`` is the quaternion product of q and the unit k, of the z axis; then i, of the x axis."""


def _turns(angles: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return turns about an orientation's own z axis and own x axis.

    :param angles: (N, 2), in radians, about z and about x.
    :returns: (2, N, 4, 4), such that ``q @ matrix`` is the quaternion product of q and the turn.
    """
    half = 0.5 * angles.T[:, :, None, None]
    return np.cos(half) * np.eye(4) + np.sin(half) * _TIMES_UNIT


def _orientations(rotation: NDArray[np.float64], angles: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """Return the cubes' orientations (N, 4) in each physics step of a decision.

    :param rotation: (N, 4), before the decision.
    :param angles: (N, 2), the turns of each step in radians, about z and about x.
    """
    turn_z, turn_x = _turns(angles)
    sign_z, sign_x = np.sign(angles).T[:, :, None, None]
    rows = rotation[:, None].copy()
    tilt_z, tilt_x = rows[:, :, 3:], rows[:, :, 1:2]  # views, so they follow the turns
    orientations = []
    for _ in range(PHYSICS_STEPS_PER_DECISION):
        np.copyto(rows, rows @ turn_z, where=tilt_z * sign_z < TILT_LIMIT)
        np.copyto(rows, rows @ turn_x, where=tilt_x * sign_x < TILT_LIMIT)
        orientations.append(rows[:, 0].copy())
    return orientations


def _check_positive(parameter: str, values: NDArray[np.float64]) -> None:
    refused = values[~((values > 0.0) & (values < np.inf))]
    if refused.size:
        raise UnityEnvironmentException(
            f"The environment parameter {parameter!r} of 3DBall must be a positive number but was {refused[0]:g}."
        )


def _scene(n_agents: int) -> str:
    """Return the MuJoCo model of `n_agents` cubes, each with its ball: bodies and geoms are cube, ball, cube, ball, ...

    Cubes are moved from outside (`mocap`). Contacts are listed, a ball with its own cube, so that finding them costs
    the same for each agent however many there are. The cone is elliptic, for friction alike in all directions. Newton
    without islands on sparse matrices is the fastest solver that converges while balls roll, slide and bounce: CG needs
    many iterations, PGS stops short where a ball slides. Damping is a plain force (no `eulerdamp`), which makes it
    Unity's drag: a factor of 1 - drag * timestep.
    """
    bodies, contacts = [], []
    for i in range(n_agents):
        x, z = AREA_SPACING * (i % AGENTS_PER_AREA), AREA_SPACING * (i // AGENTS_PER_AREA)
        bodies.append(f"""
          <body mocap="true" pos="{x} 0 {z}"><geom name="cube{i}" type="box" size="2.5 2.5 2.5"/></body>
          <body pos="{x} {START_HEIGHT} {z}">
            <freejoint/><geom name="ball{i}" type="sphere" size="{BALL_RADIUS}" mass="{BALL_MASS}"/>
          </body>""")
        contacts.append(f"""<pair geom1="cube{i}" geom2="ball{i}" condim="3" friction="0.6 0.6 0 0 0"/>""")
    return f"""
      <mujoco model="3DBall">
        <option timestep="{TIMESTEP_S}" gravity="0 -9.81 0" cone="elliptic" solver="Newton" jacobian="sparse">
          <flag island="disable" eulerdamp="disable"/>
        </option>
        <default><geom contype="0" conaffinity="0"/></default>
        <worldbody>{"".join(bodies)}</worldbody>
        <contact>{"".join(contacts)}</contact>
      </mujoco>"""
