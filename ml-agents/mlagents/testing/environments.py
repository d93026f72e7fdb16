"""Small environments, each of which can only be solved by a trainer that has one certain capability.

They are pure NumPy, take seconds to solve, and are environments like any other, such as ``Masks`` for
``mlagents-learn CONFIG --env module:mlagents.testing.environments:MasksEnv``. What the best and a random policy earn in
an episode is said in each docstring.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlagents_envs.base_env import ActionSpec, ActionTuple, BehaviorSpec, vector_observation
from mlagents_envs.exception import UnityActionException
from mlagents_envs.side_channel.side_channel import SideChannel
from mlagents_envs.vector_env import VectorEnv

AGENTS_PER_AREA = 16

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
Indices = NDArray[np.intp]


def _one_hot(choices: Indices, size: int) -> Floats:
    """Return choices (N,) as rows (N, size)."""
    return np.eye(size)[choices]


def _mean(values: NDArray[Any]) -> Floats:
    """Return the mean of each agent's values (N, K), (N,)."""
    means: Floats = values.mean(axis=1)
    return means


class ForbiddenActionError(UnityActionException):
    """An agent took a choice that its action mask forbids."""


class TinyEnv(VectorEnv):
    """Sixteen agents per area with one vector observation; the behaviour is named like the class, without ``Env``.

    :param obs_size: floats that an agent observes.
    """

    def __init__(
        self,
        obs_size: int,
        action_spec: ActionSpec,
        seed: int,
        num_areas: int,
        side_channels: Sequence[SideChannel] | None,
    ):
        name = type(self).__name__.removesuffix("Env")
        spec = BehaviorSpec([vector_observation(obs_size, name)], action_spec)
        super().__init__(name, spec, AGENTS_PER_AREA * num_areas, seed=seed, side_channels=side_channels)
        self._everyone, self._nobody = np.ones(self.n_agents, dtype=bool), np.zeros(self.n_agents, dtype=bool)

    @abstractmethod
    def observe(self) -> Floats:
        """Return what all agents see (N, obs_size)."""


class OneStepEnv(TinyEnv):
    """Every episode is one step, in one of four contexts, drawn at random and observed one-hot."""

    N_CONTEXTS = 4

    def __init__(
        self,
        action_spec: ActionSpec,
        seed: int,
        num_areas: int,
        side_channels: Sequence[SideChannel] | None,
        obs_size: int = N_CONTEXTS,
    ):
        super().__init__(obs_size, action_spec, seed, num_areas, side_channels)
        self.context = np.zeros(self.n_agents, dtype=np.intp)

    @abstractmethod
    def earn(self, actions: ActionTuple) -> Floats:
        """Return the reward (N,) of acting so in the contexts at hand."""

    def observe(self) -> Floats:
        """Return the contexts one-hot."""
        return _one_hot(self.context, self.N_CONTEXTS)

    def reset_agents(self, indices: Indices) -> list[Floats]:
        """Draw new contexts."""
        self.context[indices] = self.rng.integers(self.N_CONTEXTS, size=len(indices))
        return [self.observe()[indices]]

    def step_agents(self, actions: ActionTuple) -> tuple[list[Floats], Floats, Flags, Flags]:
        """Pay everyone and end everyone's episode."""
        return [self.observe()], self.earn(actions), self._everyone, self._nobody


class ContinuousEnv(OneStepEnv):
    """Two continuous actions have to hit the two targets of the context: the reward is 1 minus the mean distance.

    The best return is 1; actions that are uniform in [-1, 1] earn 0.4.
    """

    TARGETS = np.array([[-0.6, 0.2], [-0.2, -0.6], [0.2, 0.6], [0.6, -0.2]])
    """By context and action."""

    def __init__(self, seed: int = 0, num_areas: int = 1, side_channels: Sequence[SideChannel] | None = None):
        super().__init__(ActionSpec.create_continuous(2), seed, num_areas, side_channels)

    def earn(self, actions: ActionTuple) -> Floats:
        """Pay for closeness."""
        distance = np.abs(actions.continuous - self.TARGETS[self.context])
        return 1.0 - _mean(distance)


class BranchesEnv(OneStepEnv):
    """Three branches of different sizes; in each one choice is right, another one in each branch and context.

    The reward is the share of the branches in which the choice was right. The best return is 1; random choices earn
    13/36, the mean of 1/2, 1/3 and 1/4.
    """

    SIZES = np.array([2, 3, 4])

    def __init__(self, seed: int = 0, num_areas: int = 1, side_channels: Sequence[SideChannel] | None = None):
        spec = ActionSpec.create_discrete(tuple(self.SIZES.tolist()))
        super().__init__(spec, seed, num_areas, side_channels)

    def earn(self, actions: ActionTuple) -> Floats:
        """Pay for right choices."""
        right = (self.context[:, None] + np.arange(len(self.SIZES))) % self.SIZES
        return _mean(actions.discrete == right)


