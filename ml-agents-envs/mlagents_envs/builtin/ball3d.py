"""3DBall on MuJoCo: tilt a cube to keep a ball on it. The scene has the numbers of Unity's 3DBall.

All areas are one MuJoCo model, and one decision of all agents is five `mj_step` and a few array operations.

Axes are Unity's: x and z across, y up. Unity's world is left-handed and MuJoCo's is right-handed, which mirrors the
scene and changes no number in it, so that a policy trained in either balances in the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

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

    def simulation_state(self) -> dict[str, Any]:
        """Return MuJoCo's state, and what the model was changed by."""
        state = np.empty(mujoco.mj_stateSize(self.model, _STATE))
        mujoco.mj_getState(self.model, self.data, state, _STATE)
        return {
            "mujoco": state,
            "ball_mass": self._ball_mass.copy(),
            "ball_scale": self._ball_scale.copy(),
            "physics_steps": self._physics_steps.copy(),
        }

    def restore_simulation(self, state: Mapping[str, Any]) -> None:
        """Go on from what `simulation_state` told."""
        everyone = np.arange(self.n_agents)
        self._give_balls(everyone, state["ball_mass"], state["ball_scale"])
        self._physics_steps[:] = state["physics_steps"]
        mujoco.mj_setState(self.model, self.data, state["mujoco"], _STATE)

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
        angles = np.deg2rad(DEGREES_PER_ACTION) * actions.continuous.clip(-1.0, 1.0).astype(np.float64)
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
        self._give_balls(indices, mass, scale)

    def _give_balls(self, indices: NDArray[np.intp], mass: NDArray[np.float64], scale: NDArray[np.float64]) -> None:
        """Give balls their mass and size."""
        self._ball_mass[indices], self._ball_scale[indices] = mass, scale
        radius = BALL_RADIUS * scale
        model, bodies, geoms = self.model, 2 + 2 * indices, 1 + 2 * indices  # as `_scene` orders them
        model.geom_size[geoms, 0] = model.geom_rbound[geoms] = radius
        mass_and_inertia = np.stack([mass, 0.4 * mass * radius**2], axis=1)  # a solid sphere's
        model.body_mass[bodies], model.body_inertia[bodies] = mass, mass_and_inertia[:, 1:]
        model.dof_damping.reshape(-1, 6)[indices, 3:] = ANGULAR_DRAG_PER_S * mass_and_inertia[:, 1:]
        # What MuJoCo derives from these: `mj_setConst` would do it too, in a time that grows with the square of N.
        model.body_subtreemass[bodies] = mass
        model.body_subtreemass[0] = model.body_mass.sum()
        model.body_invweight0[bodies] = 1.0 / mass_and_inertia
        model.dof_M0.reshape(-1, 6)[indices] = mass_and_inertia.repeat(3, axis=1)
        model.dof_invweight0[:] = 1.0 / model.dof_M0
        model.stat.meaninertia = model.dof_M0.mean()

    def _check_physics(self) -> None:
        """Raise if MuJoCo met a state it cannot simulate; it would have gone on from a default one."""
        if np.count_nonzero(self._warnings):
            found = [mujoco.mjtWarning(kind).name for kind in np.flatnonzero(self._warnings)]
            raise UnityEnvironmentException(
                f"The physics of 3DBall became unstable (MuJoCo reports {', '.join(found)}). "
                "Look for actions that are not numbers, and bring the parameters 'mass' and 'scale' closer to 1."
            )


_STATE = mujoco.mjtState.mjSTATE_INTEGRATION
"""All that MuJoCo needs to go on bit for bit, what its solver starts from included."""

_LEVEL = np.array([[1.0, 0.0, 0.0, 0.0]])
"""The quaternion (w, x, y, z) of no rotation, as a row."""

_TURN_BASIS = np.array(
    [
        [np.eye(4), [[0, 0, 0, 1], [0, 0, -1, 0], [0, 1, 0, 0], [-1, 0, 0, 0]]],
        [np.eye(4), [[0, 1, 0, 0], [-1, 0, 0, 0], [0, 0, 0, -1], [0, 0, 1, 0]]],
    ]
).reshape(2, 2, 16)
"""(2, 2, 16): matrices that multiply q by a unit quaternion, from the right: 1, then k (the z axis); 1, then i (x)."""


def _turns(angles: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return turns about an orientation's own z axis and own x axis.

    :param angles: (N, 2), in radians, about z and about x.
    :returns: (2, N, 4, 4), such that ``q @ matrix`` is the quaternion product of q and the turn.
    """
    half = 0.5 * angles.T
    cos_sin = np.empty((2, len(angles), 2))
    np.cos(half, out=cos_sin[:, :, 0])
    np.sin(half, out=cos_sin[:, :, 1])
    turns: NDArray[np.float64] = cos_sin @ _TURN_BASIS
    return turns.reshape(2, -1, 4, 4)


def _orientations(rotation: NDArray[np.float64], angles: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the cubes' orientations in each physics step of a decision: (5, N, 4).

    Limits are met in few decisions. So the cubes first turn as if there were none, which is all unless that leads a
    cube to one.

    :param rotation: (N, 4), before the decision.
    :param angles: (N, 2), the turns of each step in radians, about z and then about x.
    """
    turn_z, turn_x = _turns(angles)
    direction = np.sign(angles)
    path = np.empty((PHYSICS_STEPS_PER_DECISION + 1, len(angles), 1, 4))
    path[0] = rotation[:, None]
    turn = turn_z @ turn_x
    for before, after in pairwise(path):
        np.matmul(before, turn, out=after)
    tilt = np.empty((PHYSICS_STEPS_PER_DECISION, len(angles), 2))  # about each axis, just before the turn about it
    tilt[:, :, 0] = path[:-1, :, 0, 3]
    tilt[:, :, 1] = (path[:-1] @ turn_z)[:, :, 0, 1]
    if (tilt * direction).max() >= TILT_LIMIT:
        for before, after in pairwise(path):
            after[:] = before
            np.copyto(after, after @ turn_z, where=after[:, :, 3:] * direction[:, None, :1] < TILT_LIMIT)
            np.copyto(after, after @ turn_x, where=after[:, :, 1:2] * direction[:, None, 1:] < TILT_LIMIT)
    return path[1:, :, 0]


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
