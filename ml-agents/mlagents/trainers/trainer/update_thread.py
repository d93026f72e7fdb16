"""Updating beside the environments: a trainer in a thread of its own."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import Callable, Deque, List, NamedTuple, Optional, Tuple, Union

from mlagents.torch_utils import torch
from mlagents.trainers.agent_processor import AgentManagerQueue, LostAgents, TrajectoryQueue
from mlagents.trainers.policy import Policy
from mlagents.trainers.trainer.policy_hand_over import PolicyHandOver
from mlagents.trainers.trainer.trainer import Trainer
from mlagents.trainers.trajectory import Trajectory
from mlagents_envs.logging_util import get_logger
from mlagents_envs.timers import hierarchical_timer, merge_thread

logger = get_logger(__name__)

MIN_WAITING_SHARE = 0.7
"""How much of its time collection has to wait, for environments, for updates beside it to pay."""
FORGETTING = 0.98
"""What a collection phase still counts for in the share of waiting after the next one."""


class _Batch(NamedTuple):
    """What one step of the environments gave: items, each with the queue of the trainer that it goes to."""

    items: List[Tuple[TrajectoryQueue, Union[Trajectory, LostAgents]]]

    @property
    def n_steps(self) -> int:
        """The agents' steps in it."""
        return sum(len(item) for _, item in self.items if isinstance(item, Trajectory))