class HybridEnv(OneStepEnv):
    """One continuous action has to hit the context's target while a branch of three has one right choice.

    Half of the reward is 1 minus the distance, the other half is 1 for the right choice. The best return is 1; random
    actions earn 11/30, the mean of 0.4 and 1/3.
    """

    TARGETS = np.array([-0.6, 0.2, 0.6, -0.2])
    N_CHOICES = 3

    def __init__(self, seed: int = 0, num_areas: int = 1, side_channels: Sequence[SideChannel] | None = None):
        super().__init__(ActionSpec.create_hybrid(1, (self.N_CHOICES,)), seed, num_areas, side_channels)

    def earn(self, actions: ActionTuple) -> Floats:
        """Pay for closeness and for the right choice."""
        closeness = 1.0 - np.abs(actions.continuous[:, 0] - self.TARGETS[self.context])
        is_right = actions.discrete[:, 0] == self.context % self.N_CHOICES
        return _mean(np.stack([closeness, is_right], axis=1))


class MasksEnv(OneStepEnv):
    """Two branches, of three and four choices, in each of which the favourite of the context is often forbidden.

    In a branch the choices have an order that the context gives. The first in it is forbidden in half of the episodes,
    and no observation tells when. Right is the first that is allowed, and the reward is the share of the branches in
    which the choice was right. The best return is 1; random allowed choices earn 17/48.
    """

    SIZES = (3, 4)

    def __init__(self, seed: int = 0, num_areas: int = 1, side_channels: Sequence[SideChannel] | None = None):
        super().__init__(ActionSpec.create_discrete(self.SIZES), seed, num_areas, side_channels)
        self._forbidden = np.zeros((self.n_agents, len(self.SIZES)), dtype=bool)

    def reset_agents(self, indices: Indices) -> list[Floats]:
        """Draw new contexts, and where their favourites are forbidden."""
        self._forbidden[indices] = self.rng.random((len(indices), len(self.SIZES))) < 0.5
        return super().reset_agents(indices)

    def action_masks(self) -> list[Flags]:
        """Forbid favourites."""
        return [
            (np.arange(size) == self.context[:, None] % size) & self._forbidden[:, branch, None]
            for branch, size in enumerate(self.SIZES)
        ]

    def earn(self, actions: ActionTuple) -> Floats:
        """Pay for the first choices that are allowed.

        :raises ForbiddenActionError: a choice is one of those that are not.
        """
        for branch, mask in enumerate(self.action_masks()):
            (offenders,) = mask[np.arange(self.n_agents), actions.discrete[:, branch]].nonzero()
            if offenders.size:
                raise ForbiddenActionError(
                    f"Agent {offenders[0]} took choice {actions.discrete[offenders[0], branch]} of branch {branch}, "
                    f"which its action mask forbids; so did {offenders.size - 1} other agents in this step."
                )
        right = (self.context[:, None] + self._forbidden) % np.array(self.SIZES)
        return _mean(actions.discrete == right)


