"""From environment steps to trajectories: each live agent has a slot of the columns ``[slot, time, ...]``."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Mapping, Sequence

import numpy as np

from mlagents.trainers.action_info import ActionInfo
from mlagents.trainers.agent_manager_queue import AgentManagerQueue, LostAgents, TrajectoryQueue
from mlagents.trainers.behavior_id_utils import get_global_agent_id
from mlagents.trainers.experience_columns import ExperienceColumns
from mlagents.trainers.stats import StatsReporter
from mlagents.trainers.trajectory import Trajectory
from mlagents_envs.base_env import AgentId, BehaviorSpec, DecisionSteps, TerminalSteps
from mlagents_envs.exception import UnityObservationException
from mlagents_envs.side_channel.stats_side_channel import EnvironmentStats, StatsAggregationMethod

__all__ = ["AgentManager", "AgentManagerQueue", "AgentProcessor", "LostAgents", "TrajectoryQueue"]


@dataclass
class _Places:
    """Where the experiences of slots stand that are not complete.

    :param version: of the processor's lengths, of which this holds.
    :param at: the places in the rows of the columns.
    :param longest: the largest number of complete experiences before them.
    """

    version: int
    slots: np.ndarray
    at: np.ndarray
    longest: int


class _WorkerSlots:
    """Which slot an agent of one worker has; the last look-up is reused while the ids stay the same."""

    def __init__(self) -> None:
        self.by_agent: Dict[AgentId, int] = {}
        self.last_ids = b""
        self.last_slots = np.zeros(0, dtype=np.intp)
        self.places = _Places(-1, self.last_slots, self.last_slots, 0)


_PER_SLOT = ("length", "waiting", "acted", "published", "last_discrete")
"""The arrays that an `AgentProcessor` has beside its columns."""


def _id_bytes(agent_ids: Sequence[AgentId] | np.ndarray) -> bytes:
    """Return agents' ids as what is quick to compare, and does not change when an environment reuses its array."""
    return np.asarray(agent_ids, dtype=np.int32).tobytes()


def _are_finite(steps: DecisionSteps | TerminalSteps) -> bool:
    """Return whether no observation and no reward is NaN or infinite."""
    # Products with what is not finite are not finite, even by zero; sums of them may be too large where all are finite.
    is_small = math.isfinite(np.vdot(steps.reward, steps.group_reward))
    for obs in steps.obs:
        is_small = is_small and math.isfinite(np.vdot(obs, obs))
    return is_small or all(np.isfinite(column).all() for column in (*steps.obs, steps.reward, steps.group_reward))


