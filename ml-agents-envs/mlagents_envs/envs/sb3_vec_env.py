"""A vector environment of Gymnasium's for Stable-Baselines3, which has an interface of its own for them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecEnv

from mlagents_envs.exception import UnityEnvironmentException
from mlagents_envs.external.spaces import MASK


class SB3VecEnv(VecEnv):
    """Hands a vector environment on to Stable-Baselines3.

    The last observation of an episode is in ``info["terminal_observation"]``, and ``info["TimeLimit.truncated"]`` says
    that it was cut short. Several observations are a Dict, by their number. ``action_masks`` is what sb3-contrib's
    MaskablePPO asks for.

    :param vector_env: one that resets in the step in which an episode ends, as `UnityVectorEnv` does; closed with this.
    :raises UnityEnvironmentException: it does not.
    """

    def __init__(self, vector_env: VectorEnv[Any, Any, Any]):
        if vector_env.metadata.get("autoreset_mode") != AutoresetMode.SAME_STEP:
            raise UnityEnvironmentException("SB3VecEnv needs a vector environment with AutoresetMode.SAME_STEP.")
        self.vector_env = vector_env
        self._masks: NDArray[np.bool_] | None = None
        self._actions: Any = None
        space = vector_env.single_observation_space
        if isinstance(space, spaces.Tuple):
            space = spaces.Dict({str(number): part for number, part in enumerate(space.spaces)})
        super().__init__(vector_env.num_envs, space, vector_env.single_action_space)

    def reset(self) -> Any:
        """Begin all episodes anew; a seed that was set by `seed` is used up."""
        (seed, *_) = self._seeds
        observations, infos = self.vector_env.reset(seed=seed)
        self._reset_seeds()
        self._masks = infos.get(MASK)
        return _named(observations)

    def step_async(self, actions: NDArray[Any]) -> None:
        """Remember the actions."""
        self._actions = actions

    def step_wait(self) -> Any:
        """Act; return observations, rewards, ends and infos as Stable-Baselines3 takes them."""
        observations, rewards, terminated, truncated, infos = self.vector_env.step(self._actions)
        self._masks = infos.get(MASK)
        ended = terminated | truncated
        each: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        for index in ended.nonzero()[0]:
            each[index]["terminal_observation"] = _named(infos["final_obs"][index])
            each[index]["TimeLimit.truncated"] = bool(truncated[index] and not terminated[index])
        return _named(observations), rewards, ended, each

    def action_masks(self) -> NDArray[np.bool_]:
        """Return what each agent may do now, bool (N, sum of branches), True = allowed."""
        if self._masks is None:
            raise UnityEnvironmentException("There are no action masks: the agents have no discrete actions.")
        return self._masks.astype(np.bool_)

    def close(self) -> None:
        """Close the vector environment."""
        self.vector_env.close()

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """Return an attribute of the vector environment, once per agent.

        ``action_masks`` is this one's, if the agents have discrete actions: MaskablePPO looks for it so.
        """
        has_choices = not isinstance(self.action_space, spaces.Box)
        owner = self if attr_name == "action_masks" and has_choices else self.vector_env
        value = getattr(owner, attr_name)
        return [value for _ in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Set an attribute of the vector environment."""
        setattr(self.vector_env, attr_name, value)

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        """Call a method; ``action_masks`` gives each agent its own."""
        if method_name == "action_masks":
            return list(self.action_masks()[list(self._get_indices(indices))])
        result = getattr(self.vector_env, method_name)(*args, **kwargs)
        return [result for _ in self._get_indices(indices)]

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        """No agent is wrapped."""
        return [False for _ in self._get_indices(indices)]

    def get_images(self) -> Sequence[NDArray[np.uint8] | None]:
        """Agents have no pictures of their own."""
        return [None] * self.num_envs

    def _get_indices(self, indices: Any) -> Iterable[int]:
        chosen: Iterable[int] = super()._get_indices(indices)
        return chosen


def _named(observations: Any) -> Any:
    """Return several observations by their number."""
    if isinstance(observations, tuple):
        return {str(number): part for number, part in enumerate(observations)}
    return observations