class ScalesEnv(OneStepEnv):
    """Two signs are observed on very different scales, as 100 +- 1 and +- 0.001; two branches have to repeat them.

    Only networks that learn with normalized observations see both. The reward is the share of the signs repeated; the
    best return is 1, random choices earn 0.5.
    """

    MEAN, SCALE = np.array([100.0, 0.0]), np.array([1.0, 0.001])

    def __init__(self, seed: int = 0, num_areas: int = 1, side_channels: Sequence[SideChannel] | None = None):
        super().__init__(ActionSpec.create_discrete((2, 2)), seed, num_areas, side_channels, obs_size=2)

    def observe(self) -> Floats:
        """Return the signs on their scales."""
        return self.MEAN + self.SCALE * (2 * self._positive() - 1)

    def earn(self, actions: ActionTuple) -> Floats:
        """Pay for each sign."""
        return _mean(actions.discrete == self._positive())

    def _positive(self) -> Indices:
        """Return 1 for each sign that is positive (N, 2): the context in binary."""
        return np.stack([self.context // 2, self.context % 2], axis=1)


class DelayedEnv(TinyEnv):
    """Five choices of three, one after the other, of which each has to repeat what is shown; all is paid at the end.

    Observed are what is to be repeated (3), the number of the step (5), both one-hot, and the share of the choices that
    were right so far. The reward of the last step is the share of all five, of the others 0. The best return is 1;
    random choices earn 1/3.
    """

    N_CHOICES, N_STEPS = 3, 5

    def __init__(self, seed: int = 0, num_areas: int = 1, side_channels: Sequence[SideChannel] | None = None):
        spec = ActionSpec.create_discrete((self.N_CHOICES,))
        super().__init__(self.N_CHOICES + self.N_STEPS + 1, spec, seed, num_areas, side_channels)
        self._shown, self._step, self._n_right = np.zeros((3, self.n_agents), dtype=np.intp)

    def observe(self) -> Floats:
        """Return what is shown, when, and the share of right choices."""
        step = np.minimum(self._step, self.N_STEPS - 1)
        share = self._n_right / self.N_STEPS
        return np.hstack([_one_hot(self._shown, self.N_CHOICES), _one_hot(step, self.N_STEPS), share[:, None]])

    def reset_agents(self, indices: Indices) -> list[Floats]:
        """Begin with step 0."""
        self._step[indices] = self._n_right[indices] = 0
        self._shown[indices] = self.rng.integers(self.N_CHOICES, size=len(indices))
        return [self.observe()[indices]]

    def step_agents(self, actions: ActionTuple) -> tuple[list[Floats], Floats, Flags, Flags]:
        """Count right choices, and pay for them after the last."""
        self._n_right += actions.discrete[:, 0] == self._shown
        self._step += 1
        self._shown = self.rng.integers(self.N_CHOICES, size=self.n_agents)
        ended = self._step == self.N_STEPS
        return [self.observe()], np.where(ended, self._n_right / self.N_STEPS, 0.0), ended, self._nobody


class InterruptedEnv(TinyEnv):
    """A walk of three steps to a goal worth 1, in the middle of which episodes are cut short.

    The branch is: 0 give up, which ends the walk for good and pays 0.3; 1 take a step. After four in ten of the steps
    that do not end the walk, the episode is interrupted, and the next one goes on from there. The position is observed
    one-hot; at the end of a walk, that is the start of the next. A walk to the goal is 1.8 episodes long, so that the
    best return of an episode is 5/9 on average; random choices earn 31/104.

    Only a trainer that tells the two kinds of ends apart walks. To one that takes interruptions for ends the goal seems
    out of reach, and to one that looks beyond ends, giving up again and again seems to pay more. Both give up, and earn
    0.3. These sums are for a discount of 0.8.
    """

    GIVE_UP, WALK = 0, 1
    GOAL = 3
    CONSOLATION = 0.3
    P_INTERRUPTED = 0.4

    def __init__(self, seed: int = 0, num_areas: int = 1, side_channels: Sequence[SideChannel] | None = None):
        super().__init__(self.GOAL, ActionSpec.create_discrete((2,)), seed, num_areas, side_channels)
        self._position = np.zeros(self.n_agents, dtype=np.intp)

    def observe(self) -> Floats:
        """Return the positions one-hot."""
        return _one_hot(self._position, self.GOAL)

    def reset(self) -> None:
        """Start every walk anew."""
        self._position[:] = 0
        super().reset()

    def reset_agents(self, indices: Indices) -> list[Floats]:
        """Go on from where the agents are."""
        return [self.observe()[indices]]

    def step_agents(self, actions: ActionTuple) -> tuple[list[Floats], Floats, Flags, Flags]:
        """Walk, or give up."""
        walks = actions.discrete[:, 0] == self.WALK
        self._position += walks
        arrived = self._position == self.GOAL
        is_over = arrived | ~walks
        self._position[is_over] = 0
        reward = np.where(walks, 1.0 * arrived, self.CONSOLATION)
        return [self.observe()], reward, is_over, self.rng.random(self.n_agents) < self.P_INTERRUPTED


class MemoryEnv(TinyEnv):
    """One of three cues is shown at the first of four steps, and the choice of the last step has to repeat it.

    Observed are the cue (3), one-hot at the first step and zeros later, and 1 at the last step, 0 before. The reward is
    1 for the right last choice. The best return is 1; without memory, as with random choices, it is 1/3.
    """

    N_CUES, N_STEPS = 3, 4

    def __init__(self, seed: int = 0, num_areas: int = 1, side_channels: Sequence[SideChannel] | None = None):
        super().__init__(self.N_CUES + 1, ActionSpec.create_discrete((self.N_CUES,)), seed, num_areas, side_channels)
        self._cue, self._step = np.zeros((2, self.n_agents), dtype=np.intp)

    def observe(self) -> Floats:
        """Return the cue while it is shown, and whether it is asked for."""
        cue = _one_hot(self._cue, self.N_CUES) * (self._step == 0)[:, None]
        return np.hstack([cue, (self._step == self.N_STEPS - 1)[:, None]])

    def reset_agents(self, indices: Indices) -> list[Floats]:
        """Draw new cues."""
        self._cue[indices] = self.rng.integers(self.N_CUES, size=len(indices))
        self._step[indices] = 0
        return [self.observe()[indices]]

    def step_agents(self, actions: ActionTuple) -> tuple[list[Floats], Floats, Flags, Flags]:
        """Pay for the last choice."""
        asked = self._step == self.N_STEPS - 1
        self._step += 1
        reward = np.where(asked, 1.0 * (actions.discrete[:, 0] == self._cue), 0.0)
        return [self.observe()], reward, asked, self._nobody
