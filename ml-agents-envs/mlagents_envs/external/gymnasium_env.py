"""A Gymnasium vector environment as a `BaseEnv`: its copies are agents of one behaviour."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Optional

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import concatenate, create_empty_array
from numpy.typing import NDArray

from mlagents_envs.base_env import BehaviorSpec, DecisionSteps, TerminalSteps
from mlagents_envs.exception import UnityEnvironmentException
from mlagents_envs.external.spaces import MASK, ActionLayout, Columns, ObservationLayout
from mlagents_envs.local_env import LocalEnv
from mlagents_envs.side_channel.side_channel import SideChannel

_Masks = Optional[list[NDArray[np.bool_]]]
"""Per branch, (N, size), True = forbidden; None where nothing is."""

_LARGEST_SEED = 2**31


class GymnasiumEnv(LocalEnv):
    """N copies of a Gymnasium environment as N agents of one behaviour, stepped as one batch.

    An episode's last observation and reward are in `TerminalSteps`, as *interrupted* where it was truncated without
    having terminated. When the next episode's first observation is in `DecisionSteps` hangs on the environment's
    autoreset mode: with ``SAME_STEP`` and ``DISABLED`` (then this class resets those that ended) in the same step, with
    ``NEXT_STEP`` in the next one, so that an agent whose episode has ended wants no decision for one step.

    Every reset is seeded, by a seed drawn from `rng`: what follows repeats for equal seeds and actions.

    :param vector_env: any of `gymnasium.vector`; closed by `close`.
    :param name: of the behaviour, to which its team is added: ``NAME?team=0``.
    :param seed: of `rng`.
    :param side_channels: the trainer's ends of the side channels.
    :raises UnsupportedSpaceException: of its spaces.
    """

    def __init__(
        self,
        vector_env: VectorEnv[Any, Any, Any],
        name: str,
        *,
        seed: int = 0,
        side_channels: Sequence[SideChannel] | None = None,
    ):
        self.vector_env = vector_env
        self.n_agents = vector_env.num_envs
        self.behavior_name = f"{name}?team=0"
        self._observations = ObservationLayout(vector_env.single_observation_space, name)
        self._layout = ActionLayout(vector_env.single_action_space, name)
        self._mode = AutoresetMode(vector_env.metadata.get("autoreset_mode", AutoresetMode.NEXT_STEP))
        spec = BehaviorSpec(self._observations.specs, self._layout.spec)
        super().__init__({self.behavior_name: spec}, seed=seed, side_channels=side_channels)
        self._everyone = np.arange(self.n_agents, dtype=np.int32)
        self._deciding: NDArray[np.int32] = self._everyone
        """The agents that want a decision: all but those that `NEXT_STEP` has yet to begin anew."""

    def _begin_episodes(self) -> None:
        batch, infos = self.vector_env.reset(seed=int(self.rng.integers(_LARGEST_SEED)))
        reward = np.zeros(self.n_agents, dtype=np.float32)
        self._publish_batch(self._everyone, batch, reward, self._forbidden(batch, infos), None)

    def _simulate(self) -> None:
        given = self._actions_of(self.behavior_name)
        if len(self._deciding) < self.n_agents:
            actions = self._layout.spec.empty_action(self.n_agents)
            actions.continuous[self._deciding] = given.continuous
            actions.discrete[self._deciding] = given.discrete
        else:
            actions = given
        batch, raw_reward, terminated, truncated, infos = self.vector_env.step(self._layout.batch(actions))
        reward = np.array(raw_reward, dtype=np.float32)
        masks = self._forbidden(batch, infos)
        ended = np.logical_or(terminated, truncated)
        if not np.count_nonzero(ended):  # asked at every step, and the quickest way to
            self._publish_batch(self._everyone, batch, reward, masks, None)
            return
        ends = self._everyone[ended]
        final = self._final_observations(batch, infos, ends)
        terminals = TerminalSteps(
            obs=final,
            reward=reward[ends],
            interrupted=~np.asarray(terminated, dtype=np.bool_)[ends],
            agent_id=ends,
            group_id=np.zeros(len(ends), dtype=np.int32),
            group_reward=np.zeros(len(ends), dtype=np.float32),
        )
        if self._mode is AutoresetMode.NEXT_STEP:
            self._publish_batch(self._everyone[~ended], batch, reward, masks, terminals)
            return
        if self._mode is AutoresetMode.DISABLED:
            batch, infos = self.vector_env.reset(options={"reset_mask": ended})
            masks = self._merged(masks, self._forbidden(batch, infos), ended)  # these infos are of those that ended
        reward[ends] = 0.0
        self._publish_batch(self._everyone, batch, reward, masks, terminals)

    def _final_observations(self, batch: Any, infos: dict[str, Any], ends: NDArray[np.int32]) -> Columns:
        """Return the last observations of the episodes that ended: per specification (K, *shape)."""
        if self._mode is not AutoresetMode.SAME_STEP:
            return [column[ends] for column in self._observations.columns(batch)]
        final = infos.get("final_obs")
        if final is None:
            raise UnityEnvironmentException(
                f"The environment {self.behavior_name.partition('?')[0]} says that it resets in the step in which an "
                "episode ends (AutoresetMode.SAME_STEP) but gives no last observation in infos['final_obs']."
            )
        if isinstance(final, np.ndarray) and final.dtype == object:
            space = self._observations.space
            empty: Any = create_empty_array(space, len(ends))
            return self._observations.columns(concatenate(space, [final[agent] for agent in ends], empty))
        return [column[ends] for column in self._observations.columns(final)]

    def _publish_batch(
        self,
        deciding: NDArray[np.int32],
        batch: Any,
        reward: NDArray[np.float32],
        masks: _Masks,
        terminals: TerminalSteps | None,
    ) -> None:
        """Publish what all agents see, of whom these want a decision."""
        obs = self._observations.columns(batch)
        if len(deciding) < self.n_agents:
            obs = [column[deciding] for column in obs]
            reward = reward[deciding]
            masks = masks and [mask[deciding] for mask in masks]
        decisions = DecisionSteps(
            obs=obs,
            reward=reward,
            agent_id=deciding.copy(),
            action_mask=masks,
            group_id=np.zeros(len(deciding), dtype=np.int32),
            group_reward=np.zeros(len(deciding), dtype=np.float32),
        )
        self._deciding = deciding
        self._publish(self.behavior_name, decisions, terminals)

    def _forbidden(self, batch: Any, infos: dict[str, Any]) -> _Masks:
        """Return the forbidden choices of all agents, from their observations or else their infos."""
        if not self._layout.spec.discrete_branches:
            return None
        if self._observations.has_masks:
            return self._layout.forbidden(self._observations.masks(batch), self.n_agents)
        allowed = infos.get(MASK)
        if allowed is None:
            return None
        masks = self._layout.forbidden(allowed, self.n_agents)
        given = infos.get(f"_{MASK}")  # who gave one: the others' rows are zeros
        return masks if given is None else [mask & np.asarray(given)[:, None] for mask in masks]

    def _merged(self, masks: _Masks, others: _Masks, rows: NDArray[np.bool_]) -> _Masks:
        """Return masks with the others' in these rows, False wherever there are none."""
        if masks is None and others is None:
            return None
        nothing = [np.zeros((self.n_agents, size), dtype=np.bool_) for size in self._layout.spec.discrete_branches]
        return [np.where(rows[:, None], other, mask) for mask, other in zip(masks or nothing, others or nothing)]

    def close(self) -> None:
        """Close the Gymnasium environment as well."""
        if not self._closed:
            self.vector_env.close()
        super().close()