class AgentProcessor:
    """Gathers the steps of all agents of a behaviour into trajectories.

    :param spec: what the agents observe and how they act.
    :param behavior_id: the behaviour with its team.
    :param stats_reporter: where ``Environment/Episode Length`` goes.
    :param max_trajectory_length: the time horizon, after which a trajectory is cut though the episode goes on.
    :ivar current_step: says how many steps the behaviour's trainer has taken in, for messages.
    """

    def __init__(
        self,
        spec: BehaviorSpec,
        behavior_id: str,
        stats_reporter: StatsReporter,
        max_trajectory_length: int = sys.maxsize,
    ):
        self.spec = spec
        self.behavior_id = behavior_id
        self._stats_reporter = stats_reporter
        self._horizon = max_trajectory_length
        self._columns = ExperienceColumns(spec, max_trajectory_length)
        self._workers: Dict[int, _WorkerSlots] = {}
        self._free_slots: List[int] = []
        self._n_slots = 0
        # Per slot, beside the columns: complete experiences, before the one that waits to be rewarded; whether an
        # observation waits for its reward; whether it has been acted on; the episode's experiences before these, and
        # the choices in the last of them; and the agent's id within the run.
        self._length = np.zeros(0, dtype=np.int64)
        self._waiting = np.zeros(0, dtype=bool)
        self._acted = np.zeros(0, dtype=bool)
        self._published = np.zeros(0, dtype=np.int64)
        self._last_discrete = np.zeros((0, spec.action_spec.discrete_size), dtype=np.int32)
        self._agent_ids: List[str] = []
        self._version = 0  # changes whenever lengths do so in other ways than by one step of all agents of a worker
        self._trajectory_queues: List[TrajectoryQueue] = []
        self._approved: Dict[int, DecisionSteps] = {}  # by id, until they are taken in
        self.current_step: Callable[[], int] = lambda: 0

    def publish_trajectory_queue(self, trajectory_queue: TrajectoryQueue) -> None:
        """Add a queue that every finished trajectory is put into, and agents that are lost."""
        self._trajectory_queues.append(trajectory_queue)

    def add_experiences(
        self,
        decision_steps: DecisionSteps,
        terminal_steps: TerminalSteps,
        worker_id: int,
        previous_action: ActionInfo,
    ) -> None:
        """Take in one step of one worker, and publish the trajectories that it completes.

        :param previous_action: what was decided for the worker's last `DecisionSteps`; the rewards here are for it.
        :raises UnityObservationException: an observation or a reward is NaN or infinite, or an agent has no choice.
        """
        is_approved = self._approved.pop(id(decision_steps), None) is decision_steps
        if not is_approved and not self.is_usable(decision_steps, terminal_steps):
            self._refuse_not_finite(decision_steps, worker_id)
            self._refuse_not_finite(terminal_steps, worker_id)
            self._refuse_no_choice(decision_steps, worker_id)
        worker = self._workers.setdefault(worker_id, _WorkerSlots())
        if len(previous_action.agent_ids):
            self._record_actions(worker, previous_action)
        if len(terminal_steps):
            self._end_episodes(worker, terminal_steps)
        if len(decision_steps):
            slots = self._slots_of(worker, worker_id, decision_steps.agent_id)
            self._record_rewards(worker, slots, decision_steps)
            self._record_observations(worker, slots, decision_steps)
        if len(terminal_steps):
            self._free(worker, terminal_steps.agent_id)

    def end_episode(self) -> None:
        """Drop all experiences under way: the environments start anew."""
        self._workers.clear()
        self._approved.clear()
        self._free_slots = list(range(self._n_slots))
        self._clear(np.arange(self._n_slots))

    def state_dict(self) -> Dict[str, Any]:
        """Return the experience under way, for `load_state_dict` of another run of this behaviour to go on with."""
        return {
            "columns": self._columns.state_dict(),
            "slots": {worker_id: dict(worker.by_agent) for worker_id, worker in self._workers.items()},
            "agent_ids": list(self._agent_ids),
            "free_slots": list(self._free_slots),
            **{name: getattr(self, f"_{name}") for name in _PER_SLOT},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with experience of which `state_dict` told."""
        self._columns.load_state_dict(state["columns"])
        self._version += 1
        self._workers = {}
        for worker_id, by_agent in state["slots"].items():
            self._workers[worker_id] = worker = _WorkerSlots()
            worker.by_agent = dict(by_agent)
        self._agent_ids = list(state["agent_ids"])
        self._n_slots = len(self._agent_ids)
        self._free_slots = list(state["free_slots"])
        for name in _PER_SLOT:
            setattr(self, f"_{name}", state[name])

    def drop_worker(self, worker_id: int) -> np.ndarray:
        """Drop what is under way of a worker, which starts anew or is gone; the queues are told whose it was.

        :returns: the ids, in the worker, of the agents that lived there.
        """
        self._approved.clear()  # what the worker gave last is not going to come
        worker = self._workers.pop(worker_id, None)
        if worker is None or not worker.by_agent:
            return np.zeros(0, dtype=np.int32)
        slots = list(worker.by_agent.values())
        self._clear(np.array(slots))
        self._free_slots.extend(slots)
        self._put(LostAgents([self._agent_ids[slot] for slot in slots]))
        return np.array(list(worker.by_agent), dtype=np.int32)

    def is_usable(self, decision_steps: DecisionSteps, terminal_steps: TerminalSteps) -> bool:
        """Return whether no value of a step is NaN or infinite, and every agent may do something in every branch."""
        masks = decision_steps.action_mask
        if masks is not None and any(forbidden.all(axis=1).any() for forbidden in masks):
            return False
        return all(_are_finite(steps) for steps in (decision_steps, terminal_steps) if len(steps))

    def approve(self, decision_steps: DecisionSteps, terminal_steps: TerminalSteps) -> bool:
        """Return whether steps that `add_experiences` will get are usable; there it need not be found out again."""
        is_usable = self.is_usable(decision_steps, terminal_steps)
        if is_usable:
            self._approved[id(decision_steps)] = decision_steps
        return is_usable

    def _refuse_no_choice(self, steps: DecisionSteps, worker_id: int) -> None:
        """Raise for the first branch of an agent in which nothing is allowed: no action could be right."""
        for branch, forbidden in enumerate(steps.action_mask or []):
            for row in np.flatnonzero(forbidden.all(axis=1)):
                raise UnityObservationException(
                    f"The environment forbids every choice: {self._place(worker_id)}, agent "
                    f"{int(steps.agent_id[row])}, branch {branch}, of {forbidden.shape[1]} choices. The step was not "
                    f"used; mend the environment, so that one choice is allowed, be it to do nothing."
                )

    def _refuse_not_finite(self, steps: DecisionSteps | TerminalSteps, worker_id: int) -> None:
        """Raise for the first value that is not finite: training on it would ruin the model."""
        named = [(f"observation {spec.name!r}", obs) for spec, obs in zip(self.spec.observation_specs, steps.obs)]
        for name, values in [*named, ("reward", steps.reward), ("group reward", steps.group_reward)]:
            for row, *place in np.argwhere(~np.isfinite(values)).tolist():
                agent_id, value = int(steps.agent_id[row]), values[row][tuple(place)]
                raise UnityObservationException(
                    f"The environment gave a value that is not finite: {self._place(worker_id)}, agent {agent_id}, "
                    f"{name}{place or ''}: {value}. The step was not used; mend the environment."
                )

    def _place(self, worker_id: int) -> str:
        return f"behavior {self.behavior_id}, step {self.current_step()}, worker {worker_id}"

    def _slots_of(self, worker: _WorkerSlots, worker_id: int, agent_ids: np.ndarray) -> np.ndarray:
        """Return the slot of each agent, giving new agents a free one."""
        id_bytes = _id_bytes(agent_ids)
        if id_bytes == worker.last_ids:
            return worker.last_slots
        by_agent = worker.by_agent
        slots = np.empty(len(agent_ids), dtype=np.intp)
        for index, agent_id in enumerate(agent_ids.tolist()):
            slot = by_agent.get(agent_id)
            if slot is None:
                slot = by_agent[agent_id] = self._new_slot()
                self._agent_ids[slot] = get_global_agent_id(worker_id, agent_id)
            slots[index] = slot
        worker.last_ids, worker.last_slots = id_bytes, slots
        return slots

    def _new_slot(self) -> int:
        if self._free_slots:
            return self._free_slots.pop()
        slot = self._n_slots
        self._n_slots += 1
        self._columns.reserve_slots(self._n_slots)
        self._agent_ids.append("")
        grow = self._columns.n_slots - len(self._length)
        if grow > 0:
            self._length = np.append(self._length, np.zeros(grow, dtype=np.int64))
            self._waiting = np.append(self._waiting, np.zeros(grow, dtype=bool))
            self._acted = np.append(self._acted, np.zeros(grow, dtype=bool))
            self._published = np.append(self._published, np.zeros(grow, dtype=np.int64))
            blank = np.zeros((grow, self._last_discrete.shape[1]), dtype=np.int32)
            self._last_discrete = np.append(self._last_discrete, blank, axis=0)
        return slot

    def _places_of(self, worker: _WorkerSlots, slots: np.ndarray) -> _Places:
        """Return where the experiences of slots are that are not complete."""
        places = worker.places
        if places.slots is not slots or places.version != self._version:
            lengths = self._length.take(slots)
            at = slots * self._columns.n_times + lengths
            places = worker.places = _Places(self._version, slots, at, int(lengths.max(initial=0)))
        return places

    def _clear(self, slots: np.ndarray) -> None:
        self._version += 1
        self._length[slots] = 0
        self._waiting[slots] = False
        self._acted[slots] = False
        self._published[slots] = 0
        self._last_discrete[slots] = 0

    def _free(self, worker: _WorkerSlots, ended: np.ndarray) -> None:
        """Give back the slots of agents that ended and did not start again in the same step."""
        for agent_id in ended.tolist():
            slot = worker.by_agent.get(agent_id)
            if slot is not None and not self._waiting[slot]:
                del worker.by_agent[agent_id]
                self._free_slots.append(slot)
                worker.last_ids = b""

    def _record_actions(self, worker: _WorkerSlots, decision: ActionInfo) -> None:
        """Write what was decided beside the observations it was decided on."""
        rows: slice | np.ndarray = slice(None)
        if _id_bytes(decision.agent_ids) == worker.last_ids:
            known = worker.last_slots
        else:
            slots = np.array([worker.by_agent.get(int(agent_id), -1) for agent_id in decision.agent_ids], dtype=np.intp)
            rows = np.flatnonzero(slots >= 0)
            known = slots[rows]
        action_spec, columns = self.spec.action_spec, self._columns
        # Not every actor gives these.
        log_probs, memory = decision.outputs.get("log_probs"), decision.outputs.get("memory_in")
        if log_probs is not None and "discrete_log_probs" not in columns.arrays:
            columns.add("continuous_log_probs", (action_spec.continuous_size,))
            columns.add("discrete_log_probs", (action_spec.discrete_size,))
        if memory is not None:
            # Of steps that were taken without one, or with one of another size, nothing is remembered.
            columns.add("memory", memory.shape[1:], blank=0.0)
        at = self._places_of(worker, known).at
        if memory is not None:
            columns.write("memory", at, memory[rows])
        if action_spec.continuous_size:
            columns.write("continuous", at, decision.action.continuous[rows])
            if log_probs is not None:
                columns.write("continuous_log_probs", at, log_probs.continuous[rows])
        if action_spec.discrete_size:
            columns.write("discrete", at, decision.action.discrete[rows])
            if log_probs is not None:
                columns.write("discrete_log_probs", at, log_probs.discrete[rows])
        self._acted[known] = True

    def _record_rewards(self, worker: _WorkerSlots, slots: np.ndarray, steps: DecisionSteps) -> None:
        """Complete the experiences of agents that go on, and cut those at the time horizon."""
        rewarded = self._acted[slots]
        n_rewarded = np.count_nonzero(rewarded)
        if not n_rewarded:
            return
        if n_rewarded == len(rewarded):
            rows: slice | np.ndarray = slice(None)
        else:
            rows = np.flatnonzero(rewarded)
            slots = slots[rows]
        places = self._places_of(worker, slots)
        self._columns.write("reward", places.at, steps.reward[rows])
        self._columns.write("group_reward", places.at, steps.group_reward[rows])
        places.at += 1
        places.longest += 1
        self._length[slots] += 1
        if places.longest >= self._horizon:
            self._version += 1
            lengths = self._length[slots]
            full = np.flatnonzero(lengths >= self._horizon)
            indices = np.arange(len(steps))[rows]
            for index in full:
                self._publish(int(slots[index]), [values[indices[index]] for values in steps.obs])
            self._published[slots[full]] += lengths[full]
            self._last_discrete[slots[full]] = self._columns.arrays["discrete"][slots[full], lengths[full] - 1]
            self._length[slots[full]] = 0

    def _record_observations(self, worker: _WorkerSlots, slots: np.ndarray, steps: DecisionSteps) -> None:
        """Write what agents see now, to be acted on."""
        columns = self._columns
        if columns.reserve_time(self._places_of(worker, slots).longest + 1):
            self._version += 1
        at = self._places_of(worker, slots).at
        for index, values in enumerate(steps.obs):
            columns.write(f"obs_{index}", at, values)
        if columns.branches:
            columns.write_masks(at, steps.action_mask)
        self._waiting[slots] = True
        self._acted[slots] = False

    def _end_episodes(self, worker: _WorkerSlots, steps: TerminalSteps) -> None:
        """Complete the last experiences of ended agents and publish their trajectories."""
        for index, agent_id in enumerate(steps.agent_id.tolist()):
            slot = worker.by_agent.get(agent_id)
            if slot is None:
                continue
            if self._acted[slot]:
                at = (slot, self._length[slot])
                arrays = self._columns.arrays
                arrays["reward"][at] = steps.reward[index]
                arrays["group_reward"][at] = steps.group_reward[index]
                self._length[slot] += 1
                next_obs = [values[index] for values in steps.obs]
                self._publish(slot, next_obs, done=True, interrupted=bool(steps.interrupted[index]))
                episode_length = int(self._published[slot] + self._length[slot])
                self._stats_reporter.add_stat("Environment/Episode Length", episode_length)
            self._clear(np.array([slot]))

    def _publish(
        self, slot: int, next_obs: Sequence[np.ndarray], done: bool = False, interrupted: bool = False
    ) -> None:
        trajectory = Trajectory(
            columns=self._columns.cut(slot, int(self._length[slot]), done, interrupted, self._last_discrete[slot]),
            next_obs=[values.copy() for values in next_obs],
            agent_id=self._agent_ids[slot],
            behavior_id=self.behavior_id,
        )
        self._put(trajectory)

    def _put(self, item: Trajectory | LostAgents) -> None:
        for queue in self._trajectory_queues:
            queue.put(item)


class AgentManager(AgentProcessor):
    """An `AgentProcessor` with the queues that link it to a trainer."""

    def __init__(
        self,
        spec: BehaviorSpec,
        behavior_id: str,
        stats_reporter: StatsReporter,
        max_trajectory_length: int = sys.maxsize,
    ):
        super().__init__(spec, behavior_id, stats_reporter, max_trajectory_length)
        self.trajectory_queue: TrajectoryQueue = AgentManagerQueue(behavior_id)
        self.publish_trajectory_queue(self.trajectory_queue)

    def record_environment_stats(self, env_stats: EnvironmentStats, worker_id: int) -> None:
        """Report what the environment itself measured."""
        for name, values in env_stats.items():
            for value, aggregation in values:
                if aggregation is StatsAggregationMethod.MOST_RECENT:
                    # Of several workers, the first speaks for all.
                    if worker_id == 0:
                        self._stats_reporter.set_stat(name, value)
                else:
                    self._stats_reporter.add_stat(name, value, aggregation)
