import sys
import threading

import pytest

from agent.errors import EngineError
from agent.worker import Worker, attempt


def test_a_worker_runs_in_a_thread_of_its_name() -> None:
    """The thread carries the stage's name, so that `top -H` and stack dumps explain themselves."""
    names: list[str] = []
    worker = Worker("listen", lambda: names.append(threading.current_thread().name), lambda _: None)
    worker.start()
    assert worker.join(60)
    assert names == ["listen"]
    assert worker.failure is None


def test_a_failure_is_kept_and_reported_once() -> None:
    """An exception does not vanish with its thread: the owner is told, and can read it."""
    failed: list[Worker] = []

    def fail() -> None:
        raise EngineError("no words came")

    worker = Worker("engine", fail, failed.append)
    worker.start()
    assert worker.join(60)
    assert failed == [worker]
    assert str(worker.failure) == "no words came"


def test_join_tells_of_a_survivor() -> None:
    """A worker that does not end within the limit is reported as alive."""
    release = threading.Event()

    def wait() -> None:
        release.wait(60)

    worker = Worker("stuck", wait, lambda _: None)
    worker.start()
    assert not worker.join(0.05)
    assert worker.alive
    release.set()
    assert worker.join(60)


def test_an_attempt_returns_what_was_raised() -> None:
    """So that one bad item does not end the thread that handles them; an order to end the process is no such thing."""
    assert attempt(lambda: None) is None
    assert isinstance(attempt(lambda: int("x")), ValueError)
    with pytest.raises(SystemExit):
        attempt(sys.exit)