class UpdateThread:
    """Lets a trainer take in experience and update beside the thread that makes it, which calls the methods here.

    The trainer is called as it would be without a thread, only later: for each step of the environments it gets the
    trajectories that were complete then, and advances. So what it counts, writes and learns from is no different, but
    that the policy that acted lacks the update that was under way. Agents act with a copy of it, see `PolicyHandOver`.

    Collection waits where it is more than the trainer's `max_waiting_steps` ahead: experience neither piles up nor
    gets older than that. It also waits where what was handed over reaches `max_steps`.

    Only one thread at a time runs Python code. So where collection computes, as with an environment in this process,
    updates beside it would hold up both; and threads that change places cost time, too. Then, as long as it waits for
    less than `MIN_WAITING_SHARE` of its time, the trainer advances in the caller's thread instead.

    What goes wrong in the thread is raised by the next call of `advance` or `settle`, once, and nothing is taken in
    any more.

    :param trainer: it belongs to the thread: others may use it only after `settle` or `close`, before they advance.
    """

    def __init__(self, trainer: Trainer):
        self._trainer = trainer
        self._routes: List[Tuple[TrajectoryQueue, TrajectoryQueue]] = []  # collected, and the trainer's
        self._hand_overs: List[PolicyHandOver] = []
        self._collection = _WaitingShare()
        self._thread: Optional[threading.Thread] = None
        self._changed = threading.Condition()  # guards what follows
        self._waiting: Deque[_Batch] = deque()
        self._under_way: Optional[_Batch] = None
        self._is_closing = False
        self._error: Optional[BaseException] = None

    def link(self, behavior_id: str, collected: TrajectoryQueue) -> Policy:
        """Let the trainer have what is collected of a behaviour id that it has a policy of; return what is to act.

        :raises TrainerConfigError: the policy cannot be copied.
        """
        self.settle()
        hand_over = PolicyHandOver(behavior_id, self._trainer)
        self._hand_overs.append(hand_over)
        self._trainer.publish_policy_queue(hand_over)
        taken_in: TrajectoryQueue = AgentManagerQueue(behavior_id)
        self._routes.append((collected, taken_in))
        self._trainer.subscribe_trajectory_queue(taken_in)
        return hand_over.acting

    def advance(self) -> None:
        """Hand over what was collected since the last call, and act as the last update wants it from now on.

        Call it after each step of the environments.
        """
        self._collection.stop()
        items = [(to, collected.get_nowait()) for collected, to in self._routes for _ in range(collected.qsize())]
        if self._collection.waiting_share < MIN_WAITING_SHARE:
            self.settle()
            self._take_in(_Batch(items))
        elif items:
            self._hand_on(_Batch(items))
        self._wait_until(self._has_room)
        for hand_over in self._hand_overs:
            if not hand_over.empty():
                hand_over.get_nowait()
        with self._changed:
            is_idle = self._is_idle()
        if is_idle:  # else the thread would be in the way of what is measured
            self._collection.start()

    def settle(self) -> None:
        """Wait until everything that was handed over is taken in, and the updates that were due are made."""
        self._wait_until(self._is_idle)

    def close(self) -> None:
        """End the thread, once an update under way is done; what waits is dropped.

        Its timers are added to those of the caller. `advance` would start a new thread.
        """
        if self._thread is None:
            return
        with self._changed:
            self._waiting.clear()
            self._is_closing = True
            self._changed.notify_all()
        self._thread.join()
        merge_thread(self._thread, "update_thread")
        self._thread, self._is_closing = None, False
        if self._error is not None:  # of an update that went on while something else had ended the run
            logger.error(f"The update of {self._trainer.brain_name} failed, too: {self._error}")
            self._error = None

    def _hand_on(self, batch: _Batch) -> None:
        with self._changed:
            self._waiting.append(batch)
            self._changed.notify_all()
        if self._thread is None:
            name, device = f"updates of {self._trainer.brain_name}", torch.get_default_device()
            self._thread = threading.Thread(target=self._run, args=(device,), name=name, daemon=True)
            self._thread.start()

    def _is_idle(self) -> bool:
        return not self._waiting and self._under_way is None

    def _has_room(self) -> bool:
        """Return whether collection may go on."""
        if self._is_idle():
            return True
        waiting = sum(batch.n_steps for batch in self._waiting)
        under_way = self._under_way.n_steps if self._under_way is not None else 0
        reached = self._trainer.get_step + under_way + waiting  # or less: some under way may have been counted
        return waiting <= self._trainer.max_waiting_steps and reached < self._trainer.get_max_steps

    def _wait_until(self, is_so: Callable[[], bool]) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._error is not None or is_so())
            error, self._error = self._error, None
        if error is not None:
            raise error

    def _take_in(self, batch: _Batch) -> None:
        for queue, item in batch.items:
            queue.put(item)
        self._trainer.advance()
        self._trainer.checkpoint_if_due()

    def _run(self, device: torch.device) -> None:
        if torch.get_default_device() != device:  # which every thread has for itself
            torch.set_default_device(device)
        try:
            while self._begin_next():
                assert self._under_way is not None
                with hierarchical_timer("trainer_advance"):
                    self._take_in(self._under_way)
        except BaseException as error:  # whatever it is, the run is to end with it
            with self._changed:
                self._error = error
                self._waiting.clear()
                self._under_way = None
                self._changed.notify_all()

    def _begin_next(self) -> bool:
        """Wait for the next batch; return False if there is to be none."""
        with self._changed:
            self._under_way = None
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._waiting or self._is_closing)
            if self._is_closing:
                return False
            self._under_way = self._waiting.popleft()
            self._changed.notify_all()
            return True


class _WaitingShare:
    """Measures which share of the time between `start` and `stop` a thread does not compute, lately."""

    def __init__(self) -> None:
        self._started_at: Optional[Tuple[float, float]] = None
        self._total_s = self._computing_s = 0.0

    def start(self) -> None:
        """Begin a phase."""
        self._started_at = _now()

    def stop(self) -> None:
        """End the phase, if one was begun."""
        if self._started_at is not None:
            total_s, computing_s = (now - then for now, then in zip(_now(), self._started_at))
            self._total_s = FORGETTING * self._total_s + total_s
            self._computing_s = FORGETTING * self._computing_s + computing_s
            self._started_at = None

    @property
    def waiting_share(self) -> float:
        """From 0 to 1; 1 before anything was measured."""
        return 1.0 - self._computing_s / self._total_s if self._total_s else 1.0


def _now() -> Tuple[float, float]:
    """Return the time and the processor time of this thread, in seconds."""
    return time.perf_counter(), time.thread_time()
