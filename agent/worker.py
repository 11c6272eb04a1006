"""A named thread that reports its failure, and the boundary behind which one failure ends nothing."""

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
    """Make the calling thread nicer by `by` steps, and so every thread and process that it starts from now on."""
    if not by or sys.platform != "linux":  # elsewhere it would be the whole process
        return
    thread = threading.get_native_id()
    try:
        os.setpriority(os.PRIO_PROCESS, thread, os.getpriority(os.PRIO_PROCESS, thread) + by)
    except OSError as error:  # a seccomp filter; then everything has the same priority, and works
        log.warning(f"the priority of thread {threading.current_thread().name} cannot be lowered ({error.strerror})")


def at_lower_priority(work: Callable[[], Result], by: int) -> Result:
    """Return what `work` returns, or raise what it raises, run in a thread of its own with a lower priority."""
    with ThreadPoolExecutor(1, "load", initializer=lower_priority, initargs=(by,)) as executor:
        return executor.submit(work).result()


def attempt(work: Callable[[], object]) -> Exception | None:
    """Run `work`; return what it raised, None if nothing.

    A thread that handles one item after the other calls it for each, so that no item ends the thread.
    """
    try:
        work()
    except Exception as error:  # noqa: BLE001 - house rule 6
        return error
    return None


class Worker:
    """Runs `work` in a thread called `name` until it returns.

    `work` ends because its input was closed; there is no other way to stop a worker. An exception is kept in `failure`
    and `on_failure` is called once, from the worker's own thread; the owner decides (as a rule: stop the process, and
    let systemd start it again). `nice` lowers the priority of the thread, and of all that it starts, see
    `worker.py`.
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
        """Start the thread; to be called once."""
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
