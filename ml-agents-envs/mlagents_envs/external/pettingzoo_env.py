"""PettingZoo's environments as a `BaseEnv`: agents of a kind are agents of one behaviour."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from typing import Any, NamedTuple, Union

import numpy as np
from gymnasium import spaces
from gymnasium.vector.utils import batch_space, concatenate, create_empty_array, iterate
from numpy.typing import NDArray
from pettingzoo import AECEnv, ParallelEnv

from mlagents_envs.base_env import BehaviorSpec, DecisionSteps, TerminalSteps
from mlagents_envs.exception import UnityEnvironmentException
from mlagents_envs.external.spaces import MASK, ActionLayout, Columns, ObservationLayout
from mlagents_envs.local_env import LocalEnv
from mlagents_envs.side_channel.side_channel import SideChannel

AnyPettingZooEnv = Union["ParallelEnv[Any, Any, Any]", "AECEnv[Any, Any, Any]"]

_LARGEST_SEED = 2**31


class _Waiting(NamedTuple):
    """What an agent that wants a decision sees and has earned."""

    observation: Any
    reward: float
    info: Mapping[str, Any]


class _Ended(NamedTuple):
    """What an agent has seen and earned at the end of its episode.

    :param observation: a copy, for the environment may write the next episode's over it.
    """

    observation: Any
    reward: float
    interrupted: bool


class PettingZooEnv(LocalEnv):
    """Copies of a PettingZoo environment, stepped in turn.

    Agents whose names differ only by a number at the end, ``archer_0`` and ``archer_1``, are of one kind and so of one
    behaviour, ``archer?team=0``; unless their spaces differ, then each is a behaviour of its own name.

    In a parallel environment all live agents decide at every step; in a turn-based one (AEC) the agent whose turn it is
    does, and its reward is what it has earned since its last turn. An agent that dies is in `TerminalSteps` with its
    last observation, as *interrupted* where it was truncated without having terminated, or has vanished without a word.
    When nobody is left in a copy, it begins its next episode in the same step. An agent that dies before it ever
    decided is left out.

    Every reset is seeded, by a seed drawn from `rng`: what follows repeats for equal seeds and actions.

    :param make: makes a copy; called `num_areas` times.
    :param name: of the environment, for messages.
    :param seed: of `rng`.
    :param side_channels: the trainer's ends of the side channels.
    :raises UnsupportedSpaceException: of an agent's spaces.
    """

    def __init__(
        self,
        make: Callable[[], AnyPettingZooEnv],
        name: str,
        *,
        num_areas: int = 1,
        seed: int = 0,
        side_channels: Sequence[SideChannel] | None = None,
    ):
        super().__init__({}, seed=seed, side_channels=side_channels)
        self._name = name
        self._games = [_game(make(), name, self._draw_seed) for _ in range(num_areas)]
        self._kinds: dict[str, _Kind] = {}
        """By behaviour."""
        self._behaviors: dict[Any, str] = {}
        """By an agent's name."""
        self._ids: dict[tuple[int, Any], int] = {}
        """By the copy's number and the agent's name."""
        self._meet(getattr(self._games[0].env, "possible_agents", ()))

    def _draw_seed(self) -> int:
        return int(self.rng.integers(_LARGEST_SEED))

    def _meet(self, agents: Sequence[Any]) -> None:
        """Give a behaviour to agents that have none yet."""
        env = self._games[0].env
        by_stem: dict[str, list[Any]] = {}
        for agent in agents:
            if agent not in self._behaviors:
                by_stem.setdefault(re.sub(r"_\d+$", "", str(agent)), []).append(agent)
        for stem, members in by_stem.items():
            signatures = [(env.observation_space(agent), env.action_space(agent)) for agent in members]
            known = self._kinds.get(f"{stem}?team=0")
            first = known.signature if known is not None else signatures[0]
            is_one_kind = all(signature == first for signature in signatures)
            for agent, signature in zip(members, signatures):
                self._behaviors[agent] = self._behavior(stem if is_one_kind else str(agent), signature)

    def _behavior(self, name: str, signature: _Signature) -> str:
        behavior = f"{name}?team=0"
        if behavior not in self._kinds:
            kind = _Kind(f"{self._name}, {name}", signature)
            self._kinds[behavior] = kind
            self._add_behavior(behavior, kind.spec)
        return behavior

    def _begin_episodes(self) -> None:
        for game in self._games:
            game.ended = {}
            game.begin()
        self._publish_games()

    def _simulate(self) -> None:
        actions: list[dict[Any, Any]] = [{} for _ in self._games]
        for behavior, kind in self._kinds.items():
            for (copy, agent), action in zip(kind.deciding, kind.layout_actions(self._actions_of(behavior))):
                actions[copy][agent] = action
        for game, its_actions in zip(self._games, actions):
            game.step(its_actions)
        self._publish_games()

    def _publish_games(self) -> None:
        """Publish who waits and who has ended, of all copies together."""
        waiting: dict[str, list[tuple[int, Any, _Waiting]]] = {behavior: [] for behavior in self._kinds}
        ended: dict[str, list[tuple[int, Any, _Ended]]] = {behavior: [] for behavior in self._kinds}
        for copy, game in enumerate(self._games):
            self._meet([agent for agent in game.waiting if agent not in self._behaviors])
            for agent, seen in game.waiting.items():
                waiting.setdefault(self._behaviors[agent], []).append((copy, agent, seen))
            for agent, end in game.ended.items():
                ended[self._behaviors[agent]].append((copy, agent, end))
        for behavior, kind in self._kinds.items():
            here = waiting.get(behavior, [])
            kind.deciding = [(copy, agent) for copy, agent, _ in here]
            decisions = kind.decisions([seen for _, _, seen in here], self._agent_ids(kind.deciding))
            gone = ended.get(behavior, [])
            ids = self._agent_ids([(copy, agent) for copy, agent, _ in gone])
            self._publish(behavior, decisions, kind.terminals([end for _, _, end in gone], ids))

    def _agent_ids(self, agents: Sequence[tuple[int, Any]]) -> NDArray[np.int32]:
        return np.array([self._ids.setdefault(agent, len(self._ids)) for agent in agents], dtype=np.int32)

    def close(self) -> None:
        """Close all copies as well."""
        if not self._closed:
            for game in self._games:
                game.env.close()
        super().close()


