"""A pool of threads that do not keep the interpreter from ending."""

from __future__ import annotations

import threading
from concurrent.futures import Executor, Future
from queue import SimpleQueue
from typing import Any, Callable, Optional, TypeVar

_Result = TypeVar("_Result")


class DaemonExecutor(Executor):
    """Runs functions in threads that may block for good.

    The interpreter waits at its end for all threads of a `ThreadPoolExecutor`, before any clean-up that could release
    them; so one that waits for somebody's answer would keep a program from ending.

    :param n_threads: how many functions run at a time.
    :param name: of the threads.
    """

    def __init__(self, n_threads: int, name: str):
        self._work: SimpleQueue[Optional[Callable[[], None]]] = SimpleQueue()
        self._n_threads = n_threads
        for index in range(n_threads):
            threading.Thread(target=self._run, name=f"{name}_{index}", daemon=True).start()

    def submit(self, fn: Callable[..., _Result], /, *args: Any, **kwargs: Any) -> Future[_Result]:
        """Run a function as soon as a thread is free."""
        future: Future[_Result] = Future()

        def work() -> None:
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(fn(*args, **kwargs))
                except BaseException as error:
                    future.set_exception(error)

        self._work.put(work)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Let each thread end after what it runs and what was submitted before; they are never waited for."""
        for _ in range(self._n_threads):
            self._work.put(None)

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            work()
