"""A `BaseEnv` with one agent as an environment of Gymnasium's."""

from __future__ import annotations

import itertools
from typing import Any, Dict, List, Optional, Sequence, Tuple

import gymnasium as gym
import numpy as np
from gymnasium import error, spaces

from mlagents_envs.base_env import BaseEnv, BehaviorSpec, DecisionStep, DecisionSteps, TerminalSteps
from mlagents_envs.envs.spaces import (
    MAX_SILENT_STEPS,
    action_space,
    action_tuple,
    allowed,
    box,
    is_image,
    seed_environment,
)
from mlagents_envs.logging_util import get_logger

logger = get_logger(__name__)

GymStepResult = Tuple[Any, float, bool, bool, Dict[str, Any]]
"""Observation, reward, terminated, truncated, info."""


class UnityGymException(error.Error):
    """An environment that cannot be used through `UnityToGymWrapper`, or a call out of order."""


class UnityToGymWrapper(gym.Env[Any, Any]):
    """An environment of one agent through Gymnasium's interface.

    For several agents there is `mlagents_envs.envs.unity_vector_env.UnityVectorEnv`. ``info`` holds the agent's step as
    ``step`` and, with discrete actions, ``action_mask``, int8, 1 = allowed, in the form that
    ``action_space.sample(mask)`` takes.

    Environments that simulate in this process are seeded by ``reset(seed=...)`` and then repeat; a Unity build takes
    its seed when it is started, and only the spaces are seeded here.

    :param unity_env: the environment, which is closed with this one.
    :param uint8_visual: images are `uint8`, 0 to 255, instead of floats between 0 and 1; (C, H, W) either way.
    :param flatten_branched: several discrete branches become one Discrete space of all their combinations.
    :param allow_multiple_obs: an observation is a list: each image, and then all vectors as one. Otherwise it is the
        first image, or all vectors as one where there is none.
    :param action_space_seed: seeds the action space.
    :raises UnityGymException: there are several agents or behaviours.
    """

    def __init__(
        self,
        unity_env: BaseEnv,
        uint8_visual: bool = False,
        flatten_branched: bool = False,
        allow_multiple_obs: bool = False,
        action_space_seed: Optional[int] = None,
    ):
        self._env = unity_env
        self.uint8_visual = uint8_visual
        self._allow_multiple_obs = allow_multiple_obs
        self.game_over = False
        self._env.reset()
        self.name, self.group_spec = self._only_behavior()
        self._check_agents(*self._env.get_steps(self.name))
        specs = self.group_spec.observation_specs
        self._images = [index for index, spec in enumerate(specs) if is_image(spec)]
        self._vectors = [index for index, spec in enumerate(specs) if not is_image(spec)]
        self.visual_obs: Any = None
        """The image that was observed last."""
        self.metadata = {"render_modes": ["rgb_array"] if self._images else []}
        self.render_mode = "rgb_array" if self._images else None
        if len(self._images) + bool(self._vectors) > 1 and not allow_multiple_obs:
            logger.warning(
                f"The behavior {self.name} has several observations, of which the first image alone is given here. "
                "With allow_multiple_obs=True all are."
            )
        self.action_size = self.group_spec.action_spec.continuous_size + self.group_spec.action_spec.discrete_size
        self._flattener = None
        self.action_space = action_space(self.group_spec.action_spec)
        if flatten_branched and self.group_spec.action_spec.is_discrete() and self.action_size > 1:
            self._flattener = ActionFlattener(self.group_spec.action_spec.discrete_branches)
            self.action_space = self._flattener.action_space
        self.action_space.seed(action_space_seed)
        parts = self._parts([box(spec, uint8_visual) for spec in specs])
        self.observation_space = spaces.Tuple(parts) if allow_multiple_obs else parts[0]

    def _only_behavior(self) -> Tuple[str, BehaviorSpec]:
        names = list(self._env.behavior_specs)
        if len(names) != 1:
            raise UnityGymException(
                f"UnityToGymWrapper needs an environment of one behavior but this one has {', '.join(names) or 'none'}."
                " With several, use mlagents_envs.envs.unity_parallel_env.UnityParallelEnv."
            )
        return names[0], self._env.behavior_specs[names[0]]

    def _check_agents(self, decisions: DecisionSteps, terminals: TerminalSteps) -> None:
        n_agents = max(len(decisions), len(terminals))  # one may end while another comes in its place
        if n_agents > 1:
            raise UnityGymException(
                f"UnityToGymWrapper needs an environment of one agent but this one has {n_agents}. With several, "
                "use mlagents_envs.envs.unity_vector_env.UnityVectorEnv, which gives all of them at once."
            )

    def _parts(self, boxes: Sequence[spaces.Box]) -> List[spaces.Box]:
        """Return the space of each image, and of all vectors as one."""
        parts = [boxes[index] for index in self._images]
        if self._vectors:
            size = sum(int(np.prod(boxes[index].shape)) for index in self._vectors)
            parts.append(spaces.Box(-np.inf, np.inf, (size,), np.float32))
        return parts

    def reset(self, *, seed: Optional[int] = None, options: Optional[Dict[str, Any]] = None) -> Tuple[Any, Any]:
        """Begin an episode.

        :param seed: of the environment, where it can be seeded anew, and of the spaces.
        :returns: the observation and ``info``.
        """
        super().reset(seed=seed)
        if seed is not None:
            seed_environment(self._env, seed)
            self.action_space.seed(seed)
            self.observation_space.seed(seed)
        self._env.reset()
        self.game_over = False
        observation, _, _, _, info = self._result()
        return observation, info

    def step(self, action: Any) -> GymStepResult:
        """Act once.

        :param action: of `action_space`.
        :returns: the observation, the reward since the last decision, whether the episode has come to its end, whether
            it was cut short, and ``info``.
        :raises UnityGymException: the episode is over.
        """
        if self.game_over:
            raise UnityGymException("The episode is over: call reset() before step().")
        if self._flattener is not None:
            action = self._flattener.lookup_action(action)
        self._env.set_actions(self.name, action_tuple(self.group_spec.action_spec, action))
        self._env.step()
        return self._result()

    def _result(self) -> GymStepResult:
        """Return what the agent sees; the environment steps on until it asks for a decision or has ended."""
        for _ in range(MAX_SILENT_STEPS):
            decisions, terminals = self._env.get_steps(self.name)
            self._check_agents(decisions, terminals)
            if len(terminals):
                (ended,) = (terminals[agent] for agent in terminals)
                self.game_over = True
                interrupted = bool(ended.interrupted)
                return self._observation(ended.obs), float(ended.reward), not interrupted, interrupted, {"step": ended}
            if len(decisions):
                (waits,) = (decisions[agent] for agent in decisions)
                return self._observation(waits.obs), float(waits.reward), False, False, self._info(waits)
            self._env.step()
        raise UnityGymException(f"The agent of {self.name} has not asked for a decision in {MAX_SILENT_STEPS} steps.")

    def _info(self, waits: DecisionStep) -> Dict[str, Any]:
        info: Dict[str, Any] = {"step": waits}
        spec = self.group_spec.action_spec
        if spec.discrete_size:
            masks = allowed(waits.action_mask, spec)
            info["action_mask"] = masks if self._flattener is None else self._flattener.allowed(masks)
        return info

    def _observation(self, obs: Sequence[np.ndarray]) -> Any:
        parts: List[np.ndarray] = [self._image(obs[index]) for index in self._images]
        if parts:
            self.visual_obs = parts[0]
        if self._vectors:
            parts.append(np.concatenate([obs[index].reshape(-1) for index in self._vectors]))
        return tuple(parts) if self._allow_multiple_obs else parts[0]

    def _image(self, image: np.ndarray) -> np.ndarray:
        if not self.uint8_visual:
            return image
        scaled: np.ndarray = np.rint(255.0 * image).astype(np.uint8)
        return scaled

    def render(self) -> Any:
        """Return the image that was observed last, uint8 (H, W, C); None where the agent sees none."""
        if self.visual_obs is None:
            return None
        image = self.visual_obs if self.uint8_visual else np.rint(255.0 * self.visual_obs).astype(np.uint8)
        return np.ascontiguousarray(image.transpose(1, 2, 0))

    def seed(self, seed: Any = None) -> None:
        """Seed the environment, where it can be, from its next reset on, and the spaces."""
        if seed is not None:
            seed_environment(self._env, seed)
        self.action_space.seed(seed)
        self.observation_space.seed(seed)

    def close(self) -> None:
        """Close the environment."""
        self._env.close()

    @property
    def reward_range(self) -> Tuple[float, float]:
        """Rewards have no bounds."""
        return -float("inf"), float("inf")


class ActionFlattener:
    """Every combination of choices of several branches as one choice, the last branch's changing first.

    :param branched_action_space: the branches' sizes.
    """

    def __init__(self, branched_action_space: Sequence[int]):
        self.action_lookup: Dict[int, List[int]] = {
            number: list(choices)
            for number, choices in enumerate(itertools.product(*(range(size) for size in branched_action_space)))
        }
        self.action_space = spaces.Discrete(len(self.action_lookup))

    def lookup_action(self, action: Any) -> List[int]:
        """Return the branches' choices."""
        return self.action_lookup[int(action)]

    def allowed(self, masks: Sequence[np.ndarray]) -> np.ndarray:
        """Return which combinations are allowed, int8, where each branch's masks are given."""
        return np.array(
            [all(mask[choice] for mask, choice in zip(masks, choices)) for choices in self.action_lookup.values()],
            dtype=np.int8,
        )