_Signature = tuple["spaces.Space[Any]", "spaces.Space[Any]"]


class _Kind:
    """Agents of one behaviour: between their observations and actions and columns of them.

    :param where: names them in messages.
    :param signature: their spaces, of observations and of actions.
    """

    def __init__(self, where: str, signature: _Signature):
        self.signature = signature
        self._observations = ObservationLayout(signature[0], where)
        self._actions = ActionLayout(signature[1], where)
        self.spec = BehaviorSpec(self._observations.specs, self._actions.spec)
        self.deciding: list[tuple[int, Any]] = []
        """The copies' numbers and names of the agents of the decision steps, in their order."""

    def layout_actions(self, actions: Any) -> Sequence[Any]:
        """Return the actions of the agents that decide, one by one as their space has them."""
        if not self.deciding:
            return ()
        return list(iterate(batch_space(self.signature[1], len(self.deciding)), self._actions.batch(actions)))

    def decisions(self, rows: Sequence[_Waiting], ids: NDArray[np.int32]) -> DecisionSteps | None:
        """Return the agents that wait, in columns; None for nobody."""
        if not rows:
            return None
        batch = self._batch([row.observation for row in rows])
        return DecisionSteps(
            obs=self._observations.columns(batch),
            reward=np.array([row.reward for row in rows], dtype=np.float32),
            agent_id=ids,
            action_mask=self._forbidden(batch, rows),
            group_id=np.zeros(len(rows), dtype=np.int32),
            group_reward=np.zeros(len(rows), dtype=np.float32),
        )

    def terminals(self, rows: Sequence[_Ended], ids: NDArray[np.int32]) -> TerminalSteps | None:
        """Return the agents that have ended, in columns; None for nobody."""
        if not rows:
            return None
        obs: Columns = self._observations.columns(self._batch([row.observation for row in rows]))
        return TerminalSteps(
            obs=obs,
            reward=np.array([row.reward for row in rows], dtype=np.float32),
            interrupted=np.array([row.interrupted for row in rows], dtype=np.bool_),
            agent_id=ids,
            group_id=np.zeros(len(rows), dtype=np.int32),
            group_reward=np.zeros(len(rows), dtype=np.float32),
        )

    def _batch(self, observations: Sequence[Any]) -> Any:
        space = self.signature[0]
        empty: Any = create_empty_array(space, len(observations))
        return concatenate(space, observations, empty)

    def _forbidden(self, batch: Any, rows: Sequence[_Waiting]) -> list[NDArray[np.bool_]] | None:
        if not self.spec.action_spec.discrete_branches:
            return None
        if self._observations.has_masks:
            return self._actions.forbidden(self._observations.masks(batch), len(rows))
        allowed = np.empty(len(rows), dtype=object)
        allowed[:] = [row.info.get(MASK) for row in rows]
        if all(row is None for row in allowed):
            return None
        return self._actions.forbidden(allowed, len(rows))


