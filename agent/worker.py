"""A named thread that reports its failure, and `attempt`, which keeps one failure from ending a thread."""

import logging
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

log = logging.getLogger(__name__)


Result = TypeVar("Result")


def lower_priority(by: int) -> None:
    """Lower the priority of the calling thread by `by` steps, and of all threads and processes that it starts later."""
    if not by or sys.platform != "linux":  # on other systems this would lower the whole process
        return
    thread = threading.get_native_id()
    try:
        os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + by)
    except OSError as error:  # a seccomp filter; then all threads work with the same priority
        log.warning(f"cannot lower the priority of thread {threading.current_thread().name} ({error.strerror})")


def at_lower_priority(work: Callable[[], Result], by: int) -> Result:
    """Run `work` in its own thread with a lower priority; return its result, or raise its exception."""
    with ThreadPoolExecutor(1, "load", initializer=lower_priority, initargs=(by,)) as executor:
        return executor.submit(work).result()


def attempt(work: Callable[[], object]) -> Exception | None:
    """Run `work`; return its exception, or None.

    A thread that handles many items calls it for each, so no item ends the thread.
    """
    try:
        work()
    except Exception as error:  # noqa: BLE001 - house rule 6
        return error
    return None


class Worker:
    """Runs `work` in a thread called `name` until it returns.

    `work` ends when its input closes; there is no other way to stop a worker. After an exception, `failure` holds it,
    and the worker's thread calls `on_failure` once. The owner decides; usually it stops the process, and systemd starts
    it again. `nice` is passed to `lower_priority`.
    """

    def __init__(
        self, name: str, work: Callable[[], None], on_failure: Callable[["Worker"], None], *, nice: int = 0
    ) -> None:
        self.name = name
        self.failure: Exception | None = None
        self._work = work
        self._on_failure = on_failure
        self._nice = nice
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread; call it once."""
        self._thread.start()

    def _run(self) -> None:
        lower_priority(self._nice)
        if error := attempt(self._work):
            self.failure = error
            self._on_failure(self)

    def join(self, timeout_s: float) -> bool:
        """Wait for the thread to end; False if it is still alive after `timeout_s`."""
        if self._thread.ident is None:
            return True
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    @property
    def alive(self) -> bool:
        """True while the thread runs."""
        return self._thread.is_alive()