class _Game:
    """A copy of an environment, whatever its interface.

    :ivar waiting: the agents that want a decision.
    :ivar ended: the agents whose episode has ended in the last step.
    """

    def __init__(self, env: Any, name: str, draw_seed: Callable[[], int]):
        self.env = env
        self._name = name
        self._draw_seed = draw_seed
        self.waiting: dict[Any, _Waiting] = {}
        self.ended: dict[Any, _Ended] = {}

    def begin(self) -> None:
        """Begin an episode: of everybody, before anybody has decided."""
        raise NotImplementedError

    def step(self, actions: Mapping[Any, Any]) -> None:
        """Act for all agents that wait, and find out who waits and who has ended."""
        raise NotImplementedError

    def _check_begun(self, somebody: Any) -> None:
        if not somebody:
            raise UnityEnvironmentException(f"{self._name}: its episode was over before any agent could act.")


class _ParallelGame(_Game):
    """All live agents act together."""

    def begin(self) -> None:
        observations, infos = self.env.reset(seed=self._draw_seed())
        self._check_begun(self.env.agents)
        self.waiting = {agent: _Waiting(observations[agent], 0.0, infos.get(agent, {})) for agent in self.env.agents}

    def step(self, actions: Mapping[Any, Any]) -> None:
        before = self.waiting
        observations, rewards, terminations, truncations, infos = self.env.step(dict(actions))
        self.ended, self.waiting = {}, {}
        live = set(self.env.agents)
        for agent, seen in before.items():
            terminated, truncated = terminations.get(agent, False), truncations.get(agent, False)
            if terminated or truncated or agent not in live:
                last = observations.get(agent, seen.observation)
                self.ended[agent] = _Ended(deepcopy(last), float(rewards.get(agent, 0.0)), not terminated)
        for agent in self.env.agents:
            if agent not in self.ended:
                reward = float(rewards.get(agent, 0.0))
                self.waiting[agent] = _Waiting(observations[agent], reward, infos.get(agent, {}))
        if not self.waiting:
            self.begin()


class _TurnGame(_Game):
    """One agent acts after the other."""

    def begin(self) -> None:
        self._restart()
        self._advance()
        self._check_begun(self.waiting)

    def _restart(self) -> None:
        self.env.reset(seed=self._draw_seed())
        self._last_seen: dict[Any, Any] = {}
        """The observations on which the agents that live decided last."""

    def step(self, actions: Mapping[Any, Any]) -> None:
        self.ended = {}
        ((agent, action),) = actions.items()
        self._last_seen[agent] = deepcopy(self.waiting[agent].observation)
        self.env.step(action)
        self._advance()
        for vanished in set(self._last_seen).difference(self.env.agents):
            rewards = self.env._cumulative_rewards
            self._end(vanished, self._last_seen[vanished], rewards.get(vanished, 0.0), True)
        if not self.waiting:
            self.begin()

    def _end(self, agent: Any, observation: Any, reward: float, interrupted: bool) -> None:
        self.ended[agent] = _Ended(deepcopy(observation), float(reward), interrupted)
        del self._last_seen[agent]

    def _advance(self) -> None:
        """Bury the dead until somebody alive is to move, or nobody is left."""
        self.waiting = {}
        while self.env.agents:
            agent = self.env.agent_selection
            observation, reward, terminated, truncated, info = self.env.last()
            if not (terminated or truncated):
                self.waiting = {agent: _Waiting(observation, float(reward), info)}
                return
            if agent in self._last_seen:
                self._end(agent, observation, reward, not terminated)
            self.env.step(None)


def _game(env: AnyPettingZooEnv, name: str, draw_seed: Callable[[], int]) -> _Game:
    if isinstance(env, ParallelEnv):
        return _ParallelGame(env, name, draw_seed)
    if isinstance(env, AECEnv):
        return _TurnGame(env, name, draw_seed)
    kind = type(env)
    raise UnityEnvironmentException(
        f"{name}: it made an object of type {kind.__module__}.{kind.__qualname__}, which is neither a ParallelEnv nor "
        "an AECEnv of PettingZoo's."
    )
